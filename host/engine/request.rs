//! What is asked of the engine, and what comes of it.

use std::time::Duration;

use super::{Constraint, EngineError};
use crate::backend::{Logprobs, Pooling};
use crate::sampling::SamplingParams;

/// A text to be continued.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The text so far, at least one token.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// When to end.
    pub limits: Limits,
    /// For each token its log-probability and those of as many likeliest ones; `None` for none of that.
    pub logprobs: Option<usize>,
    /// Asks for a vector that stands for the prompt, pooled in this way, instead of an answer.
    pub embedding: Option<Pooling>,
    /// What the answer must look like.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Control tokens whose names are part of the answer's text, because they are markup that somebody reads.
    pub shown: Vec<u32>,
}

impl Request {
    /// Whether the prompt, and the first token of an answer where one is wanted, fit a context of `context` tokens.
    ///
    /// # Errors
    /// [`EngineError::Context`] with the prompt's length.
    pub fn fits(&self, context: usize) -> Result<(), EngineError> {
        let is_answered = self.embedding.is_none() && self.limits.max_tokens != Some(0);
        let needed = self.prompt.len();
        match needed + usize::from(is_answered) > context {
            true => Err(EngineError::Context { needed, context }),
            false => Ok(()),
        }
    }
}

/// What an answer may not exceed.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Most tokens; `None` until the model or the context ends it.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer; they are not part of its text.
    pub stop: Vec<String>,
    /// Goes on past end-of-text tokens, but for those that a constraint allows.
    pub ignore_end: bool,
}

/// A request's name in its scheduler; later requests have larger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its text or its turn.
    EndOfText,
    /// A stop string came up.
    StopString,
    /// The token limit.
    Length,
    /// The context is full.
    Context,
    /// Somebody cancelled the request.
    Interrupted,
}

/// What an answer took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    /// Prompt tokens that were computed.
    pub prompt_tokens: usize,
    /// Prompt tokens that were in the KV cache already.
    pub cached_tokens: usize,
    /// Time from the request to the end of its prompt.
    pub prefill: Duration,
    /// Tokens generated, the one that ended the text included.
    pub generated_tokens: usize,
    /// Time from the first generated token to the last.
    pub decode: Duration,
    /// Time from the request to the first generated token.
    pub first_token: Duration,
    /// Tokens that were guessed, to be verified.
    pub drafted: usize,
    /// Those of them that were right.
    pub accepted: usize,
    /// How often it had to give its pages to older requests, to be computed again.
    pub preemptions: usize,
}

impl Stats {
    /// Prompt tokens per second, 0 where none was computed.
    pub fn prefill_rate(&self) -> f64 {
        rate(self.prompt_tokens, self.prefill)
    }

    /// Generated tokens per second; the first one belongs to the prefill.
    pub fn decode_rate(&self) -> f64 {
        rate(self.generated_tokens.saturating_sub(1), self.decode)
    }
}

fn rate(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        tokens as f64 / time.as_secs_f64()
    }
}

/// A finished answer.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The text, without what ended it.
    pub text: String,
    /// The generated tokens.
    pub tokens: Vec<u32>,
    /// For each of them, where they were asked for.
    pub logprobs: Vec<Logprobs>,
    /// The vector that stands for the prompt, where one was asked for: the model's width, not normalized.
    pub embedding: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
    /// What it took.
    pub stats: Stats,
}
