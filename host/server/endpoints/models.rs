//! `/v1/models`: the one model that there is.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::openai::ApiError;
use crate::server::state::{Served, ServerState};

/// All models.
pub async fn list(State(state): State<Arc<ServerState>>) -> Result<Json<Value>, ApiError> {
    let served = state.served()?;
    let models = [model(&state.config.model_name, served)];
    Ok(Json(json!({"object": "list", "data": models})))
}

/// The model of this name.
pub async fn one(
    State(state): State<Arc<ServerState>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let served = state.served()?;
    match name == state.config.model_name {
        true => Ok(Json(model(&name, served))),
        false => Err(ApiError {
            code: Some("model_not_found"),
            ..ApiError::with_status(404, "there is no model of this name here")
        }),
    }
}

fn model(name: &str, served: &Served) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": served.created,
        "owned_by": "hyperion",
        "max_model_len": served.engine.context(),
    })
}
