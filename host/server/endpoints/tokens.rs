//! `/tokenize`, `/detokenize` and `/apply-template`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request as HttpRequest, State};
use serde_json::{Value, json};

use crate::openai::{ApiError, DetokenizeRequest, TemplateRequest, TokenizeRequest};
use crate::server::body::{blocking, read_json};
use crate::server::state::ServerState;

/// The tokens of a text or of a conversation.
pub async fn tokenize(
    State(state): State<Arc<ServerState>>,
    request: HttpRequest,
) -> Result<Json<Value>, ApiError> {
    let served = state.served()?.clone();
    let body = read_json(request, &state.config.limits).await?;
    let response = blocking(move || {
        let request = TokenizeRequest::from_body(body)?;
        let tokens = request.tokens(&served.tokenizer, || served.template())?;
        Ok(request.response(&tokens, &served.tokenizer, served.engine.context()))
    });
    Ok(Json(response.await?))
}

/// The text of tokens.
pub async fn detokenize(
    State(state): State<Arc<ServerState>>,
    request: HttpRequest,
) -> Result<Json<Value>, ApiError> {
    let served = state.served()?.clone();
    let body = read_json(request, &state.config.limits).await?;
    let text =
        blocking(move || DetokenizeRequest::from_body(body)?.text(&served.tokenizer)).await?;
    // The first is llama.cpp's name, the second vLLM's.
    Ok(Json(json!({"content": text, "prompt": text})))
}

/// The text of a conversation, as the model reads it.
pub async fn apply_template(
    State(state): State<Arc<ServerState>>,
    request: HttpRequest,
) -> Result<Json<Value>, ApiError> {
    let served = state.served()?.clone();
    let body = read_json(request, &state.config.limits).await?;
    let prompt = blocking(move || TemplateRequest::from_body(body)?.prompt(served.template()?));
    let text = prompt.await?.text;
    Ok(Json(json!({ "prompt": text })))
}
