//! What all requests share.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Config;
use super::engine_thread::EngineHandle;
use super::metrics::{EngineLoad, Metrics};
use crate::chat::ChatTemplate;
use crate::engine::Scheduler;
use crate::grammar::Grammars;
use crate::openai::ApiError;
use crate::tokenizer::Tokenizer;

/// A model that is ready to be served.
pub struct Loaded {
    /// Runs requests on it.
    pub scheduler: Scheduler,
    /// Lays out conversations; in its place why it cannot.
    pub template: Result<ChatTemplate, String>,
    /// Ends a step of its backend in the middle.
    pub interrupt: &'static AtomicBool,
}

/// A model that answers.
pub struct Served {
    /// Where requests are sent to.
    pub engine: EngineHandle,
    /// The model's tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Compiles what answers must look like.
    pub grammars: Grammars,
    /// Lays out conversations; in its place why it cannot.
    pub template: Result<ChatTemplate, String>,
    /// Numbers of a token's vector.
    pub width: usize,
    /// When it was ready, in seconds since 1970.
    pub created: u64,
}

impl Served {
    /// What lays out conversations.
    ///
    /// # Errors
    /// The file's template is broken.
    pub fn template(&self) -> Result<&ChatTemplate, ApiError> {
        self.template
            .as_ref()
            .map_err(|error| ApiError::server(error.as_str()))
    }
}

/// How far a server's life has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The model is being read.
    Loading,
    /// It answers.
    Ready,
    /// It ends what runs and takes nothing more.
    Draining,
    /// The device failed.
    Failed,
}

/// What all requests share.
pub struct ServerState {
    /// What the server was told.
    pub config: Config,
    /// What it counts.
    pub metrics: Metrics,
    served: OnceLock<Arc<Served>>,
    phase: AtomicU8,
}

impl ServerState {
    /// Of a server that has no model yet.
    pub fn new(config: Config) -> ServerState {
        ServerState {
            metrics: Metrics::new(&config.model_name),
            config,
            served: OnceLock::new(),
            phase: AtomicU8::new(Phase::Loading as u8),
        }
    }

    /// How far it has got.
    pub fn phase(&self) -> Phase {
        let phases = [Phase::Loading, Phase::Ready, Phase::Draining, Phase::Failed];
        let phase = usize::from(self.phase.load(Ordering::Acquire));
        phases.get(phase).copied().unwrap_or(Phase::Failed)
    }

    /// Goes on to `phase`; a server never goes back.
    pub fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }

    /// From now on it answers.
    pub fn serve(&self, served: Served) {
        if self.served.set(Arc::new(served)).is_ok() {
            self.advance(Phase::Ready);
        }
    }

    /// How busy the engine is; not at all before there is one.
    pub fn load(&self) -> EngineLoad {
        self.served
            .get()
            .map_or_else(EngineLoad::default, |served| served.engine.load())
    }

    /// The model.
    ///
    /// # Errors
    /// It does not answer, or not any more.
    pub fn served(&self) -> Result<&Arc<Served>, ApiError> {
        let reason = match (self.phase(), self.served.get()) {
            (Phase::Ready, Some(served)) => return Ok(served),
            (Phase::Draining, _) => "the server is shutting down",
            (Phase::Failed, _) => "the device has failed, and the server is shutting down",
            (Phase::Loading | Phase::Ready, _) => "the model is being loaded",
        };
        Err(ApiError::unavailable(reason))
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
