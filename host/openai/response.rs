//! Responses.

use serde::Serialize;

use super::{ChatLogprobs, CompletionLogprobs, Endpoint};
use crate::engine::{Finish, Generation};
use crate::tokenizer::Tokenizer;

/// A finished answer, and what a response tells of its request.
pub struct Answer<'a> {
    /// What the engine made.
    pub generation: &'a Generation,
    /// The tokenizer of the model that made it.
    pub tokenizer: &'a Tokenizer,
    /// A name for it without what stands before it, such as `chatcmpl-`.
    pub id: &'a str,
    /// The model's name.
    pub model: &'a str,
    /// When, in seconds since 1970.
    pub created: u64,
    /// The seed that was used.
    pub seed: u64,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Whether log-probabilities were asked for.
    pub has_logprobs: bool,
    /// Tokens of the prompt that were in the cache; `None` where that is not told.
    pub cached_tokens: Option<usize>,
}

/// The response to a request of either kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Response {
    /// The next message of a conversation.
    Chat(ChatResponse),
    /// A continued text.
    Completion(CompletionResponse),
}

impl Response {
    /// The response of `endpoint` with `answer`.
    pub fn new(endpoint: Endpoint, answer: &Answer<'_>) -> Response {
        match endpoint {
            Endpoint::ChatCompletions => Response::Chat(ChatResponse::new(answer)),
            Endpoint::Completions => Response::Completion(CompletionResponse::new(answer)),
        }
    }
}

/// The next message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatResponse {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: [ChatChoice; 1],
    usage: Usage,
    seed: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ChatChoice {
    index: usize,
    message: AssistantMessage,
    logprobs: Option<ChatLogprobs>,
    finish_reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct AssistantMessage {
    role: &'static str,
    content: String,
    /// OpenAI's clients expect the field.
    refusal: Option<String>,
}

impl ChatResponse {
    /// The response with `answer`.
    pub fn new(answer: &Answer<'_>) -> ChatResponse {
        let generation = answer.generation;
        let logprobs = || ChatLogprobs::new(generation, answer.tokenizer);
        ChatResponse {
            id: format!("chatcmpl-{}", answer.id),
            object: "chat.completion",
            created: answer.created,
            model: answer.model.to_owned(),
            choices: [ChatChoice {
                index: 0,
                message: AssistantMessage {
                    role: "assistant",
                    content: generation.text.clone(),
                    refusal: None,
                },
                logprobs: answer.has_logprobs.then(logprobs),
                finish_reason: finish_reason(generation.finish),
            }],
            usage: Usage::new(answer),
            seed: answer.seed,
        }
    }
}

/// A continued text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CompletionResponse {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: [CompletionChoice; 1],
    usage: Usage,
    seed: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct CompletionChoice {
    index: usize,
    text: String,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: &'static str,
}

impl CompletionResponse {
    /// The response with `answer`.
    pub fn new(answer: &Answer<'_>) -> CompletionResponse {
        let generation = answer.generation;
        let logprobs = || CompletionLogprobs::new(generation, answer.tokenizer);
        CompletionResponse {
            id: format!("cmpl-{}", answer.id),
            object: "text_completion",
            created: answer.created,
            model: answer.model.to_owned(),
            choices: [CompletionChoice {
                index: 0,
                text: generation.text.clone(),
                logprobs: answer.has_logprobs.then(logprobs),
                finish_reason: finish_reason(generation.finish),
            }],
            usage: Usage::new(answer),
            seed: answer.seed,
        }
    }
}

/// What an answer took, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: usize,
    /// Of the answer, the one that ended it included.
    pub completion_tokens: usize,
    /// Of both.
    pub total_tokens: usize,
    /// More on the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptTokensDetails>,
}

/// More on the tokens of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PromptTokensDetails {
    /// Those that were in the cache.
    pub cached_tokens: usize,
}

impl Usage {
    fn new(answer: &Answer<'_>) -> Usage {
        let completion_tokens = answer.generation.tokens.len();
        let details = |cached_tokens| PromptTokensDetails { cached_tokens };
        Usage {
            prompt_tokens: answer.prompt_tokens,
            completion_tokens,
            total_tokens: answer.prompt_tokens + completion_tokens,
            prompt_tokens_details: answer.cached_tokens.map(details),
        }
    }
}

/// OpenAI's word for why an answer ended.
fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::EndOfText | Finish::StopString | Finish::Interrupted => "stop",
        Finish::Length | Finish::Context => "length",
    }
}
