//! The bodies of requests: JSON, of bounded size, within a bounded time.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tracing::info;

use super::{Config, Limits};
use crate::openai::ApiError;

/// Reads the body of `request`.
///
/// # Errors
/// It is not called JSON, cannot be read as JSON, is compressed, is too large, or takes too long.
pub async fn read_json(request: Request, limits: &Limits) -> Result<Value, ApiError> {
    check_type(request.headers())?;
    check_coding(request.headers())?;
    check_length(request.headers(), limits)?;
    let bytes = timeout(
        limits.body_time,
        read(request.into_body(), limits.body_bytes),
    );
    let bytes = bytes.await.map_err(|_| {
        let seconds = limits.body_time.as_secs();
        let message = format!("the body did not arrive within {seconds} seconds");
        ApiError::with_status(408, message)
    })??;
    // Its own limit on depth is 128.
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::invalid(format!("the body cannot be read as JSON: {error}")))
}

/// Reads the body of a request for an answer, and logs it where that is wanted.
///
/// # Errors
/// As for [`read_json`].
pub async fn read_asked(request: Request, config: &Config) -> Result<Value, ApiError> {
    let body = read_json(request, &config.limits).await?;
    if config.logs_prompts {
        info!(%body, "asked");
    }
    Ok(body)
}

/// Requests that are prepared at a time; more would only take each other's cores and memory.
static WORKERS: Semaphore = Semaphore::const_new(8);

/// Does work that takes longer than others should wait: templates, tokenizers and grammars do for long texts.
///
/// # Errors
/// Those of `work`.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    // The semaphore is never closed.
    let _permit = WORKERS.acquire().await;
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(ApiError::server("reading the request failed")))
}

/// A web page can send other types to any server without asking it first.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_json = |value: &HeaderValue| {
        let essence = value.as_bytes().split(|&byte| byte == b';').next();
        essence.is_some_and(|text| text.trim_ascii().eq_ignore_ascii_case(b"application/json"))
    };
    let mut given = headers.get_all(header::CONTENT_TYPE).iter();
    match given.next().is_some_and(is_json) && given.all(is_json) {
        true => Ok(()),
        false => {
            let message = "the content-type of the body must be application/json";
            Err(ApiError::with_status(415, message))
        }
    }
}

/// What a compressed body would take is known too late.
fn check_coding(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    match headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(is_plain)
    {
        true => Ok(()),
        false => {
            let message = "the body has a content-encoding; expected it as it is";
            Err(ApiError::with_status(415, message))
        }
    }
}

fn check_length(headers: &HeaderMap, limits: &Limits) -> Result<(), ApiError> {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if length > limits.body_bytes as u64 => Err(too_large(limits.body_bytes)),
        _ => Ok(()),
    }
}

async fn read(body: Body, most: usize) -> Result<Vec<u8>, ApiError> {
    let mut frames = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(frame) = frames.next().await {
        let frame =
            frame.map_err(|error| ApiError::invalid(format!("reading the body: {error}")))?;
        if bytes.len() + frame.len() > most {
            return Err(too_large(most));
        }
        bytes.extend_from_slice(&frame);
    }
    Ok(bytes)
}

fn too_large(most: usize) -> ApiError {
    let message = format!("the body is larger than {most} bytes");
    ApiError::with_status(413, message)
}
