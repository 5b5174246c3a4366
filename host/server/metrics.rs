//! What a server counts, for Prometheus.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::backend::PAGE_TOKENS;
use crate::engine::{Finish, Stats};

/// Upper ends of the histograms' buckets in seconds. A token takes from half a millisecond on a GPU to a second on a
/// slow CPU, an answer from milliseconds to minutes.
const TOKEN_BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0,
];
const ANSWER_BUCKETS: [f64; 15] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];

type Labels<const N: usize> = [(&'static str, String); N];

/// What the engine's thread counts.
#[derive(Clone)]
pub struct EngineMetrics {
    answers: Family<Labels<1>, Counter>,
    prompt_tokens: Counter,
    cached_tokens: Counter,
    generated_tokens: Counter,
    drafted_tokens: Counter,
    accepted_tokens: Counter,
    preemptions: Counter,
    cancellations: Counter,
    first_token: Histogram,
    between_tokens: Histogram,
    whole: Histogram,
}

impl EngineMetrics {
    /// Counted anew, and told by `registry`.
    fn new(registry: &mut Registry) -> EngineMetrics {
        let metrics = EngineMetrics {
            answers: Family::default(),
            prompt_tokens: Counter::default(),
            cached_tokens: Counter::default(),
            generated_tokens: Counter::default(),
            drafted_tokens: Counter::default(),
            accepted_tokens: Counter::default(),
            preemptions: Counter::default(),
            cancellations: Counter::default(),
            first_token: Histogram::new(ANSWER_BUCKETS),
            between_tokens: Histogram::new(TOKEN_BUCKETS),
            whole: Histogram::new(ANSWER_BUCKETS),
        };
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(format!("hyperion_{name}"), help, counter.clone());
        };
        counter(
            "prompt_tokens",
            "Prompt tokens that were computed",
            &metrics.prompt_tokens,
        );
        counter(
            "prefix_cache_hit_tokens",
            "Prompt tokens that were in the prefix cache",
            &metrics.cached_tokens,
        );
        counter(
            "generated_tokens",
            "Tokens generated",
            &metrics.generated_tokens,
        );
        counter(
            "drafted_tokens",
            "Tokens that were guessed, to be verified",
            &metrics.drafted_tokens,
        );
        counter(
            "accepted_tokens",
            "Guessed tokens that were right",
            &metrics.accepted_tokens,
        );
        counter(
            "preemptions",
            "Times that an answer gave its pages to older ones",
            &metrics.preemptions,
        );
        counter(
            "cancellations",
            "Answers whose clients went away or fell behind",
            &metrics.cancellations,
        );
        registry.register(
            "hyperion_answers",
            "Answers by how they ended",
            metrics.answers.clone(),
        );
        for (name, help, histogram) in [
            (
                "hyperion_time_to_first_token_seconds",
                "From a request's arrival at the engine to its first token",
                &metrics.first_token,
            ),
            (
                "hyperion_inter_token_seconds",
                "From one token of an answer to the next",
                &metrics.between_tokens,
            ),
            (
                "hyperion_answer_seconds",
                "From a request's arrival at the engine to the end of its answer",
                &metrics.whole,
            ),
        ] {
            registry.register(name, help, histogram.clone());
        }
        metrics
    }

    /// The first token of an answer came after `time`.
    pub fn first_token(&self, time: Duration) {
        self.generated_tokens.inc();
        self.first_token.observe(time.as_secs_f64());
    }

    /// Another token of an answer came `time` after the one before.
    pub fn next_token(&self, time: Duration) {
        self.generated_tokens.inc();
        self.between_tokens.observe(time.as_secs_f64());
    }

    /// An answer that took `time` is complete.
    pub fn finished(&self, finish: Finish, stats: &Stats, time: Duration) {
        self.prompt_tokens.inc_by(stats.prompt_tokens as u64);
        self.cached_tokens.inc_by(stats.cached_tokens as u64);
        self.drafted_tokens.inc_by(stats.drafted as u64);
        self.accepted_tokens.inc_by(stats.accepted as u64);
        self.preemptions.inc_by(stats.preemptions as u64);
        if finish != Finish::Interrupted {
            self.whole.observe(time.as_secs_f64());
        }
        self.ended(match finish {
            Finish::EndOfText => "end_of_text",
            Finish::StopString => "stop_string",
            Finish::Length => "length",
            Finish::Context => "context",
            Finish::Interrupted => "cancelled",
        });
    }

    /// An answer failed.
    pub fn failed(&self) {
        self.ended("error");
    }

    /// Nobody waits for an answer any more.
    pub fn cancelled(&self) {
        self.cancellations.inc();
    }

    fn ended(&self, how: &str) {
        let labels = [("finish", how.to_owned())];
        self.answers.get_or_create(&labels).inc();
    }
}

/// How busy an engine is at a moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct EngineLoad {
    /// Answers that are being made.
    pub running: usize,
    /// Answers that wait for their turn.
    pub waiting: usize,
    /// Most answers that are made at a time.
    pub most_running: usize,
    /// Prompt tokens that are still to be computed.
    pub prompt_tokens_left: usize,
    /// Pages of the KV cache.
    pub pages: usize,
    /// Pages that answers hold.
    pub pages_used: usize,
    /// Free pages whose content can be found.
    pub pages_cached: usize,
    /// Prompt tokens so far.
    pub prompt_tokens: u64,
    /// Those of them that were in the prefix cache.
    pub cached_tokens: u64,
    /// Tokens a second, of the last second in which there was work.
    pub tokens_per_second: f64,
}

