//! Requests on tiny models.

use std::collections::HashMap;
use std::sync::Arc;

use hyperion::backend::{Backend, Draw, PAGE_TOKENS};
use hyperion::cpu::CpuBackend;
use hyperion::engine::{Event, Finish, Generation, Limits, Options, Request, RequestId, Scheduler};
use hyperion::gguf::Gguf;
use hyperion::model::Model;
use hyperion::sampling::SamplingParams;
use hyperion::tokenizer::Tokenizer;

use crate::support;
use crate::support::cropped::cropped_model;
pub use crate::support::random::Random;

/// Tokens of a sequence, at most.
pub const CONTEXT: usize = 4 * PAGE_TOKENS;

/// A model with what it takes to run requests on it.
#[derive(Clone)]
pub struct Tiny {
    pub model: Arc<Model>,
    pub tokenizer: Arc<Tokenizer>,
}

impl Tiny {
    pub fn open(name: &str) -> Tiny {
        let path = support::fixture(&format!("tiny/{name}.gguf"));
        let gguf = Gguf::open(&path).expect("a tiny model");
        Tiny {
            model: Arc::new(Model::from_gguf(&gguf).expect("a model")),
            tokenizer: Arc::new(Tokenizer::from_gguf(&gguf).expect("a tokenizer")),
        }
    }

    /// A model of which a simulated step costs little.
    pub fn cropped() -> Tiny {
        let gguf = cropped_model();
        Tiny {
            model: Arc::new(Model::from_gguf(&gguf).expect("a model")),
            tokenizer: Arc::new(Tokenizer::from_gguf(&gguf).expect("a tokenizer")),
        }
    }

    pub fn on_cpu(&self, n_pages: usize) -> Box<dyn Backend> {
        Box::new(CpuBackend::new(self.model.clone(), n_pages))
    }

    pub fn scheduler(&self, backend: Box<dyn Backend>, max_running: usize) -> Scheduler {
        let options = Options {
            context: CONTEXT,
            chunk: 48,
            mixed_chunk: 20,
            max_running,
        };
        Scheduler::new(backend, self.tokenizer.clone(), options)
    }
}

/// A request of some length, drawn or greedy, with and without penalties, stop strings and log-probabilities.
pub fn request(random: &mut Random, vocab: usize, prefix: &[u32]) -> Request {
    let mut prompt = prefix.to_vec();
    let n = 1 + random.below(70);
    prompt.extend(random.tokens(n, vocab));
    let kind = random.below(4);
    Request {
        prompt,
        sampling: SamplingParams {
            draw: Draw {
                temperature: if kind == 0 { 0.0 } else { 1.5 },
                typical_p: if kind == 2 { 0.9 } else { 1.0 },
                seed: random.below(1000) as u64,
                ..Draw::default()
            },
            repeat_penalty: if kind == 1 { 1.3 } else { 1.0 },
            ..SamplingParams::default()
        },
        embedding: None,
        limits: Limits {
            max_tokens: Some(1 + random.below(70)),
            stop: match random.below(3) {
                0 => vec!["e".to_owned(), "th".to_owned()],
                _ => Vec::new(),
            },
            ignore_end: random.below(2) == 0,
        },
        logprobs: (random.below(3) == 0).then_some(2),
        ..Request::default()
    }
}

/// What came of the requests, and the text that was streamed of each.
#[derive(Default)]
pub struct Outcome {
    pub answers: HashMap<RequestId, Generation>,
    pub failed: HashMap<RequestId, String>,
    pub streamed: HashMap<RequestId, String>,
}

