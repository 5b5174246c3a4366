//! What a model is: its architecture, hyperparameters and weights. Names no backend.

mod arch;
mod config;
mod error;
mod rope;
mod weights;

use std::path::Path;

pub use arch::{ARCHITECTURES, Activation, Architecture, RopePairing, SlidingLayers};
pub use config::{Config, LayerAttention};
pub use error::ModelError;
pub use rope::{Rope, RopeScaling};
pub use weights::{Layer, Linear, Weights};

use crate::gguf::Gguf;

/// A model read from a file and checked: everything a backend needs.
#[derive(Clone)]
pub struct Model {
    /// Hyperparameters.
    pub config: Config,
    /// Weights.
    pub weights: Weights,
}

impl Model {
    /// Opens the GGUF file at `path`.
    pub fn open(path: &Path) -> Result<Model, ModelError> {
        Model::from_gguf(&Gguf::open(path)?)
    }

    /// Reads the model in `gguf`; its tensors keep the mapping alive.
    pub fn from_gguf(gguf: &Gguf) -> Result<Model, ModelError> {
        let rope_factors = gguf
            .tensor("rope_freqs.weight")
            .map(|tensor| tensor.to_f32());
        let config = Config::from_gguf(gguf, rope_factors.as_deref())?;
        let weights = Weights::from_gguf(gguf, &config)?;
        Ok(Model { config, weights })
    }

    /// Number of tokens in the vocabulary.
    pub fn vocab(&self) -> usize {
        self.weights.output.n_out()
    }
}
