//! A model's hyperparameters, read from GGUF metadata and checked.

use super::arch::{Architecture, GateFunction};
use super::error::ModelError;
use super::keys::{Keys, integers};
use super::rope::{Rope, RopeScaling};
use super::unused::{self, Unused};
use crate::gguf::{Gguf, Value};

/// The tensor of Llama 3's factors on the frequencies of RoPE.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

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
    /// Transformer blocks that make the next token.
    pub n_layers: usize,
    /// Blocks behind them in the file, which predict further tokens and are not run.
    pub n_predicting: usize,
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
    /// Whether the first of them is stretched by YaRN.
    pub yarn: bool,
    /// Attention of each layer, `[n_layers]`.
    pub layers: Vec<LayerAttention>,
}

impl Config {
    /// Reads the configuration of `gguf`, and what of its keys has no part in it.
    ///
    /// # Errors
    /// An unknown architecture, a missing or impossible value, or a key that asks for a formula which
    /// the architecture's row does not have.
    pub fn from_gguf(gguf: &Gguf) -> Result<(Config, Vec<Unused>), ModelError> {
        let arch = Architecture::of(gguf)?;
        let keys = Keys::new(gguf.metadata(), arch);
        unused::check_experts(&keys)?;

        let n_blocks = keys.count("block_count")?;
        if n_blocks > gguf.n_tensors() {
            let what = format!(
                "{n_blocks} blocks in a file of {} tensors",
                gguf.n_tensors()
            );
            return Err(keys.invalid("block_count", what));
        }
        let n_predicting = keys.optional_whole("nextn_predict_layers")?.unwrap_or(0);
        let n_layers = match n_blocks.checked_sub(n_predicting) {
            Some(n_layers) if n_layers > 0 => n_layers,
            _ => {
                let what = format!("{n_predicting} of {n_blocks} blocks");
                return Err(keys.invalid("nextn_predict_layers", what));
            }
        };
        let width = keys.count("embedding_length")?;
        let heads = read_heads(&keys, n_blocks, width)?;
        let context_length = keys.count("context_length")?;
        let rms_eps = keys.positive("attention.layer_norm_rms_epsilon")?;
        let attention = Attention {
            keys: &keys,
            n_blocks,
            n_layers,
            head_dim: heads.dim,
            context_length,
        };
        let rope_factors = arch
            .rope_factors
            .then(|| gguf.tensor(ROPE_FACTORS))
            .flatten();
        let rope_factors = rope_factors.map(|tensor| tensor.to_f32());
        let (ropes, layers) = attention.layers(rope_factors.as_deref())?;

        let config = Config {
            arch,
            n_layers,
            n_predicting,
            width,
            ffn_width: keys.uniform_count("feed_forward_length", n_blocks)?,
            n_heads: heads.n,
            n_kv_heads: heads.n_kv,
            head_dim: heads.dim,
            context_length,
            rms_eps,
            attention_scale: attention_scale(arch, n_layers, width, heads.n, heads.dim),
            embedding_scale: if arch.scale_embeddings {
                (width as f32).sqrt()
            } else {
                1.0
            },
            logit_softcap: match arch.logit_softcap {
                true => keys.nonzero("final_logit_softcapping")?,
                false => None,
            },
            ropes,
            yarn: keys.optional_str("rope.scaling.type")? == Some("yarn"),
            layers,
        };
        let unused = unused::check_keys(&keys, &config)?;
        Ok((config, unused))
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
    pub fn gate_function(&self) -> GateFunction {
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

/// Sizes of the attention heads.
struct Heads {
    n: usize,
    n_kv: usize,
    dim: usize,
}

fn read_heads(keys: &Keys<'_>, n_blocks: usize, width: usize) -> Result<Heads, ModelError> {
    let n = keys.uniform_count("attention.head_count", n_blocks)?;
    let n_kv = keys
        .optional_uniform_count("attention.head_count_kv", n_blocks)?
        .unwrap_or(n);
    if n % n_kv != 0 {
        let what = format!("{n_kv} does not divide the {n} query heads");
        return Err(keys.invalid("attention.head_count_kv", what));
    }
    let dim = match keys.optional_uniform_count("attention.key_length", n_blocks)? {
        Some(dim) => dim,
        None if width.is_multiple_of(n) => width / n,
        None => {
            let what = format!("{n} does not divide the width {width}");
            return Err(keys.invalid("attention.head_count", what));
        }
    };
    let value_dim = keys
        .optional_uniform_count("attention.value_length", n_blocks)?
        .unwrap_or(dim);
    if value_dim != dim {
        let what = format!("{value_dim} differs from the key length {dim}");
        return Err(keys.invalid("attention.value_length", what));
    }
    Ok(Heads { n, n_kv, dim })
}

/// What the rotations and windows of the layers depend on.
struct Attention<'a> {
    keys: &'a Keys<'a>,
    n_blocks: usize,
    n_layers: usize,
    head_dim: usize,
    context_length: usize,
}

impl Attention<'_> {
    fn layers(
        &self,
        factors: Option<&[f32]>,
    ) -> Result<(Vec<Rope>, Vec<LayerAttention>), ModelError> {
        let (keys, head_dim) = (self.keys, self.head_dim);
        let rotated = keys
            .optional_count("rope.dimension_count")?
            .unwrap_or(head_dim);
        if rotated > head_dim || rotated % 2 != 0 {
            let what = format!("{rotated} is odd or above the head size {head_dim}");
            return Err(keys.invalid("rope.dimension_count", what));
        }
        if let Some(factors) = factors
            && (factors.len() != rotated / 2 || !factors.iter().all(|f| f.is_finite() && *f > 0.0))
        {
            return Err(ModelError::Metadata {
                key: ROPE_FACTORS.to_owned(),
                what: format!("expected {} positive factors", rotated / 2),
            });
        }
        // The second name is Ollama's.
        let base = keys
            .optional_alias(&["rope.freq_base", "rope.global.freq_base"])?
            .unwrap_or(10_000.0);
        let pairing = keys.arch().rope_pairing;
        let scaling = self.rope_scaling()?;
        if matches!(scaling, RopeScaling::Yarn { .. }) && base <= 1.0 {
            return Err(keys.invalid("rope.freq_base", format!("{base} with YaRN, not above 1")));
        }
        let attention_factor = keys
            .optional_positive("rope.scaling.attn_factor")?
            .unwrap_or(1.0);
        let rope = |base, scaling| {
            Rope::new(pairing, rotated, base, scaling, factors)
                .with_attention_factor(attention_factor)
        };
        let global = LayerAttention {
            window: None,
            rope: 0,
        };
        let all_global = || {
            (
                vec![rope(base, scaling)],
                vec![global.clone(); self.n_layers],
            )
        };

        let Some(sliding) = keys.arch().sliding else {
            return Ok(all_global());
        };
        let window = keys
            .optional_whole("attention.sliding_window")?
            .filter(|&window| window > 0);
        let Some(window) = window else {
            return Ok(all_global());
        };
        let local_base = keys
            .optional_alias(&["rope.freq_base_swa", "rope.local.freq_base"])?
            .unwrap_or(sliding.local_rope_base);
        let layers = self
            .local_layers(sliding.period)?
            .into_iter()
            .map(|local| match local {
                false => global.clone(),
                true => LayerAttention {
                    window: Some(window),
                    rope: 1,
                },
            })
            .collect();
        // The context is stretched on global layers only: local ones never see past their window.
        Ok((
            vec![rope(base, scaling), rope(local_base, RopeScaling::None)],
            layers,
        ))
    }

    /// Which layers are local, `[n_layers]`: as the file says, by a period or one by one, else by `period`.
    fn local_layers(&self, period: usize) -> Result<Vec<bool>, ModelError> {
        const KEY: &str = "attention.sliding_window_pattern";
        let keys = self.keys;
        let period = match keys.value(KEY) {
            Some(Value::Array(array)) => {
                let local = integers(array)
                    .ok_or_else(|| keys.invalid(KEY, "the array does not hold truth values"))?;
                if local.len() != self.n_blocks {
                    let what = format!("{} entries for {} layers", local.len(), self.n_blocks);
                    return Err(keys.invalid(KEY, what));
                }
                let local = local.into_iter().map(|local| local != 0);
                return Ok(local.take(self.n_layers).collect());
            }
            Some(_) => keys.optional_whole(KEY)?.unwrap_or(period),
            None => period,
        };
        // llama.cpp's reading: 0 makes every layer local, 1 none.
        let local = |layer: usize| period == 0 || layer % period != period - 1;
        Ok((0..self.n_layers).map(local).collect())
    }

    fn rope_scaling(&self) -> Result<RopeScaling, ModelError> {
        let keys = self.keys;
        // The second name is of the first GGUF files.
        let newer = keys.nonzero("rope.scaling.factor")?;
        let older = keys.nonzero("rope.scale_linear")?;
        let factor = newer.or(older).unwrap_or(1.0);
        let kind = keys.optional_str("rope.scaling.type")?.unwrap_or("linear");
        match kind {
            "none" => Ok(RopeScaling::None),
            "linear" if factor == 1.0 => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor }),
            "yarn" => {
                let original_context = keys
                    .optional_count("rope.scaling.original_context_length")?
                    .unwrap_or(self.context_length);
                let beta_fast = keys.optional_positive("rope.scaling.yarn_beta_fast")?;
                let beta_slow = keys.optional_positive("rope.scaling.yarn_beta_slow")?;
                if factor == 1.0 {
                    return Ok(RopeScaling::None);
                }
                Ok(RopeScaling::Yarn {
                    factor,
                    original_context,
                    beta_fast: beta_fast.unwrap_or(32.0),
                    beta_slow: beta_slow.unwrap_or(1.0),
                })
            }
            other => {
                let what = format!("{other:?} is not none, linear or yarn");
                Err(keys.invalid("rope.scaling.type", what))
            }
        }
    }
}
