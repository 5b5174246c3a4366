//! `/health`: whether requests should be sent here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::server::state::{Phase, ServerState};

/// 200 while the server answers, 503 before and after.
pub async fn health(State(state): State<Arc<ServerState>>) -> (StatusCode, Json<Value>) {
    let (status, word) = match state.phase() {
        Phase::Ready => (StatusCode::OK, "ok"),
        Phase::Loading => (StatusCode::SERVICE_UNAVAILABLE, "loading"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        Phase::Failed => (StatusCode::SERVICE_UNAVAILABLE, "failed"),
    };
    (status, Json(json!({ "status": word })))
}