impl Outcome {
    pub fn take(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Prompt { .. } => {}
                Event::Token { id, text, .. } => *self.streamed.entry(id).or_default() += &text,
                Event::Finished {
                    id,
                    text,
                    generation,
                } => {
                    *self.streamed.entry(id).or_default() += &text;
                    assert!(
                        self.answers.insert(id, generation).is_none(),
                        "{id:?} ended twice"
                    );
                }
                Event::Failed { id, error } => {
                    assert!(!self.answers.contains_key(&id));
                    assert!(self.failed.insert(id, error.to_string()).is_none());
                }
            }
        }
    }

    /// Every text was streamed as it is in the end.
    pub fn check_streams(&self) {
        for (id, answer) in &self.answers {
            let streamed = self.streamed.get(id).map_or("", String::as_str);
            assert_eq!(streamed, answer.text, "{id:?}");
        }
    }
}

/// Runs all that a scheduler has. Each step makes progress, so that a schedule that hangs is found.
pub fn run(scheduler: &mut Scheduler, outcome: &mut Outcome) {
    let mut steps = 0;
    while scheduler.is_busy() {
        outcome.take(scheduler.step().expect("a step"));
        steps += 1;
        assert!(steps < 100_000, "the schedule does not end");
    }
}

/// The answer of a request that runs alone, on a backend with all the pages that it needs.
pub fn alone(tiny: &Tiny, request: &Request) -> Generation {
    let mut scheduler = tiny.scheduler(tiny.on_cpu(CONTEXT / PAGE_TOKENS), 1);
    alone_on(&mut scheduler, request)
}

/// The answer of a request that runs alone on `scheduler`, with nothing cached.
pub fn alone_on(scheduler: &mut Scheduler, request: &Request) -> Generation {
    scheduler.pages().forget();
    let mut outcome = Outcome::default();
    let id = scheduler.add(request.clone()).expect("a request");
    run(scheduler, &mut outcome);
    outcome.answers.remove(&id).expect("an answer")
}

/// Sends `n_requests` requests to `scheduler`, of which some are cancelled and some have one prefix, with answers of one
/// `shorter`th of their length, and holds each against its text on `alone`; how often some gave their pages back.
pub fn beside_each_other(
    scheduler: &mut Scheduler,
    alone: &mut Scheduler,
    n_requests: usize,
    shorter: usize,
) -> usize {
    let vocab = scheduler.model().vocab();
    let mut random = Random(7);
    let prefix = random.tokens(100, vocab);
    let mut outcome = Outcome::default();
    let mut sent: Vec<(RequestId, Request)> = Vec::new();
    while sent.len() < n_requests {
        let prefix = if random.below(3) == 0 {
            &prefix[..]
        } else {
            &[]
        };
        let mut request = request(&mut random, vocab, prefix);
        request.limits.max_tokens = request.limits.max_tokens.map(|n| n.div_ceil(shorter));
        let id = scheduler.add(request.clone()).expect("a request");
        sent.push((id, request));
        for _ in 0..random.below(6) {
            outcome.take(scheduler.step().expect("a step"));
        }
        if random.below(6) == 0 {
            scheduler.cancel(sent[random.below(sent.len())].0);
        }
    }
    run(scheduler, &mut outcome);
    outcome.check_streams();
    assert_eq!(scheduler.pages().n_free(), scheduler.pages().n_pages());
    let name = scheduler.model().config.arch.name;
    let mut preemptions = 0;
    for (id, request) in &sent {
        let found = &outcome.answers[id];
        preemptions += found.stats.preemptions;
        let expected = alone_on(alone, request);
        assert_same(found, &expected, &format!("{name} {id:?}"));
    }
    preemptions
}

/// `found` is the answer that the request gets alone, or the beginning of it where it was cancelled.
pub fn assert_same(found: &Generation, expected: &Generation, what: &str) {
    if found.finish == Finish::Interrupted {
        assert!(expected.tokens.starts_with(&found.tokens), "{what}");
        assert!(
            expected
                .text
                .starts_with(found.text.trim_end_matches('\u{fffd}')),
            "{what}"
        );
        return;
    }
    assert_eq!(found.tokens, expected.tokens, "{what}");
    assert_eq!(
        (&found.text, found.finish),
        (&expected.text, expected.finish),
        "{what}"
    );
    assert_eq!(found.logprobs, expected.logprobs, "{what}");
}
