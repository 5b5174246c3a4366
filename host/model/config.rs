//! A model's hyperparameters, read from GGUF metadata and checked.

use super::arch::{ARCHITECTURES, Activation, Architecture};
use super::error::ModelError;
use super::rope::{Rope, RopeScaling};
use crate::gguf::{Gguf, Metadata};

/// Upper bound on every count read from a file, so that a hostile file cannot ask for absurd sizes.
const MAX_COUNT: usize = 1 << 24;

/// Which keys a layer attends to, and how it rotates them.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerAttention {
    /// `Some(w)`: a query sees itself and the `w - 1` tokens before it; `None`: all before it.
    pub window: Option<usize>,
    /// Index into [`Config::ropes`].
    pub rope: usize,
}

/// Hyperparameters. Widths count elements.
#[derive(Debug, Clone)]
pub struct Config {
    /// The architecture's row.
    pub arch: &'static Architecture,
    /// Transformer blocks.
    pub n_layers: usize,
    /// Elements of the residual stream.
    pub width: usize,
    /// Elements inside the feed-forward block.
    pub ffn_width: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Tokens the model was trained to see at once.
    pub context_length: usize,
    /// Epsilon of every RMSNorm.
    pub rms_eps: f32,
    /// Factor on `q . k` before the softmax.
    pub attention_scale: f32,
    /// Factor on the embeddings.
    pub embedding_scale: f32,
    /// Logits pass through `cap * tanh(logit / cap)`.
    pub logit_softcap: Option<f32>,
    /// The distinct rotations in use: `[0]` for global layers, `[1]` for local ones.
    pub ropes: Vec<Rope>,
    /// Attention of each layer, `[n_layers]`.
    pub layers: Vec<LayerAttention>,
}

impl Config {
    /// Reads the configuration of `gguf`, whose `rope_freqs` factors are `rope_factors`.
    pub fn from_gguf(gguf: &Gguf, rope_factors: Option<&[f32]>) -> Result<Config, ModelError> {
        let found = gguf.metadata().get_str("general.architecture")?;
        let arch = Architecture::find(found).ok_or_else(|| ModelError::UnknownArchitecture {
            found: found.to_owned(),
            known: ARCHITECTURES.iter().map(|arch| arch.name).collect(),
        })?;
        let keys = Keys {
            metadata: gguf.metadata(),
            arch,
        };

        let n_layers = keys.count("block_count")?;
        if n_layers > gguf.tensors().len() {
            let what = format!(
                "{n_layers} blocks in a file of {} tensors",
                gguf.tensors().len()
            );
            return Err(keys.invalid("block_count", what));
        }
        let width = keys.count("embedding_length")?;
        let n_heads = keys.count("attention.head_count")?;
        let n_kv_heads = keys
            .optional_count("attention.head_count_kv")?
            .unwrap_or(n_heads);
        if n_heads % n_kv_heads != 0 {
            let what = format!("{n_kv_heads} does not divide the {n_heads} query heads");
            return Err(keys.invalid("attention.head_count_kv", what));
        }
        let head_dim = match keys.optional_count("attention.key_length")? {
            Some(dim) => dim,
            None if width % n_heads == 0 => width / n_heads,
            None => {
                let what = format!("{n_heads} does not divide the width {width}");
                return Err(keys.invalid("attention.head_count", what));
            }
        };
        let value_dim = keys
            .optional_count("attention.value_length")?
            .unwrap_or(head_dim);
        if value_dim != head_dim {
            let what = format!("{value_dim} differs from the key length {head_dim}");
            return Err(keys.invalid("attention.value_length", what));
        }
        let context_length = keys.count("context_length")?;
        let rms_eps = keys.float("attention.layer_norm_rms_epsilon")?;
        let (ropes, layers) =
            keys.attention_layers(n_layers, head_dim, context_length, rope_factors)?;

        Ok(Config {
            arch,
            n_layers,
            width,
            ffn_width: keys.count("feed_forward_length")?,
            n_heads,
            n_kv_heads,
            head_dim,
            context_length,
            rms_eps,
            attention_scale: attention_scale(arch, n_layers, width, n_heads, head_dim),
            embedding_scale: if arch.scale_embeddings {
                (width as f32).sqrt()
            } else {
                1.0
            },
            logit_softcap: keys
                .optional_float("final_logit_softcapping")?
                .filter(|&cap| cap > 0.0),
            ropes,
            layers,
        })
    }

