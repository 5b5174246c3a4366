//! A server of one model: OpenAI's API over HTTP.
//!
//! One thread owns the scheduler ([`engine_thread`]); requests reach it over a channel and their events come back over
//! others. Whoever waits for an answer and goes away drops its channel, which cancels the answer. All that comes from
//! outside passes [`router`], which says in which order it is looked at.

mod answer;
mod body;
mod config;
mod connections;
mod endpoints;
mod engine_thread;
mod error;
mod guard;
mod head_timer;
mod keys;
mod lifecycle;
mod limits;
pub mod logging;
mod metrics;
mod one_answer;
mod router;
mod sse;
mod stall;
mod state;

pub use config::{Access, Config, Limits};
pub use engine_thread::EngineFailure;
pub use keys::ApiKeys;
pub use lifecycle::{Exit, ServeError, run};
pub use state::Loaded;
