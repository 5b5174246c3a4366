//! Requests that generate nothing: for the tokens of a text or a conversation, for the text of tokens, and for a
//! conversation as the model reads it. In the forms of llama.cpp and vLLM.

use serde_json::{Value, json};

use super::{ApiError, ChatRequest, Field, Fields};
use crate::chat::ChatTemplate;
use crate::tokenizer::{EncodeOptions, Prompt, Tokenizer};

/// A request for a conversation as the model reads it.
#[derive(Debug, Clone)]
pub struct TemplateRequest {
    /// The conversation.
    pub chat: ChatRequest,
    /// Whether what opens an answer is at its end.
    pub is_answered: bool,
}

impl TemplateRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// Whatever in it is wrong or not supported, by the field's name.
    pub fn from_body(body: Value) -> Result<TemplateRequest, ApiError> {
        TemplateRequest::take(Fields::new(body, "the body", String::new())?)
    }

    fn take(mut fields: Fields) -> Result<TemplateRequest, ApiError> {
        let is_answered = fields.take("add_generation_prompt")?.unwrap_or(true);
        Ok(TemplateRequest {
            chat: ChatRequest::from_body(Value::Object(fields.rest()))?,
            is_answered,
        })
    }

    /// The conversation's text.
    ///
    /// # Errors
    /// The template refuses the conversation or has no form for calls that is known.
    pub fn prompt(&self, template: &ChatTemplate) -> Result<Prompt, ApiError> {
        self.chat.layout(template, self.is_answered)
    }
}

/// A request for tokens.
#[derive(Debug, Clone)]
pub struct TokenizeRequest {
    /// Of what.
    pub subject: Subject,
    /// Whether each token's text is told, in llama.cpp's form.
    pub with_pieces: bool,
    /// The same in vLLM's.
    pub with_strings: bool,
}

/// What has tokens.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // one at a time, and not for long
pub enum Subject {
    /// A text.
    Text(String, EncodeOptions),
    /// A conversation.
    Conversation(TemplateRequest),
}

impl TokenizeRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// Whatever in it is wrong or not supported, by the field's name.
    pub fn from_body(body: Value) -> Result<TokenizeRequest, ApiError> {
        let messages = body.get("messages");
        let has_messages = messages.is_some_and(|messages| !messages.is_null());
        let mut fields = Fields::new(body, "the body", String::new())?;
        Ok(TokenizeRequest {
            with_pieces: fields.take("with_pieces")?.unwrap_or(false),
            with_strings: fields.take("return_token_strs")?.unwrap_or(false),
            subject: match has_messages {
                true => Subject::Conversation(TemplateRequest::take(fields)?),
                false => take_text(fields)?,
            },
        })
    }

    /// The tokens; `template` is asked for where a conversation needs it.
    ///
    /// # Errors
    /// A text that the tokenizer does not take, or a conversation that the template refuses.
    pub fn tokens<'a>(
        &self,
        tokenizer: &Tokenizer,
        template: impl FnOnce() -> Result<&'a ChatTemplate, ApiError>,
    ) -> Result<Vec<u32>, ApiError> {
        match &self.subject {
            Subject::Text(text, options) => tokenizer
                .encode(text, *options)
                .map_err(|error| ApiError::field("content", error.to_string())),
            Subject::Conversation(request) => {
                let prompt = request.prompt(template()?)?;
                tokenizer
                    .encode_prompt(&prompt)
                    .map_err(|error| ApiError::field("messages", error.to_string()))
            }
        }
    }

    /// The response, for a model whose sequences have up to `context` tokens.
    pub fn response(&self, tokens: &[u32], tokenizer: &Tokenizer, context: usize) -> Value {
        let text_of = |token: &u32| tokenizer.token_text(*token);
        let piece = |token: &u32| json!({"id": token, "piece": text_of(token)});
        let listed = match self.with_pieces {
            true => tokens.iter().map(piece).collect(),
            false => json!(tokens),
        };
        let strings = || tokens.iter().map(text_of).collect::<Vec<_>>();
        json!({
            "tokens": listed,
            "count": tokens.len(),
            "max_model_len": context,
            "token_strs": self.with_strings.then(strings),
        })
    }
}

fn take_text(mut fields: Fields) -> Result<Subject, ApiError> {
    fields.take::<String>("model")?;
    let text = fields.take_any::<String>(&["content", "prompt"])?;
    let text =
        text.ok_or_else(|| ApiError::field("content", "content, prompt or messages is missing"))?;
    let add_special = fields.take_any(&["add_special", "add_special_tokens"])?;
    let options = EncodeOptions {
        add_special: add_special.unwrap_or(false),
        parse_special: fields.take("parse_special")?.unwrap_or(true),
    };
    fields.finish()?;
    Ok(Subject::Text(text, options))
}

/// A request for the text of tokens.
#[derive(Debug, Clone)]
pub struct DetokenizeRequest {
    tokens: Vec<Value>,
}

impl DetokenizeRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// Whatever in it is wrong or not supported, by the field's name.
    pub fn from_body(body: Value) -> Result<DetokenizeRequest, ApiError> {
        let mut fields = Fields::new(body, "the body", String::new())?;
        fields.take::<String>("model")?;
        let tokens = fields.require("tokens")?;
        fields.finish()?;
        Ok(DetokenizeRequest { tokens })
    }

    /// The text of the tokens.
    ///
    /// # Errors
    /// A token that there is not.
    pub fn text(&self, tokenizer: &Tokenizer) -> Result<String, ApiError> {
        let vocab = tokenizer.vocab_size();
        let ids = self.tokens.iter().enumerate().map(|(index, token)| {
            let id = i128::of(token.clone()).ok();
            let id = id.and_then(|id| u32::try_from(id).ok());
            id.filter(|&id| (id as usize) < vocab).ok_or_else(|| {
                let name = format!("tokens[{index}]");
                let message = format!("{name} is no token's id; expected one below {vocab}");
                ApiError::field(&name, message)
            })
        });
        Ok(tokenizer.decode(&ids.collect::<Result<Vec<u32>, ApiError>>()?))
    }
}
