//! OpenAI's API without a server: what requests may say, what becomes of them in the engine, and responses.
//!
//! Nothing in a request is left out silently: a field is obeyed, or it is refused by its name, unless its value asks
//! for nothing ([`neutral`]). Fields besides OpenAI's have the names of llama.cpp and vLLM.

mod chat;
mod completion;
mod error;
mod fields;
mod logprobs;
mod message;
pub mod neutral;
mod response;
mod settings;

use serde_json::Value;

pub use chat::ChatRequest;
pub use completion::{CompletionPrompt, CompletionRequest};
pub use error::{ApiError, ErrorKind};
pub use fields::{Field, Fields};
pub use logprobs::{ChatLogprobs, CompletionLogprobs, TokenLogprob, TopLogprob};
pub use response::{Answer, ChatResponse, CompletionResponse, Response, Usage};
pub use settings::{MAX_STOP_STRINGS, Settings};

use crate::chat::ChatTemplate;
use crate::engine;
use crate::tokenizer::Tokenizer;

/// Where a request is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Conversations.
    ChatCompletions,
    /// Texts.
    Completions,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Endpoint; 2] = [Endpoint::ChatCompletions, Endpoint::Completions];

    /// Its path below a server's address.
    pub fn path(self) -> &'static str {
        match self {
            Endpoint::ChatCompletions => "/v1/chat/completions",
            Endpoint::Completions => "/v1/completions",
        }
    }

    /// The one that `body` is meant for: only conversations have messages, and only texts a prompt.
    pub fn of_body(body: &Value) -> Option<Endpoint> {
        let has = |name: &str| body.get(name).is_some_and(|value| !value.is_null());
        match (has("messages"), has("prompt")) {
            (true, false) => Some(Endpoint::ChatCompletions),
            (false, true) => Some(Endpoint::Completions),
            _ => None,
        }
    }
}

/// A request that has been read.
#[derive(Debug, Clone)]
pub enum Request {
    /// A conversation to be answered.
    Chat(ChatRequest),
    /// A text to be continued.
    Completion(CompletionRequest),
}

impl Request {
    /// Reads the body of a request to `endpoint`.
    ///
    /// # Errors
    /// Whatever in it is wrong or not supported, by the field's name.
    pub fn from_body(endpoint: Endpoint, body: Value) -> Result<Request, ApiError> {
        Ok(match endpoint {
            Endpoint::ChatCompletions => Request::Chat(ChatRequest::from_body(body)?),
            Endpoint::Completions => Request::Completion(CompletionRequest::from_body(body)?),
        })
    }

    /// What requests of both kinds say.
    pub fn settings(&self) -> &Settings {
        match self {
            Request::Chat(request) => &request.settings,
            Request::Completion(request) => &request.settings,
        }
    }

    /// The same for the engine. `seed` is for a request that names none; a conversation is laid out by `template`.
    ///
    /// # Errors
    /// There is no template, it refuses the conversation, or the text has no tokens.
    pub fn to_engine(
        &self,
        tokenizer: &Tokenizer,
        template: Option<&ChatTemplate>,
        seed: u64,
    ) -> Result<engine::Request, ApiError> {
        let prompt = match self {
            Request::Chat(request) => {
                let template = template
                    .ok_or_else(|| ApiError::field("messages", "the model has no chat template"))?;
                request.tokens(tokenizer, template)?
            }
            Request::Completion(request) => request.tokens(tokenizer)?,
        };
        Ok(self.settings().request(prompt, seed))
    }
}
