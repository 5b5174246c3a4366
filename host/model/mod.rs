//! What a model is: its architecture, hyperparameters and weights. Names no backend.

mod arch;
mod config;
mod error;
mod experts;
mod keys;
mod kv_layout;
mod layers;
mod rope;
mod temperature;
mod unused;
mod weights;

use std::path::Path;
use std::sync::Arc;

pub use arch::{
    ARCHITECTURES, Architecture, BlockNorms, ExpertRule, GateFunction, LocalRope, QkNorm,
    RopeFactors, RopePairing, Scales, SlidingLayers, Unrotated,
};
pub use config::Config;
pub use error::ModelError;
pub use experts::{ExpertCounts, ExpertMatrix, Experts, SharedExpert};
pub use kv_layout::{KvLayout, KvPart};
pub use layers::{LayerAttention, RopeByContext};
pub use rope::{Rope, RopeScaling};
pub use temperature::QueryTemperature;
pub use unused::Unused;
pub use weights::{FeedForward, GatedNetwork, Layer, Linear, Weights};

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

    /// The same model for sequences of at most `context` tokens: some rotations depend on it. Before, they are those
    /// for the context that the file names.
    pub fn for_context(self: Arc<Model>, context: usize) -> Arc<Model> {
        let Some(ropes) = &self.config.rope_by_context else {
            return self;
        };
        let rope = ropes.of(context);
        if *rope == self.config.ropes[0] {
            return self;
        }
        let rope = rope.clone();
        let mut model = Arc::unwrap_or_clone(self);
        model.config.ropes[0] = rope;
        Arc::new(model)
    }

    /// The weight of the last norm with the factor on the logits, for backends whose product with the output matrix has
    /// none of its own.
    pub fn logit_norm(&self) -> Vec<f32> {
        let factor = self.config.logit_factor;
        let weight = self.weights.output_norm.iter();
        weight.map(|weight| weight * factor).collect()
    }

    /// Number of tokens in the vocabulary.
    pub fn vocab(&self) -> usize {
        self.weights.output.n_out()
    }
}
