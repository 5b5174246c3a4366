//! What a server tells of its requests: one line each, with a name that clients can ask about.

use std::io;
use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, info, info_span};
use tracing_subscriber::util::TryInitError;

use crate::sampling::random_seed;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// A JSON object.
    Json,
}

/// Writes all that is logged from now on to standard error.
///
/// # Errors
/// Something is logging already.
pub fn init(format: LogFormat, level: LevelFilter) -> Result<(), TryInitError> {
    use tracing_subscriber::util::SubscriberInitExt;
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(false).finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    }
}

/// Names a request, in the log and in the response, and logs what became of it.
pub async fn observe(request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = plain_id(request.headers()).unwrap_or_else(new_id);
    let trace = trace_id(request.headers());
    let span = info_span!("request", id, trace);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    let ms = start.elapsed().as_millis() as u64;
    span.in_scope(|| info!(%method, path, status, ms, "response"));
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn new_id() -> String {
    format!("{:014x}{:014x}", random_seed(), random_seed())
}

/// The client's name for its request, if it can stand anywhere.
fn plain_id(headers: &HeaderMap) -> Option<String> {
    const MOST: usize = 128;
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    let fits = (1..=MOST).contains(&id.len());
    (fits && id.bytes().all(is_plain)).then(|| id.to_owned())
}

/// The trace that a request belongs to, by W3C's `traceparent`: `version-trace-parent-flags` in hexadecimal digits.
fn trace_id(headers: &HeaderMap) -> Option<String> {
    let parent = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = parent.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let is_valid = is_hex(version, 2)
        && is_hex(trace, 32)
        && is_hex(parts.next()?, 16)
        && is_hex(parts.next()?, 2);
    is_valid.then(|| trace.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::try_from(value).expect("a value"));
        headers
    }

    #[test]
    fn only_plain_names_are_taken_over() {
        let id = |value: &str| plain_id(&headers("x-request-id", value));
        assert_eq!(id("a-1_B.c:2").as_deref(), Some("a-1_B.c:2"));
        for odd in ["", "a b", "a\"b", "{a}", "é", &"a".repeat(129)] {
            assert_eq!(id(odd), None, "{odd}");
        }
    }

    #[test]
    fn traces_have_w3cs_form() {
        let trace = |value: &str| trace_id(&headers("traceparent", value));
        let id = "0af7651916cd43dd8448eb211c80319c";
        let parent = "b7ad6b7169203331";
        assert_eq!(trace(&format!("00-{id}-{parent}-01")).as_deref(), Some(id));
        for odd in [
            id.to_owned(),
            format!("00-{id}-{parent}"),
            format!("00-{id}0-{parent}-01"),
            format!("00-{}-{parent}-01", id.replace('0', "g")),
        ] {
            assert_eq!(trace(&odd), None, "{odd}");
        }
    }
}