type FloatGauge = Gauge<f64, AtomicU64>;
type LoadValue = fn(&EngineLoad) -> f64;

/// A gauge that follows from the engine's load.
struct LoadGauge {
    gauge: Family<Labels<1>, FloatGauge>,
    value: LoadValue,
}

/// All that a server counts.
pub struct Metrics {
    registry: Registry,
    /// What the engine's thread counts.
    pub engine: EngineMetrics,
    model_name: String,
    gauges: Vec<LoadGauge>,
    cache_config: Family<Labels<3>, FloatGauge>,
}

/// Gauges by name. Routers look for vLLM's names; the shares are of 1, as vLLM's.
const GAUGES: [(&str, &str, LoadValue); 8] = [
    (
        "hyperion_requests_running",
        "Answers that are being made",
        |load| load.running as f64,
    ),
    (
        "hyperion_requests_waiting",
        "Answers that wait for their turn",
        |load| load.waiting as f64,
    ),
    (
        "hyperion_kv_pages",
        "Pages of the KV cache, of 64 tokens each",
        |load| load.pages as f64,
    ),
    (
        "hyperion_kv_pages_used",
        "Pages that answers hold",
        |load| load.pages_used as f64,
    ),
    (
        "hyperion_kv_pages_cached",
        "Free pages whose content can be found again",
        |load| load.pages_cached as f64,
    ),
    (
        "vllm:num_requests_running",
        "The same as hyperion_requests_running",
        |load| load.running as f64,
    ),
    (
        "vllm:num_requests_waiting",
        "The same as hyperion_requests_waiting",
        |load| load.waiting as f64,
    ),
    (
        "vllm:kv_cache_usage_perc",
        "Share of the KV cache's pages that answers hold, 1 for all",
        EngineLoad::usage,
    ),
];

impl EngineLoad {
    /// Share of the pages that answers hold.
    pub fn usage(&self) -> f64 {
        self.pages_used as f64 / self.pages.max(1) as f64
    }
}

impl Metrics {
    /// Of a server of the model `model_name`.
    pub fn new(model_name: &str) -> Metrics {
        let mut registry = Registry::default();
        let engine = EngineMetrics::new(&mut registry);
        let gauges = GAUGES.map(|(name, help, value)| {
            let gauge = Family::default();
            registry.register(name, help, Family::clone(&gauge));
            LoadGauge { gauge, value }
        });
        let cache_config = Family::default();
        registry.register(
            "vllm:cache_config_info",
            "The KV cache's pages, under vLLM's name",
            Family::clone(&cache_config),
        );
        Metrics {
            registry,
            engine,
            model_name: model_name.to_owned(),
            gauges: gauges.into(),
            cache_config,
        }
    }

    /// All of it as text, with the engine's `load`.
    pub fn text(&self, load: &EngineLoad) -> String {
        let model = || ("model_name", self.model_name.clone());
        for LoadGauge { gauge, value } in &self.gauges {
            gauge.get_or_create(&[model()]).set(value(load));
        }
        // Labels stay for ever, and without a model there are none.
        if load.pages > 0 {
            let config = [
                model(),
                ("block_size", PAGE_TOKENS.to_string()),
                ("num_gpu_blocks", load.pages.to_string()),
            ];
            self.cache_config.get_or_create(&config).set(1.0);
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_follow_the_load_and_routers_find_their_names() {
        let metrics = Metrics::new("m");
        // As while the model is loaded.
        metrics.text(&EngineLoad::default());
        let load = EngineLoad {
            running: 2,
            waiting: 3,
            pages: 8,
            pages_used: 2,
            ..EngineLoad::default()
        };
        let text = metrics.text(&load);
        for line in [
            "hyperion_requests_running{model_name=\"m\"} 2",
            "vllm:num_requests_waiting{model_name=\"m\"} 3",
            "vllm:kv_cache_usage_perc{model_name=\"m\"} 0.25",
            "num_gpu_blocks=\"8\"",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
        assert_eq!(text.matches("num_gpu_blocks").count(), 1);
        let text = metrics.text(&EngineLoad::default());
        assert!(text.contains("hyperion_requests_running{model_name=\"m\"} 0"));
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn answers_are_counted_by_their_end() {
        let metrics = Metrics::new("m");
        let stats = Stats {
            prompt_tokens: 5,
            cached_tokens: 64,
            drafted: 7,
            accepted: 3,
            ..Stats::default()
        };
        let time = Duration::from_millis(20);
        metrics.engine.first_token(time);
        metrics.engine.next_token(time);
        metrics.engine.finished(Finish::Length, &stats, time);
        metrics.engine.failed();
        let text = metrics.text(&EngineLoad::default());
        for line in [
            "hyperion_answers_total{finish=\"length\"} 1",
            "hyperion_answers_total{finish=\"error\"} 1",
            "hyperion_prefix_cache_hit_tokens_total 64",
            "hyperion_generated_tokens_total 2",
            "hyperion_drafted_tokens_total 7",
            "hyperion_accepted_tokens_total 3",
            "hyperion_inter_token_seconds_count 1",
            "hyperion_answer_seconds_bucket{le=\"0.025\"} 1",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }
}
