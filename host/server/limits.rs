//! Whether a request is within the server's limits.

use super::Limits;
use super::engine_thread::EngineHandle;
use crate::engine::EngineError;
use crate::openai::{ApiError, Settings};

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

    /// Limits the answer of a request that asks for no limit.
    ///
    /// # Errors
    /// It asks for a longer answer.
    pub fn limit_answer(&self, settings: &mut Settings) -> Result<(), ApiError> {
        let limits = &mut settings.limits;
        match (self.answer_tokens, limits.max_tokens) {
            (Some(most), Some(default)) if settings.has_default_limit => {
                limits.max_tokens = Some(most.min(default));
                Ok(())
            }
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
