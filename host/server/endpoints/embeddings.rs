//! `/v1/embeddings`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request as HttpRequest, State};
use serde_json::Value;

use crate::engine::Request;
use crate::openai::{ApiError, EmbeddingRequest, embedding_response};
use crate::server::answer::collect;
use crate::server::body::{blocking, read_json};
use crate::server::state::ServerState;

/// Texts of a request that are computed together.
const AT_A_TIME: usize = 32;

/// The vectors of texts, of length 1.
pub async fn embeddings(
    State(state): State<Arc<ServerState>>,
    request: HttpRequest,
) -> Result<Json<Value>, ApiError> {
    let served = state.served()?.clone();
    let body = read_json(request, &state.config.limits).await?;
    let (request, texts) = blocking({
        let served = served.clone();
        move || {
            let request = EmbeddingRequest::from_body(body)?;
            let texts = request.tokens(&served.tokenizer)?;
            Ok((request, texts))
        }
    })
    .await?;
    if let Some(dimensions) = request.dimensions
        && dimensions != served.width
    {
        let message = format!(
            "dimensions is {dimensions}; this model's vectors have {}",
            served.width
        );
        return Err(ApiError::field("dimensions", message));
    }
    for text in &texts {
        state
            .config
            .limits
            .check_prompt(text.len(), &served.engine)?;
    }
    let prompt_tokens = texts.iter().map(Vec::len).sum();
    let at_a_time = AT_A_TIME.min(served.engine.most_open());
    let mut vectors = Vec::with_capacity(texts.len());
    for texts in texts.chunks(at_a_time) {
        let requests = texts.iter().map(|text| Request {
            prompt: text.clone(),
            embedding: Some(state.config.pooling),
            ..Request::default()
        });
        let answers = served.engine.start(requests.collect()).await?;
        for generation in collect(answers).await? {
            vectors.push(normalized(generation.embedding)?);
        }
    }
    let name = &state.config.model_name;
    let response = embedding_response(&vectors, request.format, name, prompt_tokens);
    Ok(Json(response))
}

/// The vector of length 1 in the direction of `vector`.
fn normalized(mut vector: Vec<f32>) -> Result<Vec<f32>, ApiError> {
    let square = |value: &f32| f64::from(*value) * f64::from(*value);
    let length = vector.iter().map(square).sum::<f64>().sqrt();
    if !length.is_finite() || length == 0.0 {
        let message = "the vector has no direction: the model's weights or the backend are broken";
        return Err(ApiError::server(message));
    }
    for value in &mut vector {
        *value = (f64::from(*value) / length) as f32;
    }
    Ok(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_get_the_length_one() {
        assert_eq!(normalized(vec![3.0, -4.0]), Ok(vec![0.6, -0.8]));
        for broken in [vec![], vec![0.0, 0.0], vec![f32::NAN, 1.0]] {
            assert!(normalized(broken).is_err());
        }
    }
}
