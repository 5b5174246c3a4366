//! A model's hyperparameters, read from GGUF metadata and checked.

use super::arch::{Architecture, GateFunction, Scales};
use super::error::ModelError;
use super::experts::{ExpertCounts, read_widths};
use super::keys::Keys;
use super::layers::{LayerAttention, LayerReader, RopeByContext};
use super::rope::Rope;
use super::temperature::QueryTemperature;
use super::unused::{self, Unused};
use crate::gguf::Gguf;

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
    /// Elements inside the feed-forward network of all tokens: the only one, the shared one beside experts, or 0 where
    /// there are experts alone.
    pub ffn_width: usize,
    /// Feed-forward networks of which each token takes some.
    pub experts: Option<ExpertCounts>,
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
    /// Factor on what a block's parts add to the residual stream.
    pub residual_scale: f32,
    /// Factor on the logits, before their cap.
    pub logit_factor: f32,
    /// Logits pass through `cap * tanh(logit / cap)`.
    pub logit_softcap: Option<f32>,
    /// The distinct rotations in use: `[0]` for global layers, `[1]` for local ones that rotate otherwise.
    pub ropes: Vec<Rope>,
    /// What the first of them is for other contexts than the file's `context_length`.
    pub rope_by_context: Option<RopeByContext>,
    /// Whether the first of them is stretched by YaRN.
    pub yarn: bool,
    /// What queries are multiplied by behind their rotation, by their positions.
    pub query_temperature: Option<QueryTemperature>,
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
        let layers = LayerReader {
            keys: &keys,
            n_blocks,
            n_layers,
            head_dim: heads.dim,
            context_length,
        };
        let layers = layers.read(gguf)?;
        let factors = Factors::read(&keys, n_layers, width, &heads)?;
        let (ffn_width, experts) = read_widths(&keys, n_blocks)?;

        let config = Config {
            arch,
            n_layers,
            n_predicting,
            width,
            ffn_width,
            experts,
            n_heads: heads.n,
            n_kv_heads: heads.n_kv,
            head_dim: heads.dim,
            context_length,
            rms_eps,
            attention_scale: factors.attention,
            embedding_scale: factors.embedding,
            residual_scale: factors.residual,
            logit_factor: factors.logits,
            logit_softcap: match arch.logit_softcap {
                true => keys.nonzero("final_logit_softcapping")?,
                false => None,
            },
            ropes: layers.ropes,
            rope_by_context: layers.rope_by_context,
            yarn: keys.optional_str("rope.scaling.type")? == Some("yarn"),
            query_temperature: layers.query_temperature,
            layers: layers.layers,
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

    /// The rotation of layer `layer`; `None` where nothing is rotated.
    pub fn rope(&self, layer: usize) -> Option<&Rope> {
        self.layers[layer].rope.map(|index| &self.ropes[index])
    }

    /// The feed-forward activation.
    pub fn gate_function(&self) -> GateFunction {
        self.arch.activation
    }
}

/// What embeddings, scores, sums and logits are multiplied by.
struct Factors {
    embedding: f32,
    attention: f32,
    residual: f32,
    logits: f32,
}

impl Factors {
    fn read(
        keys: &Keys<'_>,
        n_layers: usize,
        width: usize,
        heads: &Heads,
    ) -> Result<Factors, ModelError> {
        let attention = attention_scale(keys.arch(), n_layers, width, heads);
        let none = Factors {
            embedding: 1.0,
            attention,
            residual: 1.0,
            logits: 1.0,
        };
        Ok(match keys.arch().scales {
            Scales::None => none,
            Scales::SqrtWidth => Factors {
                embedding: (width as f32).sqrt(),
                ..none
            },
            Scales::File => Factors {
                embedding: keys.nonzero("embedding_scale")?.unwrap_or(1.0),
                attention: keys.nonzero("attention.scale")?.unwrap_or(attention),
                residual: keys.nonzero("residual_scale")?.unwrap_or(1.0),
                logits: 1.0 / keys.positive("logit_scale")?,
            },
        })
    }
}

/// `1 / sqrt(head_dim)`, but for Gemma 3 27B, which was trained with `1 / sqrt(width / n_heads)`
/// and has no key that says so; llama.cpp knows it by its 62 layers too.
fn attention_scale(arch: &Architecture, n_layers: usize, width: usize, heads: &Heads) -> f32 {
    let dim = if arch.name == "gemma3" && n_layers == 62 {
        width as f32 / heads.n as f32
    } else {
        heads.dim as f32
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
