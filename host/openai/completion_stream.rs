//! Continued texts in pieces: `text_completion` with what is new.

use serde::Serialize;

use super::chunks::Chunks;
use super::response::finish_reason;
use super::{CompletionLogprobs, StreamEvent, StreamHead, Usage};
use crate::engine::Finish;

/// The chunks of the answers to one request.
pub struct CompletionStream {
    chunks: Chunks,
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
        CompletionStream {
            chunks: Chunks::new(head, "text_completion", include_usage),
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
        self.chunks.end(usage)
    }

    fn chunk(
        &self,
        index: usize,
        text: &str,
        logprobs: Option<&CompletionLogprobs>,
        finish_reason: Option<&'static str>,
    ) -> StreamEvent {
        self.chunks.chunk(ChunkChoice {
            index,
            text,
            logprobs,
            finish_reason,
        })
    }
}
