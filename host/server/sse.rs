//! Server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use tokio_stream::{Stream, StreamExt};

use crate::openai::{EventData, StreamEvent};

/// Proxies and clients give up on connections that are silent for longer, as during a long prompt.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The response with `events`.
pub fn respond(events: impl Stream<Item = StreamEvent> + Send + 'static) -> Response {
    let events = events.map(|event| Ok::<_, Infallible>(write(&event)));
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    // nginx would collect the events.
    let no_buffer = HeaderName::from_static("x-accel-buffering");
    response
        .headers_mut()
        .insert(no_buffer, HeaderValue::from_static("no"));
    response
}

fn write(event: &StreamEvent) -> Event {
    let written = match event.name {
        Some(name) => Event::default().event(name),
        None => Event::default(),
    };
    match &event.data {
        // Its strings are escaped: no line of it can be taken for another event.
        EventData::Json(value) => written.data(value.to_string()),
        EventData::Done => written.data("[DONE]"),
    }
}
