//! `/metrics` for Prometheus, and `/v1/loads` for routers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::backend::PAGE_TOKENS;
use crate::server::state::ServerState;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All that is counted: in OpenMetrics for who asks for it, and in Prometheus' older form for all others.
pub async fn metrics(
    State(state): State<Arc<ServerState>>,
    headers: HeaderMap,
) -> impl IntoResponse {
    let text = state.metrics.text(&state.load());
    let accepted = headers.get(header::ACCEPT);
    let accepted = accepted.and_then(|types| types.to_str().ok()).unwrap_or("");
    match accepted.contains("application/openmetrics-text") {
        true => ([(header::CONTENT_TYPE, OPEN_METRICS)], text),
        false => ([(header::CONTENT_TYPE, PLAIN_TEXT)], in_older_form(&text)),
    }
}

/// Of OpenMetrics, where a counter is declared without the `_total` of its samples, and an end is told.
fn in_older_form(text: &str) -> String {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let counters: BTreeSet<&str> = types
        .filter_map(|declared| declared.strip_suffix(" counter"))
        .collect();
    let mut older = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", what, name, rest] if counters.contains(name) => {
                older.extend(["# ", what, " ", name, "_total ", rest]);
            }
            _ => older.push_str(line),
        }
        older.push('\n');
    }
    older
}

/// The engine's load in the form of SGLang, which SMG reads.
pub async fn loads(State(state): State<Arc<ServerState>>) -> Json<Value> {
    let load = state.load();
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let share = |part: u64, all: u64| part as f64 / all.max(1) as f64;
    Json(json!({
        "timestamp": since.map_or(0.0, |since| since.as_secs_f64()),
        "dp_rank_count": 1,
        "loads": [{
            "dp_rank": 0,
            "page_size": PAGE_TOKENS,
            "num_running_reqs": load.running,
            "num_waiting_reqs": load.waiting,
            "num_waiting_uncached_tokens": load.prompt_tokens_left,
            "num_total_reqs": load.running + load.waiting,
            "num_used_tokens": load.pages_used * PAGE_TOKENS,
            "max_total_num_tokens": load.pages * PAGE_TOKENS,
            "token_usage": load.usage(),
            "gen_throughput": load.tokens_per_second,
            "cache_hit_rate": share(load.cached_tokens, load.prompt_tokens),
            "utilization": share(load.running as u64, load.most_running as u64),
            "max_running_requests": load.most_running,
        }],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_the_older_form_have_one_name() {
        let text = "# HELP a_b Some words.\n# TYPE a_b counter\na_b_total 5\n\
                    # HELP c More.\n# TYPE c gauge\nc{d=\"# TYPE c counter\"} 1.0\n# EOF\n";
        let older = "# HELP a_b_total Some words.\n# TYPE a_b_total counter\na_b_total 5\n\
                     # HELP c More.\n# TYPE c gauge\nc{d=\"# TYPE c counter\"} 1.0\n";
        assert_eq!(in_older_form(text), older);
    }
}
