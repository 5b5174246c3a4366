//! Requests for the continuation of a text.

use serde_json::Value;

use super::fields::{Field, Fields, wrong};
use super::settings::{take_max_tokens, take_top_logprobs};
use super::{ApiError, Settings};
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// Tokens of an answer where the request does not say: OpenAI's default.
const DEFAULT_MAX_TOKENS: i128 = 16;

/// A request for the continuation of a text.
#[derive(Debug, Clone)]
pub struct CompletionRequest {
    /// How the answer is made.
    pub settings: Settings,
    /// The text.
    pub prompt: CompletionPrompt,
}

/// A text to be continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompletionPrompt {
    /// As it is, with control tokens.
    Text(String),
    /// Its tokens.
    Tokens(Vec<u32>),
}

impl CompletionRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// Whatever in it is wrong or not supported, by the field's name.
    pub fn from_body(body: Value) -> Result<CompletionRequest, ApiError> {
        let mut fields = Fields::new(body, "the body", String::new())?;
        let mut settings = Settings::take(&mut fields)?;
        let limit = take_max_tokens(&mut fields, &["max_tokens"])?.unwrap_or(DEFAULT_MAX_TOKENS);
        settings.limits.max_tokens = usize::try_from(limit).ok();
        settings.logprobs = take_logprobs(&mut fields)?;
        let prompt = take_prompt(&mut fields)?;
        fields.finish()?;
        Ok(CompletionRequest { settings, prompt })
    }

    /// The tokens of the text.
    pub(super) fn tokens(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>, ApiError> {
        let options = EncodeOptions {
            add_special: true,
            parse_special: true,
        };
        match &self.prompt {
            CompletionPrompt::Text(text) => Ok(tokenizer.encode(text, options)?),
            CompletionPrompt::Tokens(tokens) => Ok(tokens.clone()),
        }
    }
}

/// `logprobs` is how many of the likeliest tokens are told beside the chosen one; false is none.
fn take_logprobs(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    match fields.take::<Value>("logprobs")? {
        None | Some(Value::Bool(false)) => Ok(None),
        Some(number) => {
            let mut one = Fields::new(
                Value::Object([("logprobs".to_owned(), number)].into_iter().collect()),
                "logprobs",
                String::new(),
            )?;
            take_top_logprobs(&mut one, "logprobs")
        }
    }
}

/// A text or a list of tokens; of lists of these, one of a single item.
fn take_prompt(fields: &mut Fields) -> Result<CompletionPrompt, ApiError> {
    const EXPECTED: &str = "a string, or a list of token ids";
    let prompt = fields.take::<Value>("prompt")?;
    let prompt = prompt.ok_or_else(|| ApiError::field("prompt", "prompt is missing"))?;
    match prompt {
        Value::String(text) => Ok(CompletionPrompt::Text(text)),
        Value::Array(mut items) => match (items.len(), items.first()) {
            (1, Some(Value::String(_) | Value::Array(_))) => match items.remove(0) {
                Value::String(text) => Ok(CompletionPrompt::Text(text)),
                Value::Array(tokens) => read_tokens(tokens),
                other => Err(fields.wrong("prompt", &other, EXPECTED)),
            },
            (n, Some(Value::String(_) | Value::Array(_))) => {
                let message = format!("prompt is a list of {n} texts; expected one a request");
                Err(ApiError::field("prompt", message))
            }
            _ => read_tokens(items),
        },
        other => Err(fields.wrong("prompt", &other, EXPECTED)),
    }
}

fn read_tokens(items: Vec<Value>) -> Result<CompletionPrompt, ApiError> {
    let tokens = items.into_iter().enumerate().map(|(index, item)| {
        let place = format!("prompt[{index}]");
        let number = i128::of(item.clone()).unwrap_or(-1);
        u32::try_from(number).map_err(|_| wrong(&place, &item, "a token's id"))
    });
    let tokens = tokens.collect::<Result<_, ApiError>>()?;
    Ok(CompletionPrompt::Tokens(tokens))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn prompt(prompt: Value) -> Result<CompletionPrompt, ApiError> {
        CompletionRequest::from_body(json!({ "prompt": prompt })).map(|request| request.prompt)
    }

    #[test]
    fn a_prompt_is_a_text_or_tokens() {
        let text = CompletionPrompt::Text("a".to_owned());
        let tokens = CompletionPrompt::Tokens(vec![1, 2]);
        assert_eq!(prompt(json!("a")), Ok(text.clone()));
        assert_eq!(prompt(json!(["a"])), Ok(text));
        assert_eq!(prompt(json!([1, 2])), Ok(tokens.clone()));
        assert_eq!(prompt(json!([[1, 2]])), Ok(tokens));
        for wrong in [
            json!(null),
            json!(1),
            json!({}),
            json!(["a", "b"]),
            json!([[1], [2]]),
            json!([1, "a"]),
            json!([-1]),
            json!([4_294_967_296_u64]),
            json!([1.5]),
        ] {
            let error = prompt(wrong.clone()).expect_err("wrong");
            assert!(error.message.contains("prompt"), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_limit_and_the_number_of_logprobs_are_numbers() {
        let read = |name: &str, value: Value| {
            let body = json!({"prompt": "a", name: value});
            CompletionRequest::from_body(body).map(|request| request.settings)
        };
        let max_tokens = |value| read("max_tokens", value).map(|read| read.limits.max_tokens);
        assert_eq!(max_tokens(json!(null)), Ok(Some(16)));
        assert_eq!(max_tokens(json!(0)), Ok(Some(0)));
        assert_eq!(max_tokens(json!(-1)), Ok(None));
        assert!(max_tokens(json!(-2)).is_err());
        let logprobs = |value| read("logprobs", value).map(|read| read.logprobs);
        assert_eq!(logprobs(json!(false)), Ok(None));
        assert_eq!(logprobs(json!(0)), Ok(Some(0)));
        assert_eq!(logprobs(json!(20)), Ok(Some(20)));
        for wrong in [json!(21), json!(true), json!("1")] {
            assert!(logprobs(wrong).is_err());
        }
    }
}
