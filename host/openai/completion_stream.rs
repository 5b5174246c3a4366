//! Continued texts in pieces: `text_completion` with what is new.

use serde::Serialize;

use super::response::finish_reason;
use super::{CompletionLogprobs, StreamEvent, StreamHead, Usage};
use crate::engine::Finish;

/// The chunks of the answers to one request.
pub struct CompletionStream {
    head: StreamHead,
    include_usage: bool,
}

#[derive(Serialize)]
struct Chunk<'a> {
    #[serde(flatten)]
    head: &'a StreamHead,
    choices: &'a [ChunkChoice<'a>],
    /// Null until the last one, where it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    text: &'a str,
    logprobs: Option<&'a CompletionLogprobs>,
    finish_reason: Option<&'static str>,
}

impl CompletionStream {
    /// Chunks of all answers; with `include_usage` the last one counts their tokens.
    pub fn new(head: StreamHead, include_usage: bool) -> CompletionStream {
        let object = "text_completion";
        CompletionStream {
            head: StreamHead { object, ..head },
            include_usage,
        }
    }

    /// The next text of an answer, with the log-probabilities of the tokens that are certain with it.
    pub fn text(
        &self,
        choice: usize,
        text: &str,
        logprobs: Option<&CompletionLogprobs>,
    ) -> Vec<StreamEvent> {
        let logprobs = logprobs.filter(|logprobs| !logprobs.tokens.is_empty());
        match text.is_empty() && logprobs.is_none() {
            true => Vec::new(),
            false => vec![self.chunk(choice, text, logprobs, None)],
        }
    }

    /// The end of an answer.
    pub fn finish(&self, choice: usize, finish: Finish) -> StreamEvent {
        self.chunk(choice, "", None, Some(finish_reason(finish)))
    }

    /// The end of all answers, which took `usage`.
    pub fn end(&self, usage: Usage) -> Vec<StreamEvent> {
        let last = || {
            StreamEvent::json(&Chunk {
                head: &self.head,
                choices: &[],
                usage: Some(Some(usage)),
            })
        };
        let mut events: Vec<StreamEvent> = self.include_usage.then(last).into_iter().collect();
        events.push(StreamEvent::done());
        events
    }

    fn chunk(
        &self,
        index: usize,
        text: &str,
        logprobs: Option<&CompletionLogprobs>,
        finish_reason: Option<&'static str>,
    ) -> StreamEvent {
        StreamEvent::json(&Chunk {
            head: &self.head,
            choices: &[ChunkChoice {
                index,
                text,
                logprobs,
                finish_reason,
            }],
            usage: self.include_usage.then_some(None),
        })
    }
}
