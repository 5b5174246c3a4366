//! Whether a request is within the server's limits.

use super::Limits;
use super::engine_thread::EngineHandle;
use crate::engine::{self, EngineError};
use crate::openai::ApiError;

impl Limits {
    /// Whether a prompt of `tokens` tokens may be computed.
    ///
    /// # Errors
    /// It is longer than the context or the limit.
    pub fn check_prompt(&self, tokens: usize, engine: &EngineHandle) -> Result<(), ApiError> {
        let context = engine
            .context()
            .min(self.prompt_tokens.unwrap_or(usize::MAX));
        match tokens > context {
            true => Err(EngineError::Context {
                needed: tokens,
                context,
            }
            .into()),
            false => Ok(()),
        }
    }

    /// Limits the answer of one that asks for no limit.
    ///
    /// # Errors
    /// It asks for a longer one.
    pub fn limit_answer(&self, limits: &mut engine::Limits) -> Result<(), ApiError> {
        match (self.answer_tokens, limits.max_tokens) {
            (Some(most), Some(asked)) if asked > most => {
                let message = format!("max_tokens is {asked}; expected at most {most}");
                Err(ApiError::field("max_tokens", message))
            }
            (Some(most), None) => {
                limits.max_tokens = Some(most);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