    /// Elements of all query heads of a token.
    pub fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Elements of all key (or value) heads of a token.
    pub fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Query heads that share one key head.
    pub fn group_size(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// The rotation of layer `layer`.
    pub fn rope(&self, layer: usize) -> &Rope {
        &self.ropes[self.layers[layer].rope]
    }

    /// The feed-forward activation.
    pub fn activation(&self) -> Activation {
        self.arch.activation
    }
}

/// `1 / sqrt(head_dim)`, but for Gemma 3 27B, which was trained with `1 / sqrt(width / n_heads)`
/// and has no key that says so; llama.cpp knows it by its 62 layers too.
fn attention_scale(
    arch: &Architecture,
    n_layers: usize,
    width: usize,
    n_heads: usize,
    head_dim: usize,
) -> f32 {
    let dim = if arch.name == "gemma3" && n_layers == 62 {
        width as f32 / n_heads as f32
    } else {
        head_dim as f32
    };
    1.0 / dim.sqrt()
}

/// Metadata seen through an architecture's key prefix.
struct Keys<'a> {
    metadata: &'a Metadata,
    arch: &'static Architecture,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.arch.name)
    }

    fn invalid(&self, key: &str, what: String) -> ModelError {
        ModelError::Metadata {
            key: self.name(key),
            what,
        }
    }

    fn has(&self, key: &str) -> bool {
        self.metadata.get(&self.name(key)).is_some()
    }

    fn count(&self, key: &str) -> Result<usize, ModelError> {
        let value = self.metadata.get_u64(&self.name(key))?;
        match usize::try_from(value) {
            Ok(count) if (1..=MAX_COUNT).contains(&count) => Ok(count),
            _ => Err(self.invalid(key, format!("{value} is not in 1..={MAX_COUNT}"))),
        }
    }

    fn optional_count(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.has(key).then(|| self.count(key)).transpose()
    }

    fn float(&self, key: &str) -> Result<f32, ModelError> {
        let value = self.metadata.get_f32(&self.name(key))?;
        if !value.is_finite() || value < 0.0 {
            return Err(self.invalid(key, format!("{value} is not a finite positive number")));
        }
        Ok(value)
    }

    fn optional_float(&self, key: &str) -> Result<Option<f32>, ModelError> {
        self.has(key).then(|| self.float(key)).transpose()
    }

    fn attention_layers(
        &self,
        n_layers: usize,
        head_dim: usize,
        context_length: usize,
        factors: Option<&[f32]>,
    ) -> Result<(Vec<Rope>, Vec<LayerAttention>), ModelError> {
        let rotated = self
            .optional_count("rope.dimension_count")?
            .unwrap_or(head_dim);
        if rotated > head_dim || rotated % 2 != 0 {
            let what = format!("{rotated} is odd or above the head size {head_dim}");
            return Err(self.invalid("rope.dimension_count", what));
        }
        if let Some(factors) = factors
            && (factors.len() != rotated / 2 || !factors.iter().all(|f| f.is_finite() && *f > 0.0))
        {
            return Err(ModelError::Metadata {
                key: "rope_freqs.weight".to_owned(),
                what: format!("expected {} positive factors", rotated / 2),
            });
        }
        let base = self.optional_float("rope.freq_base")?.unwrap_or(10_000.0);
        let pairing = self.arch.rope_pairing;
        let scaling = self.rope_scaling(context_length)?;
        let mut ropes = vec![Rope::new(pairing, rotated, base, scaling, factors)];
        let global = LayerAttention {
            window: None,
            rope: 0,
        };

        let Some(sliding) = self.arch.sliding else {
            return Ok((ropes, vec![global; n_layers]));
        };
        let window = self.count("attention.sliding_window")?;
        let local_base = self
            .optional_float("rope.freq_base_swa")?
            .unwrap_or(sliding.local_rope_base);
        // The context is stretched on global layers only: local ones never see past their window.
        ropes.push(Rope::new(
            pairing,
            rotated,
            local_base,
            RopeScaling::None,
            factors,
        ));
        let period = sliding.period;
        let layers = (0..n_layers)
            .map(|layer| match layer % period == period - 1 {
                true => global.clone(),
                false => LayerAttention {
                    window: Some(window),
                    rope: 1,
                },
            })
            .collect();
        Ok((ropes, layers))
    }

    fn rope_scaling(&self, context_length: usize) -> Result<RopeScaling, ModelError> {
        let factor = match self.optional_float("rope.scaling.factor")? {
            Some(factor) => factor,
            None => self.optional_float("rope.scale_linear")?.unwrap_or(1.0),
        };
        let key = self.name("rope.scaling.type");
        let kind = match self.metadata.get(&key) {
            Some(_) => self.metadata.get_str(&key)?,
            None => "linear",
        };
        if factor == 0.0 || factor == 1.0 {
            return Ok(RopeScaling::None);
        }
        match kind {
            "none" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor }),
            "yarn" => Ok(RopeScaling::Yarn {
                factor,
                original_context: self
                    .optional_count("rope.scaling.original_context_length")?
                    .unwrap_or(context_length),
                beta_fast: self
                    .optional_float("rope.scaling.yarn_beta_fast")?
                    .unwrap_or(32.0),
                beta_slow: self
                    .optional_float("rope.scaling.yarn_beta_slow")?
                    .unwrap_or(1.0),
                attention_factor: self
                    .optional_float("rope.scaling.attn_factor")?
                    .unwrap_or(1.0),
            }),
            other => {
                let what = format!("{other:?} is not none, linear or yarn");
                Err(self.invalid("rope.scaling.type", what))
            }
        }
    }
}
