//! Responses.

use serde::Serialize;
use serde_json::{Value, json};

use super::{ChatLogprobs, CompletionLogprobs, Endpoint, ShownTokens};
use crate::chat::Piece;
use crate::engine::{Finish, Generation};
use crate::tokenizer::Tokenizer;

/// Finished answers to one request, and what a response tells of it.
pub struct Answer<'a> {
    /// The answers, one or more.
    pub choices: &'a [Choice<'a>],
    /// The tokenizer of the model that made them.
    pub tokenizer: &'a Tokenizer,
    /// A name for them without what stands before it, such as `chatcmpl-`.
    pub id: &'a str,
    /// The model's name.
    pub model: &'a str,
    /// When, in seconds since 1970.
    pub created: u64,
    /// The seed that was used.
    pub seed: u64,
    /// Tokens of the prompts.
    pub prompt_tokens: usize,
    /// Whether log-probabilities were asked for.
    pub has_logprobs: bool,
    /// Control tokens that are part of the answers' texts.
    pub shown: &'a [u32],
    /// Tokens of the prompts that were in the cache; `None` where that is not told.
    pub cached_tokens: Option<usize>,
}

/// One of the answers.
pub struct Choice<'a> {
    /// What the engine made.
    pub generation: &'a Generation,
    /// Its text in parts.
    pub pieces: &'a [Piece],
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
    choices: Vec<ChatChoice>,
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
    /// Null beside calls of tools without a word.
    content: Option<String>,
    /// OpenAI's clients expect the field.
    refusal: Option<String>,
    /// vLLM's first name for what the model thinks before it answers, and llama.cpp's.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    /// vLLM's second name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Value>,
}

impl AssistantMessage {
    fn new(pieces: &[Piece]) -> AssistantMessage {
        let (mut content, mut reasoning) = (String::new(), None::<String>);
        let mut calls: Vec<(&str, &str, String)> = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Content(text) => content.push_str(text),
                Piece::Reasoning(text) => reasoning.get_or_insert_default().push_str(text),
                Piece::ToolCall { id, name, .. } => calls.push((id, name, String::new())),
                Piece::Arguments { index, text } => {
                    if let Some((_, _, arguments)) = calls.get_mut(*index) {
                        arguments.push_str(text);
                    }
                }
            }
        }
        let calls = calls.into_iter().map(|(id, name, arguments)| {
            let function = json!({"name": name, "arguments": arguments});
            json!({"id": id, "type": "function", "function": function})
        });
        let tool_calls: Vec<Value> = calls.collect();
        let is_silent = content.is_empty() && !tool_calls.is_empty();
        AssistantMessage {
            role: "assistant",
            content: (!is_silent).then_some(content),
            refusal: None,
            reasoning_content: reasoning.clone(),
            reasoning,
            tool_calls,
        }
    }
}

impl ChatResponse {
    /// The response with `answer`.
    pub fn new(answer: &Answer<'_>) -> ChatResponse {
        let choices = answer.choices.iter().enumerate().map(|(index, choice)| {
            let message = AssistantMessage::new(choice.pieces);
            let logprobs = || {
                let tokens = ShownTokens::of(choice.generation, answer.tokenizer, answer.shown);
                ChatLogprobs::new(&tokens, answer.tokenizer)
            };
            ChatChoice {
                index,
                finish_reason: chat_finish_reason(
                    choice.generation.finish,
                    !message.tool_calls.is_empty(),
                ),
                message,
                logprobs: answer.has_logprobs.then(logprobs),
            }
        });
        ChatResponse {
            id: format!("chatcmpl-{}", answer.id),
            object: "chat.completion",
            created: answer.created,
            model: answer.model.to_owned(),
            choices: choices.collect(),
            usage: Usage::of(answer),
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
    choices: Vec<CompletionChoice>,
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
        let choices = answer.choices.iter().enumerate().map(|(index, choice)| {
            let generation = choice.generation;
            let logprobs = || {
                let tokens = ShownTokens::of(generation, answer.tokenizer, answer.shown);
                CompletionLogprobs::new(&tokens, answer.tokenizer)
            };
            CompletionChoice {
                index,
                text: generation.text.clone(),
                logprobs: answer.has_logprobs.then(logprobs),
                finish_reason: finish_reason(generation.finish),
            }
        });
        CompletionResponse {
            id: format!("cmpl-{}", answer.id),
            object: "text_completion",
            created: answer.created,
            model: answer.model.to_owned(),
            choices: choices.collect(),
            usage: Usage::of(answer),
            seed: answer.seed,
        }
    }
}

/// What the answers to a request took, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Of the prompts.
    pub prompt_tokens: usize,
    /// Of the answers, the ones that ended them included.
    pub completion_tokens: usize,
    /// Of both.
    pub total_tokens: usize,
    /// More on the prompts.
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
    /// With `cached_tokens`, of which nothing is told where they are `None`.
    pub fn new(
        prompt_tokens: usize,
        completion_tokens: usize,
        cached_tokens: Option<usize>,
    ) -> Usage {
        let details = |cached_tokens| PromptTokensDetails { cached_tokens };
        Usage {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: cached_tokens.map(details),
        }
    }

    fn of(answer: &Answer<'_>) -> Usage {
        let choices = answer.choices.iter();
        let completion_tokens = choices.map(|choice| choice.generation.tokens.len()).sum();
        Usage::new(
            answer.prompt_tokens,
            completion_tokens,
            answer.cached_tokens,
        )
    }
}

/// OpenAI's word for why a text ended.
pub(super) fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::EndOfText | Finish::StopString | Finish::Interrupted => "stop",
        Finish::Length | Finish::Context => "length",
    }
}

/// OpenAI's word for why a message ended, which may call tools.
pub(super) fn chat_finish_reason(finish: Finish, calls_tools: bool) -> &'static str {
    match finish_reason(finish) {
        "stop" if calls_tools => "tool_calls",
        reason => reason,
    }
}
