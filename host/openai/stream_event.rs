//! Answers in pieces, as server-sent events.

use serde::Serialize;
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

/// What every chunk of a stream repeats.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StreamHead {
    /// The answer's name.
    pub id: String,
    /// What a chunk is.
    pub object: &'static str,
    /// When, in seconds since 1970.
    pub created: u64,
    /// The model's name.
    pub model: String,
    /// The seed that was used.
    pub seed: u64,
}

impl StreamEvent {
    /// An event without a name.
    pub fn json(value: &impl Serialize) -> StreamEvent {
        // What is sent are structures of strings and numbers, which all have a form in JSON.
        let value = serde_json::to_value(value).unwrap_or_default();
        StreamEvent {
            name: None,
            data: EventData::Json(value),
        }
    }

    /// The stream is complete.
    pub fn done() -> StreamEvent {
        StreamEvent {
            name: None,
            data: EventData::Done,
        }
    }
}
