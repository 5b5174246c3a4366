//! Answers in pieces, as server-sent events.

use serde_json::Value;

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamEvent {
    /// Its name, where the API's events have names.
    pub name: Option<&'static str>,
    /// What it tells.
    pub data: EventData,
}

/// What an event tells.
#[derive(Debug, Clone, PartialEq)]
pub enum EventData {
    /// An object.
    Json(Value),
    /// That the stream is complete: `[DONE]`.
    Done,
}
