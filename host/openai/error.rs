//! Errors as OpenAI's clients expect them.

use serde::Serialize;
use serde_json::{Value, json};

use crate::backend::{BackendError, RowError};
use crate::chat::ChatError;
use crate::engine::EngineError;
use crate::sampling::SamplingError;
use crate::tokenizer::TokenizerError;

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request's: sent again it fails again.
    InvalidRequestError,
    /// The request's: it has no key, or a wrong one.
    AuthenticationError,
    /// The request's: it comes from where none is accepted.
    PermissionError,
    /// Nobody's: the server has no room for it now.
    ServiceUnavailableError,
    /// The model's or the machine's.
    ServerError,
}

/// An error of one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    #[serde(skip)]
    pub status: u16,
    /// What is wrong, and what was expected.
    pub message: String,
    /// Whose fault it is.
    #[serde(rename = "type")]
    pub kind: ErrorKind,
    /// The field that it is about.
    pub param: Option<String>,
    /// A word for programs.
    pub code: Option<&'static str>,
    /// Tokens of a prompt that does not fit (llama.cpp's name).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_prompt_tokens: Option<usize>,
    /// Tokens that fit (llama.cpp's name).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_ctx: Option<usize>,
}

impl ApiError {
    /// A request that is wrong.
    pub fn invalid(message: impl Into<String>) -> ApiError {
        ApiError {
            status: 400,
            message: message.into(),
            kind: ErrorKind::InvalidRequestError,
            param: None,
            code: None,
            n_prompt_tokens: None,
            n_ctx: None,
        }
    }

    /// A request whose field `name` is wrong.
    pub fn field(name: &str, message: impl Into<String>) -> ApiError {
        ApiError {
            param: Some(name.to_owned()),
            ..ApiError::invalid(message)
        }
    }

    /// Something that failed on this side.
    pub fn server(message: impl Into<String>) -> ApiError {
        ApiError {
            status: 500,
            kind: ErrorKind::ServerError,
            ..ApiError::invalid(message)
        }
    }

    /// A request that may be sent again a little later.
    pub fn unavailable(message: impl Into<String>) -> ApiError {
        ApiError {
            status: 503,
            kind: ErrorKind::ServiceUnavailableError,
            ..ApiError::invalid(message)
        }
    }

    /// A request that is wrong in a way that has a status of its own.
    pub fn with_status(status: u16, message: impl Into<String>) -> ApiError {
        ApiError {
            status,
            ..ApiError::invalid(message)
        }
    }

    /// The body of a response with this error.
    pub fn body(&self) -> Value {
        json!({ "error": self })
    }
}

impl From<SamplingError> for ApiError {
    fn from(error: SamplingError) -> ApiError {
        let SamplingError::Parameter { name, .. } = error;
        ApiError::field(name, error.to_string())
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> ApiError {
        let message = error.to_string();
        match error {
            EngineError::Context { needed, context } => ApiError {
                code: Some("context_length_exceeded"),
                n_prompt_tokens: Some(needed),
                n_ctx: Some(context),
                ..ApiError::invalid(message)
            },
            EngineError::EmptyPrompt => ApiError::invalid(message),
            EngineError::Sampling(error) => error.into(),
            EngineError::Logprobs => ApiError::field("logprobs", message),
            EngineError::Row(RowError::NothingAllowed { .. }) => {
                ApiError::field("logit_bias", message)
            }
            EngineError::Backend(BackendError::Token { .. }) => ApiError::field("prompt", message),
            EngineError::Constraint(_) => ApiError::invalid(message),
            EngineError::CacheFull { .. }
            | EngineError::Interrupted
            | EngineError::Row(RowError::NotFinite(_))
            | EngineError::Backend(_)
            | EngineError::Step(_) => ApiError::server(message),
        }
    }
}

impl From<ChatError> for ApiError {
    fn from(error: ChatError) -> ApiError {
        let message = error.to_string();
        match error {
            ChatError::Refused(_)
            | ChatError::Render(_)
            | ChatError::MessageLost
            | ChatError::Tokenizer(_) => ApiError::field("messages", message),
            ChatError::Template(_) | ChatError::Gguf(_) => ApiError::server(message),
        }
    }
}

impl From<TokenizerError> for ApiError {
    fn from(error: TokenizerError) -> ApiError {
        ApiError::field("prompt", error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_told_in_numbers() {
        let error = ApiError::from(EngineError::Context {
            needed: 10,
            context: 5,
        });
        assert_eq!(error.status, 400);
        assert_eq!(
            error.body(),
            json!({"error": {
                "message": "10 tokens do not fit the context of 5",
                "type": "invalid_request_error",
                "param": null,
                "code": "context_length_exceeded",
                "n_prompt_tokens": 10,
                "n_ctx": 5,
            }})
        );
    }

    #[test]
    fn a_failing_model_is_no_fault_of_the_request() {
        let error = ApiError::from(EngineError::Interrupted);
        assert_eq!((error.status, error.kind), (500, ErrorKind::ServerError));
    }
}
