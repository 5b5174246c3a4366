//! What a server is told before it starts.

use std::time::Duration;

/// How a server runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens: a name or an address.
    pub host: String,
    /// The port; 0 is any that is free.
    pub port: u16,
    /// What responses call the model.
    pub model_name: String,
    /// What it refuses.
    pub limits: Limits,
}

/// What a server refuses, so that no client takes all of it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Answers that wait beside those that run.
    pub queue: usize,
    /// Connections; above them there is a refusal and `/health`.
    pub connections: usize,
    /// How long a request's head may take.
    pub head_time: Duration,
    /// How long its body may take.
    pub body_time: Duration,
    /// How long a client may read nothing while something is sent to it.
    pub stall_time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes: 32 << 20,
            queue: 1024,
            connections: 1024,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(60),
            stall_time: Duration::from_secs(30),
        }
    }
}
