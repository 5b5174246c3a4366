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
    /// The texts, each of which is continued.
    pub prompts: Vec<CompletionPrompt>,
    /// Whether texts begin with the token that begins texts, where the model has one.
    pub adds_special: bool,
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
        fields.refuse_elsewhere("/v1/completions", "prompt")?;
        let mut settings = Settings::take(&mut fields)?;
        let limit = take_max_tokens(&mut fields, &["max_tokens"])?;
        settings.has_default_limit = limit.is_none();
        settings.limits.max_tokens = usize::try_from(limit.unwrap_or(DEFAULT_MAX_TOKENS)).ok();
        settings.logprobs = take_logprobs(&mut fields)?;
        let prompts = take_prompts(&mut fields, "prompt")?;
        let adds_special = fields.take("add_special_tokens")?.unwrap_or(true);
        fields.finish()?;
        Ok(CompletionRequest {
            settings,
            prompts,
            adds_special,
        })
    }

    /// The tokens of each text.
    ///
    /// # Errors
    /// A text that the tokenizer does not take or that has no tokens.
    pub(super) fn tokens(&self, tokenizer: &Tokenizer) -> Result<Vec<Vec<u32>>, ApiError> {
        let options = EncodeOptions {
            add_special: self.adds_special,
            parse_special: true,
        };
        let tokens = self.prompts.iter().map(|prompt| {
            let tokens = match prompt {
                CompletionPrompt::Text(text) => tokenizer.encode(text, options)?,
                CompletionPrompt::Tokens(tokens) => tokens.clone(),
            };
            match tokens.is_empty() {
                true => Err(ApiError::field("prompt", "a text of prompt has no tokens")),
                false => Ok(tokens),
            }
        });
        tokens.collect()
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

/// Takes the field `name`: a text, a list of tokens, or a list of these.
pub(super) fn take_prompts(
    fields: &mut Fields,
    name: &str,
) -> Result<Vec<CompletionPrompt>, ApiError> {
    let expected = "a string, a list of token ids, or a list of these";
    let prompt = fields.take::<Value>(name)?;
    match prompt {
        Some(Value::String(text)) => Ok(vec![CompletionPrompt::Text(text)]),
        Some(Value::Array(items)) if items.iter().any(|item| !item.is_number()) => {
            let items = items.into_iter().enumerate();
            let prompts = items.map(|(index, item)| match item {
                Value::String(text) => Ok(CompletionPrompt::Text(text)),
                Value::Array(tokens) => read_tokens(&format!("{name}[{index}]"), tokens),
                other => Err(wrong(
                    &format!("{name}[{index}]"),
                    &other,
                    "a string or a list of token ids, as its other items",
                )),
            });
            prompts.collect()
        }
        Some(Value::Array(tokens)) => Ok(vec![read_tokens(name, tokens)?]),
        Some(other) => Err(fields.wrong(name, &other, expected)),
        None => Err(ApiError::field(name, format!("{name} is missing"))),
    }
}

fn read_tokens(name: &str, items: Vec<Value>) -> Result<CompletionPrompt, ApiError> {
    let tokens = items.into_iter().enumerate().map(|(index, item)| {
        let place = format!("{name}[{index}]");
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

    fn prompts(prompt: Value) -> Result<Vec<CompletionPrompt>, ApiError> {
        CompletionRequest::from_body(json!({ "prompt": prompt })).map(|request| request.prompts)
    }

    #[test]
    fn a_prompt_is_a_text_or_tokens_or_several() {
        let text = CompletionPrompt::Text("a".to_owned());
        let tokens = CompletionPrompt::Tokens(vec![1, 2]);
        assert_eq!(prompts(json!("a")), Ok(vec![text.clone()]));
        assert_eq!(prompts(json!(["a"])), Ok(vec![text.clone()]));
        assert_eq!(prompts(json!([1, 2])), Ok(vec![tokens.clone()]));
        assert_eq!(prompts(json!([[1, 2]])), Ok(vec![tokens.clone()]));
        assert_eq!(
            prompts(json!(["a", [1, 2], "a"])),
            Ok(vec![text.clone(), tokens, text])
        );
        for wrong in [
            json!(null),
            json!(1),
            json!({}),
            json!([1, "a"]),
            json!([["a"]]),
            json!([-1]),
            json!([4_294_967_296_u64]),
            json!([1.5]),
        ] {
            let error = prompts(wrong.clone()).expect_err("wrong");
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
