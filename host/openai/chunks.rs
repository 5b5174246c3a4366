//! What chunks of messages and of texts have in common.

use serde::Serialize;

use super::{StreamEvent, StreamHead, Usage};

/// The chunks of the answers to one request.
pub struct Chunks {
    head: StreamHead,
    include_usage: bool,
}

#[derive(Serialize)]
struct Chunk<'a, C> {
    #[serde(flatten)]
    head: &'a StreamHead,
    choices: &'a [C],
    /// Null until the last one, where it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

impl Chunks {
    /// Chunks that are called `object`; with `include_usage` the last one counts the tokens of all answers.
    pub fn new(head: StreamHead, object: &'static str, include_usage: bool) -> Chunks {
        Chunks {
            head: StreamHead { object, ..head },
            include_usage,
        }
    }

    /// A chunk with a part of one answer.
    pub fn chunk(&self, choice: impl Serialize) -> StreamEvent {
        StreamEvent::json(&Chunk {
            head: &self.head,
            choices: &[choice],
            usage: self.include_usage.then_some(None),
        })
    }

    /// The end of all answers, which took `usage`.
    pub fn end(&self, usage: Usage) -> Vec<StreamEvent> {
        let last = || {
            StreamEvent::json(&Chunk::<()> {
                head: &self.head,
                choices: &[],
                usage: Some(Some(usage)),
            })
        };
        let mut events: Vec<StreamEvent> = self.include_usage.then(last).into_iter().collect();
        events.push(StreamEvent::done());
        events
    }
}
