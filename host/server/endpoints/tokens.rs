//! `/tokenize`, `/detokenize` and `/apply-template`, in the forms of llama.cpp and vLLM.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request as HttpRequest, State};
use serde_json::{Map, Value, json};

use crate::openai::{ApiError, ChatRequest, Fields};
use crate::server::body::{blocking, read_json};
use crate::server::state::{Served, ServerState};
use crate::tokenizer::EncodeOptions;

/// The tokens of a text (`content` or `prompt`) or of a conversation (`messages`).
pub async fn tokenize(
    State(state): State<Arc<ServerState>>,
    request: HttpRequest,
) -> Result<Json<Value>, ApiError> {
    let served = state.served()?.clone();
    let body = read_json(request, &state.config.limits).await?;
    let tokens = blocking(move || tokens_of(body, &served)).await?;
    Ok(Json(tokens))
}

/// The text of `tokens`.
pub async fn detokenize(
    State(state): State<Arc<ServerState>>,
    request: HttpRequest,
) -> Result<Json<Value>, ApiError> {
    let served = state.served()?.clone();
    let body = read_json(request, &state.config.limits).await?;
    let mut fields = Fields::new(body, "the body", String::new())?;
    fields.take::<String>("model")?;
    let tokens = fields.take::<Vec<Value>>("tokens")?;
    let tokens = tokens.ok_or_else(|| ApiError::field("tokens", "tokens is missing"))?;
    fields.finish()?;
    let vocab = served.tokenizer.vocab_size();
    let ids = tokens.iter().enumerate().map(|(index, token)| {
        let id = token.as_u64().and_then(|id| u32::try_from(id).ok());
        id.filter(|&id| (id as usize) < vocab).ok_or_else(|| {
            let name = format!("tokens[{index}]");
            let message = format!("{name} is no token's id; expected one below {vocab}");
            ApiError::field(&name, message)
        })
    });
    let ids: Vec<u32> = ids.collect::<Result<_, ApiError>>()?;
    let text = served.tokenizer.decode(&ids);
    // The first is llama.cpp's name, the second vLLM's.
    Ok(Json(json!({"content": text, "prompt": text})))
}

/// The text of a conversation, as the model reads it.
pub async fn apply_template(
    State(state): State<Arc<ServerState>>,
    request: HttpRequest,
) -> Result<Json<Value>, ApiError> {
    let served = state.served()?.clone();
    let body = read_json(request, &state.config.limits).await?;
    let prompt = blocking(move || {
        let (body, generates) = without_generation_prompt(body)?;
        let request = ChatRequest::from_body(body)?;
        Ok(request.layout(served.template()?, generates)?.text)
    })
    .await?;
    Ok(Json(json!({ "prompt": prompt })))
}

fn tokens_of(body: Value, served: &Served) -> Result<Value, ApiError> {
    let tokenizer = &served.tokenizer;
    let has_messages = body
        .get("messages")
        .is_some_and(|messages| !messages.is_null());
    let (tokens, pieces) = match has_messages {
        true => {
            let mut fields = Fields::new(body, "the body", String::new())?;
            let pieces = Pieces::take(&mut fields)?;
            let (body, generates) = without_generation_prompt(Value::Object(fields.rest()))?;
            let request = ChatRequest::from_body(body)?;
            let prompt = request.layout(served.template()?, generates)?;
            let tokens = tokenizer
                .encode_prompt(&prompt)
                .map_err(|error| ApiError::field("messages", error.to_string()))?;
            (tokens, pieces)
        }
        false => {
            let mut fields = Fields::new(body, "the body", String::new())?;
            fields.take::<String>("model")?;
            let pieces = Pieces::take(&mut fields)?;
            let text = fields.take_any::<String>(&["content", "prompt"])?;
            let text = text.ok_or_else(|| {
                ApiError::field("content", "content, prompt or messages is missing")
            })?;
            let vllm = fields.take::<bool>("add_special_tokens")?;
            let options = EncodeOptions {
                add_special: fields.take("add_special")?.or(vllm).unwrap_or(false),
                parse_special: fields.take("parse_special")?.unwrap_or(true),
            };
            fields.finish()?;
            (tokenizer.encode(&text, options)?, pieces)
        }
    };
    let text_of = |token: &u32| tokenizer.token_text(*token);
    let listed = match pieces.with_pieces {
        true => tokens
            .iter()
            .map(|token| json!({"id": token, "piece": text_of(token)})),
        false => return Ok(pieces.response(json!(tokens), &tokens, text_of, served)),
    };
    let listed = listed.collect::<Vec<_>>();
    Ok(pieces.response(json!(listed), &tokens, text_of, served))
}

/// Whether the texts of tokens are told, too.
struct Pieces {
    /// In llama.cpp's form.
    with_pieces: bool,
    /// In vLLM's.
    with_strings: bool,
}

impl Pieces {
    fn take(fields: &mut Fields) -> Result<Pieces, ApiError> {
        Ok(Pieces {
            with_pieces: fields.take("with_pieces")?.unwrap_or(false),
            with_strings: fields.take("return_token_strs")?.unwrap_or(false),
        })
    }

    fn response(
        &self,
        listed: Value,
        tokens: &[u32],
        text_of: impl Fn(&u32) -> String,
        served: &Served,
    ) -> Value {
        let strings = || tokens.iter().map(text_of).collect::<Vec<_>>();
        json!({
            "tokens": listed,
            "count": tokens.len(),
            "max_model_len": served.engine.context(),
            "token_strs": self.with_strings.then(strings),
        })
    }
}

/// Takes `add_generation_prompt`, which is true by default, out of the body of a conversation.
fn without_generation_prompt(body: Value) -> Result<(Value, bool), ApiError> {
    let mut fields = Fields::new(body, "the body", String::new())?;
    let generates = fields.take("add_generation_prompt")?.unwrap_or(true);
    let rest: Map<String, Value> = fields.rest();
    Ok((Value::Object(rest), generates))
}
