//! Requests for vectors that stand for texts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::ApiError;
use super::completion::{CompletionPrompt, take_prompts};
use super::fields::Fields;
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// Texts of a request, as many as OpenAI's API takes.
const MAX_INPUTS: usize = 2048;

/// A request for the vectors of texts.
#[derive(Debug, Clone)]
pub struct EmbeddingRequest {
    /// The texts.
    pub inputs: Vec<CompletionPrompt>,
    /// The form of the vectors.
    pub format: EmbeddingFormat,
    /// How many numbers a vector should have.
    pub dimensions: Option<usize>,
}

/// The form of a vector in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbeddingFormat {
    /// A list of numbers.
    Float,
    /// The bytes of its numbers, little-endian `f32`, in base64.
    Base64,
}

impl EmbeddingRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// Whatever in it is wrong or not supported, by the field's name.
    pub fn from_body(body: Value) -> Result<EmbeddingRequest, ApiError> {
        let mut fields = Fields::new(body, "the body", String::new())?;
        fields.refuse_elsewhere("/v1/embeddings", "input")?;
        // The one model answers.
        fields.take::<String>("model")?;
        let inputs = take_prompts(&mut fields, "input")?;
        if inputs.is_empty() || inputs.len() > MAX_INPUTS {
            let message = format!(
                "input has {} texts; expected from 1 to {MAX_INPUTS}",
                inputs.len()
            );
            return Err(ApiError::field("input", message));
        }
        let format = match fields.take::<String>("encoding_format")?.as_deref() {
            None | Some("float") => EmbeddingFormat::Float,
            Some("base64") => EmbeddingFormat::Base64,
            Some(other) => {
                let expected = "\"float\" or \"base64\"";
                return Err(fields.wrong("encoding_format", &other.into(), expected));
            }
        };
        let all = 1..=i128::from(u32::MAX);
        let dimensions = fields.take_within("dimensions", all, "a whole number from 1")?;
        fields.finish()?;
        Ok(EmbeddingRequest {
            inputs,
            format,
            dimensions: dimensions.and_then(|n| usize::try_from(n).ok()),
        })
    }

    /// The tokens of each text. No text is taken for a control token.
    ///
    /// # Errors
    /// A text that the tokenizer does not take or that has no tokens, and a token that there is not.
    pub fn tokens(&self, tokenizer: &Tokenizer) -> Result<Vec<Vec<u32>>, ApiError> {
        let options = EncodeOptions {
            add_special: true,
            parse_special: false,
        };
        let vocab = tokenizer.vocab_size();
        let tokens = self.inputs.iter().map(|input| {
            let tokens = match input {
                CompletionPrompt::Text(text) => tokenizer
                    .encode(text, options)
                    .map_err(|error| ApiError::field("input", error.to_string()))?,
                CompletionPrompt::Tokens(tokens) => tokens.clone(),
            };
            let unknown = tokens.iter().find(|&&token| token as usize >= vocab);
            match (tokens.is_empty(), unknown) {
                (true, _) => Err(ApiError::field("input", "a text of input has no tokens")),
                (_, Some(token)) => {
                    let message = format!("token {token} is outside the vocabulary of {vocab}");
                    Err(ApiError::field("input", message))
                }
                _ => Ok(tokens),
            }
        });
        tokens.collect()
    }
}

/// The response with `vectors`, of `model`, to texts with `prompt_tokens` tokens in all.
pub fn embedding_response(
    vectors: &[Vec<f32>],
    format: EmbeddingFormat,
    model: &str,
    prompt_tokens: usize,
) -> Value {
    let data = vectors.iter().enumerate().map(|(index, vector)| {
        let embedding = match format {
            EmbeddingFormat::Float => json!(vector),
            EmbeddingFormat::Base64 => {
                let bytes = vector.iter().flat_map(|value| value.to_le_bytes());
                json!(STANDARD.encode(bytes.collect::<Vec<u8>>()))
            }
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    });
    json!({
        "object": "list",
        "data": data.collect::<Vec<_>>(),
        "model": model,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_in_four_forms_and_what_is_wrong_is_named() {
        let read = |body: Value| EmbeddingRequest::from_body(body);
        for (input, n) in [
            (json!("a"), 1),
            (json!(["a", "b"]), 2),
            (json!([1, 2]), 1),
            (json!([[1], [2]]), 2),
        ] {
            assert_eq!(
                read(json!({ "input": input }))
                    .expect("inputs")
                    .inputs
                    .len(),
                n
            );
        }
        for (body, param) in [
            (json!({}), "input"),
            (json!({"input": vec!["a"; 2049]}), "input"),
            (json!({"input": 5}), "input"),
            (
                json!({"input": "a", "encoding_format": "int8"}),
                "encoding_format",
            ),
            (json!({"input": "a", "dimensions": 0}), "dimensions"),
            (
                json!({"input": "a", "late_chunking": true}),
                "late_chunking",
            ),
        ] {
            let error = read(body).expect_err(param);
            assert_eq!(error.param.as_deref(), Some(param));
        }
    }

    #[test]
    fn base64_has_the_bytes_of_the_numbers() {
        let response = embedding_response(&[vec![1.0, -2.5]], EmbeddingFormat::Base64, "m", 3);
        let text = response["data"][0]["embedding"].as_str().expect("a text");
        let bytes = STANDARD.decode(text).expect("base64");
        assert_eq!(bytes, [0, 0, 128, 63, 0, 0, 32, 192]);
    }
}
