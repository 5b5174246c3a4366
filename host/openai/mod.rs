//! OpenAI's API without a server: what requests may say, what becomes of them in the engine, and responses.
//!
//! Nothing in a request is left out silently: a field is obeyed, or it is refused by its name, unless its value asks
//! for nothing ([`neutral`]). Fields besides OpenAI's have the names of llama.cpp and vLLM.

mod chat;
mod chat_stream;
mod chunks;
mod completion;
mod completion_stream;
mod conversation;
mod embedding;
mod error;
mod fields;
mod logprobs;
mod message;
pub mod neutral;
mod openapi;
mod parts;
mod prepared;
mod response;
mod response_format;
pub mod responses;
#[cfg(test)]
pub(crate) mod samples;
mod settings;
mod stream_event;
mod tokens;
mod tools;
mod translation;

use serde_json::Value;

pub use chat::ChatRequest;
pub use chat_stream::ChatStream;
pub use completion::{CompletionPrompt, CompletionRequest};
pub use completion_stream::CompletionStream;
pub use conversation::Conversation;
pub use embedding::{EmbeddingFormat, EmbeddingRequest, embedding_response};
pub use error::{ApiError, ErrorKind};
pub(crate) use fields::wrong;
pub use fields::{Field, Fields};
pub use logprobs::{
    ChatLogprobs, CompletionLogprobs, LogprobByText, ShownToken, ShownTokens, TokenLogprob,
    TopLogprob,
};
pub use openapi::OPENAPI;
pub use parts::{Change, Ending, Head, Part, Parts, Spent, stop_that_ended};
pub use prepared::Prepared;
pub use response::{
    Answer, ChatResponse, Choice, CompletionResponse, PromptTokensDetails, Response, Usage,
};
pub use response_format::ResponseFormat;
pub use settings::{MAX_CHOICES, MAX_STOP_STRINGS, Settings};
pub use stream_event::{EventData, StreamEvent, StreamHead};
pub use tokens::{DetokenizeRequest, Subject, TemplateRequest, TokenizeRequest};
pub use translation::{Names, Translation};

use crate::chat::ChatTemplate;
use crate::grammar::Grammars;

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
#[allow(clippy::large_enum_variant)] // one at a time, and not for long
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

    /// The same, to be changed.
    pub fn settings_mut(&mut self) -> &mut Settings {
        match self {
            Request::Chat(request) => &mut request.settings,
            Request::Completion(request) => &mut request.settings,
        }
    }

    /// What the engine needs for answers to it: to the conversation, laid out by `template`, or to each text.
    ///
    /// # Errors
    /// There is no template, it refuses the conversation, a text is not one, or what the answer must look like has no
    /// grammar.
    pub fn prepare(
        &self,
        template: Option<&ChatTemplate>,
        grammars: &Grammars,
    ) -> Result<Vec<Prepared>, ApiError> {
        match self {
            Request::Chat(request) => {
                let template = template
                    .ok_or_else(|| ApiError::field("messages", "the model has no chat template"))?;
                Ok(vec![request.prepare(template, grammars)?])
            }
            Request::Completion(request) => {
                let texts = request.tokens(grammars.tokenizer())?;
                Ok(texts.into_iter().map(Prepared::plain).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const FIELDS: [&str; 24] = [
        "messages",
        "prompt",
        "model",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
        "repeat_penalty",
        "repetition_penalty",
        "repeat_last_n",
        "logit_bias",
        "seed",
        "stop",
        "max_tokens",
        "max_completion_tokens",
        "logprobs",
        "top_logprobs",
        "n",
        "ignore_eos",
        "tools",
        "tool_choice",
        "chat_template_kwargs",
        "stream_options",
        "response_format",
    ];

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-3_i64..30).prop_map(Value::from),
            prop_oneof!["text", "user", "assistant", "function", ".{0,80}"].prop_map(Value::from),
        ];
        let names = prop_oneof![
            prop::sample::select(&FIELDS[..]).prop_map(str::to_owned),
            "role|content|type|text|tool_calls|function|name|arguments|[0-9]{1,3}",
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((names.clone(), inner), 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whatever a body holds, it is a request or an error that says what is wrong.
        #[test]
        fn odd_bodies_are_read_or_refused(
            fields in prop::collection::vec((prop::sample::select(&FIELDS[..]), any_json()), 0..6),
            is_chat in any::<bool>(),
        ) {
            let mut body = match is_chat {
                true => json!({"messages": [{"role": "user", "content": "hi"}]}),
                false => json!({"prompt": "hi"}),
            };
            for (name, value) in fields {
                body[name] = value;
            }
            for endpoint in Endpoint::ALL {
                match Request::from_body(endpoint, body.clone()) {
                    Ok(request) => {
                        let limit = request.settings().logprobs.unwrap_or(0);
                        prop_assert!(limit <= crate::backend::MAX_LOGPROBS);
                    }
                    Err(error) => {
                        prop_assert_eq!(error.status, 400);
                        prop_assert!(!error.message.is_empty() && error.message.len() < 1000);
                    }
                }
            }
        }

        #[test]
        fn anything_is_read_or_refused(body in any_json()) {
            for endpoint in Endpoint::ALL {
                let _ = Request::from_body(endpoint, body.clone());
            }
        }
    }
}
