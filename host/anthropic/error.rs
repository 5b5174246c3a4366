//! Errors as Anthropic's clients expect them.

use serde_json::{Value, json};

use crate::openai::ApiError;

/// The body of a response with `error`, and the data of a stream's error event.
pub fn error_body(error: &ApiError) -> Value {
    let kind = match error.status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    let message = match (error.n_prompt_tokens, error.n_ctx) {
        // By these words coding agents know that the conversation must be made shorter.
        (Some(needed), Some(context)) => {
            format!("prompt is too long: {needed} tokens > {context} maximum")
        }
        _ => error.message.clone(),
    };
    json!({"type": "error", "error": {"type": kind, "message": message}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineError;

    #[test]
    fn kinds_follow_from_the_status() {
        let kind = |status| {
            let error = ApiError {
                status,
                ..ApiError::invalid("no")
            };
            let body = error_body(&error);
            assert_eq!(body["type"], "error");
            assert_eq!(body["error"]["message"], "no");
            body["error"]["type"].as_str().map(str::to_owned)
        };
        for (status, expected) in [
            (400, "invalid_request_error"),
            (401, "authentication_error"),
            (415, "invalid_request_error"),
            (500, "api_error"),
            (502, "api_error"),
            (503, "overloaded_error"),
        ] {
            assert_eq!(kind(status).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_prompt_that_is_too_long_is_told_in_anthropic_s_words() {
        let error = ApiError::from(EngineError::Context {
            needed: 10,
            context: 5,
        });
        let message = "prompt is too long: 10 tokens > 5 maximum";
        assert_eq!(error_body(&error)["error"]["message"], message);
    }
}
