//! What a scheduler tells of its requests.

use super::{EngineError, Generation, RequestId};
use crate::backend::Logprobs;

/// What happened to a request.
#[derive(Debug)]
pub enum Event {
    /// So many of its prompt's tokens are computed.
    Prompt {
        /// The request.
        id: RequestId,
        /// Tokens computed.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token was chosen.
    Token {
        /// The request.
        id: RequestId,
        /// The token.
        token: u32,
        /// The text that is certain with it: whole characters, perhaps none.
        text: String,
        /// Where they were asked for.
        logprobs: Option<Logprobs>,
    },
    /// The answer is complete.
    Finished {
        /// The request.
        id: RequestId,
        /// Text that was held back, because it could have begun a stop string.
        text: String,
        /// The whole answer.
        generation: Generation,
    },
    /// The request ended without an answer; no other one is concerned.
    Failed {
        /// The request.
        id: RequestId,
        /// Why.
        error: EngineError,
    },
}
