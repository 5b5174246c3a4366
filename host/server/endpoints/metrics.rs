//! `/metrics` for Prometheus, and `/v1/loads` for routers.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::backend::PAGE_TOKENS;
use crate::server::state::ServerState;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All that is counted.
pub async fn metrics(State(state): State<Arc<ServerState>>) -> impl IntoResponse {
    let text = state.metrics.text(&state.load());
    ([(header::CONTENT_TYPE, OPEN_METRICS)], text)
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
