//! What a server is told before it starts.

use std::time::Duration;

use super::keys::ApiKeys;
use crate::backend::Pooling;

/// How a server runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens: a name or an address.
    pub host: String,
    /// The port; 0 is any that is free.
    pub port: u16,
    /// What responses call the model.
    pub model_name: String,
    /// Who may ask.
    pub access: Access,
    /// What it refuses.
    pub limits: Limits,
    /// Which hidden state is a text's embedding.
    pub pooling: Pooling,
    /// Whether requests are logged with what users wrote.
    pub logs_prompts: bool,
}

/// Who may ask a server.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Names that a request's `Host` may have beside those of this machine; `*` is any.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may ask, such as `https://example.com`; `*` is any.
    pub cors_origins: Vec<String>,
    /// Keys, one of which a request needs; none where anybody may ask.
    pub api_keys: ApiKeys,
}

/// What a server refuses, so that no client takes all of it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Tokens of a prompt, where that is less than the context.
    pub prompt_tokens: Option<usize>,
    /// Tokens of an answer.
    pub answer_tokens: Option<usize>,
    /// Answers that wait beside those that are made.
    pub queue: usize,
    /// Connections; above them there is a refusal and `/health`.
    pub connections: usize,
    /// How long a connection may rest before a request.
    pub idle_time: Duration,
    /// How long a request's head may take, from its first bytes.
    pub head_time: Duration,
    /// How long its body may take.
    pub body_time: Duration,
    /// Tokens that a client may be behind the model before its answer is cancelled.
    pub events_behind: usize,
    /// How long a client may read nothing while something is sent to it.
    pub stall_time: Duration,
}
