//! What a model is: its architecture, hyperparameters and weights. Names no backend.

mod arch;
mod config;
mod error;
mod keys;
mod kv_layout;
mod rope;
mod unused;
mod weights;

use std::path::Path;

pub use arch::{ARCHITECTURES, Architecture, GateFunction, RopePairing, SlidingLayers};
pub use config::{Config, LayerAttention};
pub use error::ModelError;
pub use kv_layout::{KvLayout, KvPart};
pub use rope::{Rope, RopeScaling};
pub use unused::Unused;
pub use weights::{Layer, Linear, Weights};

use crate::gguf::Gguf;

/// A model read from a file and checked: everything a backend needs.
#[derive(Clone)]
pub struct Model {
    /// Hyperparameters.
    pub config: Config,
    /// Weights.
    pub weights: Weights,
    /// What of the file is left out, because the text does not depend on it.
    pub unused: Vec<Unused>,
}

impl Model {
    /// Opens the GGUF file at `path`.
    ///
    /// # Errors
    /// As [`Gguf::open`] and [`Model::from_gguf`].
    pub fn open(path: &Path) -> Result<Model, ModelError> {
        Model::from_gguf(&Gguf::open(path)?)
    }

    /// Reads the model in `gguf`; its tensors keep the mapping alive.
    ///
    /// # Errors
    /// An unknown architecture, a missing or impossible key or tensor, and one that the architecture's
    /// formula has no place for.
    pub fn from_gguf(gguf: &Gguf) -> Result<Model, ModelError> {
        let (config, mut unused) = Config::from_gguf(gguf)?;
        let (weights, left_out) = Weights::from_gguf(gguf, &config)?;
        unused.extend(left_out);
        Ok(Model {
            config,
            weights,
            unused,
        })
    }

    /// Number of tokens in the vocabulary.
    pub fn vocab(&self) -> usize {
        self.weights.output.n_out()
    }
}
