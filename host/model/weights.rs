//! A model's weights: matrices stay quantized views of the file, vectors are decoded.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;

use super::arch::{BlockNorms, QkNorm};
use super::config::Config;
use super::error::ModelError;
use super::experts::Experts;
use super::layers::factor_tensors;
use super::unused::{self, Unused};
use crate::gguf::{Gguf, Tensor};

/// A matrix `[n_out, n_in]` row-major, as GGUF stores it, and its bias `[n_out]`.
#[derive(Clone)]
pub struct Linear {
    /// The matrix; GGUF dimensions `[n_in, n_out]`.
    pub weight: Tensor,
    /// Added to the product, where the architecture has it.
    pub bias: Option<Vec<f32>>,
}

impl Linear {
    /// Elements of an input.
    pub fn n_in(&self) -> usize {
        self.weight.row_len()
    }

    /// Elements of an output.
    pub fn n_out(&self) -> usize {
        self.weight.n_rows()
    }
}

/// A feed-forward network: `down(activation(gate(x)) * up(x))`.
#[derive(Clone)]
pub struct GatedNetwork {
    /// `[ffn_width, width]`, goes through the activation.
    pub gate: Linear,
    /// `[ffn_width, width]`, multiplied by the activated gate.
    pub up: Linear,
    /// `[width, ffn_width]`.
    pub down: Linear,
}

impl GatedNetwork {
    /// Its matrices, in the order in which a step multiplies them.
    pub fn linears(&self) -> [&Linear; 3] {
        let GatedNetwork { gate, up, down } = self;
        [gate, up, down]
    }
}

/// What a block's tokens go through behind attention.
#[derive(Clone)]
#[allow(clippy::large_enum_variant)] // there is one a block
pub enum FeedForward {
    /// One network for all.
    Dense(GatedNetwork),
    /// Some of many for each.
    Experts(Experts),
}

/// The weights of one transformer block. Norms are `[width]` unless said otherwise.
#[derive(Clone)]
pub struct Layer {
    /// RMSNorm before attention, where there is one.
    pub attn_norm: Option<Vec<f32>>,
    /// `[q_width, width]`.
    pub q: Linear,
    /// `[kv_width, width]`.
    pub k: Linear,
    /// `[kv_width, width]`.
    pub v: Linear,
    /// `[width, q_width]`.
    pub attn_output: Linear,
    /// RMSNorm of each query head, `[head_dim]`, or of all of them, `[q_width]`.
    pub q_norm: Option<Vec<f32>>,
    /// RMSNorm of each key head, `[head_dim]`, or of all of them, `[kv_width]`.
    pub k_norm: Option<Vec<f32>>,
    /// RMSNorm after attention.
    pub post_attn_norm: Option<Vec<f32>>,
    /// RMSNorm before the feed-forward block, where there is one.
    pub ffn_norm: Option<Vec<f32>>,
    /// The feed-forward block.
    pub ffn: FeedForward,
    /// RMSNorm after the feed-forward block.
    pub post_ffn_norm: Option<Vec<f32>>,
}

impl Layer {
    /// The matrices of attention, in the order in which a step multiplies them.
    pub fn attention(&self) -> [&Linear; 4] {
        let Layer {
            q,
            k,
            v,
            attn_output,
            ..
        } = self;
        [q, k, v, attn_output]
    }

    /// The feed-forward network that all tokens take, where there is one.
    pub fn network(&self) -> Option<&GatedNetwork> {
        match &self.ffn {
            FeedForward::Dense(network) => Some(network),
            FeedForward::Experts(experts) => experts.shared.as_ref().map(|shared| &shared.network),
        }
    }

    /// Its experts, where it has some.
    pub fn experts(&self) -> Option<&Experts> {
        match &self.ffn {
            FeedForward::Dense(_) => None,
            FeedForward::Experts(experts) => Some(experts),
        }
    }

    /// The matrices that all tokens are multiplied with, but for a router's.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        let network = self.network().into_iter().flat_map(GatedNetwork::linears);
        self.attention().into_iter().chain(network)
    }
}

/// All weights of a model.
#[derive(Clone)]
pub struct Weights {
    /// `[vocab, width]`.
    pub token_embd: Tensor,
    /// `[n_layers]`.
    pub layers: Vec<Layer>,
    /// RMSNorm before the output, `[width]`.
    pub output_norm: Vec<f32>,
    /// `[vocab, width]`; the embeddings themselves when the file has no `output.weight`.
    pub output: Linear,
}

impl Weights {
    /// Finds and checks every tensor that `config` asks for, and what of the file is left out.
    ///
    /// # Errors
    /// A tensor is missing, has another shape, or has no place in the architecture's formula.
    pub fn from_gguf(gguf: &Gguf, config: &Config) -> Result<(Weights, Vec<Unused>), ModelError> {
        let tensors = Tensors {
            gguf,
            taken: RefCell::default(),
        };
        for name in factor_tensors(config.arch.rope_factors) {
            // The configuration has read it.
            tensors.find(name);
        }
        let token_embd = tensors.require("token_embd.weight")?.clone();
        let vocab = token_embd.n_rows();
        expect_shape(&token_embd, &[config.width, vocab])?;
        let output = match tensors.find("output.weight") {
            Some(output) => output.clone(),
            None => token_embd.clone(),
        };
        expect_shape(&output, &[config.width, vocab])?;
        // Models that scale their logits have none, and backends scale what the product reads.
        let bias = match config.logit_factor {
            1.0 => tensors.optional_vector("output.bias", vocab)?,
            _ => None,
        };
        let output = Linear {
            weight: output,
            bias,
        };
        let weights = Weights {
            token_embd,
            layers: (0..config.n_layers)
                .map(|index| tensors.layer(index, config))
                .collect::<Result<_, _>>()?,
            output_norm: tensors.vector("output_norm.weight", config.width)?,
            output,
        };
        let unused = unused::check_tensors(gguf, config, &tensors.taken.into_inner())?;
        Ok((weights, unused))
    }
}

/// Looks tensors up by GGUF's names, checks their shapes, and remembers which were taken.
pub(super) struct Tensors<'a> {
    gguf: &'a Gguf,
    taken: RefCell<HashSet<String>>,
}

impl<'a> Tensors<'a> {
    fn find(&self, name: &str) -> Option<&'a Tensor> {
        let tensor = self.gguf.tensor(name)?;
        self.taken.borrow_mut().insert(name.to_owned());
        Some(tensor)
    }

    fn require(&self, name: &str) -> Result<&'a Tensor, ModelError> {
        self.taken.borrow_mut().insert(name.to_owned());
        Ok(self.gguf.require(name)?)
    }

    fn layer(&self, index: usize, config: &Config) -> Result<Layer, ModelError> {
        let arch = config.arch;
        let width = config.width;
        let name = |part: &str| format!("blk.{index}.{part}");
        let norm = |part: &str, n: usize| self.vector(&name(&format!("{part}.weight")), n);
        let optional_norm =
            |wanted: bool, part: &str, n: usize| wanted.then(|| norm(part, n)).transpose();
        let linear = |part: &str, n_in, n_out| self.linear(&name(part), n_in, n_out);
        let [q, k, v] = self.attention_inputs(index, config)?;
        let before = arch.norms != BlockNorms::Behind;
        let behind = arch.norms != BlockNorms::Before;
        let qk_norm = arch.qk_norm != QkNorm::None;
        let [q_normed, k_normed] = match arch.qk_norm {
            QkNorm::Projection => [config.q_width(), config.kv_width()],
            QkNorm::None | QkNorm::Head => [config.head_dim; 2],
        };
        Ok(Layer {
            attn_norm: optional_norm(before, "attn_norm", width)?,
            q,
            k,
            v,
            attn_output: linear("attn_output", config.q_width(), width)?,
            q_norm: optional_norm(qk_norm, "attn_q_norm", q_normed)?,
            k_norm: optional_norm(qk_norm, "attn_k_norm", k_normed)?,
            post_attn_norm: optional_norm(behind, "post_attention_norm", width)?,
            ffn_norm: optional_norm(before, "ffn_norm", width)?,
            ffn: match &config.experts {
                Some(counts) => FeedForward::Experts(self.experts(index, width, counts)?),
                None => FeedForward::Dense(self.network(index, config)?),
            },
            post_ffn_norm: optional_norm(behind, "post_ffw_norm", width)?,
        })
    }

    /// Q, K and V: three matrices, or the rows of one, `attn_qkv`. Biases may be fused or not on their own.
    fn attention_inputs(&self, index: usize, config: &Config) -> Result<[Linear; 3], ModelError> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (width, q, kv) = (config.width, config.q_width(), config.kv_width());
        let Some(fused) = self.find(&name("attn_qkv.weight")) else {
            return Ok([
                self.linear(&name("attn_q"), width, q)?,
                self.linear(&name("attn_k"), width, kv)?,
                self.linear(&name("attn_v"), width, kv)?,
            ]);
        };
        expect_shape(fused, &[width, q + 2 * kv])?;
        let fused_bias = self.optional_vector(&name("attn_qkv.bias"), q + 2 * kv)?;
        let part = |part: &str, rows: Range<usize>| {
            let bias = match &fused_bias {
                Some(bias) => Some(bias[rows.clone()].to_vec()),
                None => self.optional_vector(&name(&format!("{part}.bias")), rows.len())?,
            };
            let weight = fused.rows(rows);
            Ok::<_, ModelError>(Linear { weight, bias })
        };
        Ok([
            part("attn_q", 0..q)?,
            part("attn_k", q..q + kv)?,
            part("attn_v", q + kv..q + 2 * kv)?,
        ])
    }

    fn network(&self, index: usize, config: &Config) -> Result<GatedNetwork, ModelError> {
        let (width, ffn) = (config.width, config.ffn_width);
        let name = |part: &str| format!("blk.{index}.{part}");
        let [gate, up] = match config.arch.gate_in_up {
            true => self.gate_in_up(index, config)?,
            false => [
                self.linear(&name("ffn_gate"), width, ffn)?,
                self.linear(&name("ffn_up"), width, ffn)?,
            ],
        };
        let down = self.linear(&name("ffn_down"), ffn, width)?;
        Ok(GatedNetwork { gate, up, down })
    }

    /// The gate and the other factor: the first and the last rows of `ffn_up`.
    fn gate_in_up(&self, index: usize, config: &Config) -> Result<[Linear; 2], ModelError> {
        let (width, ffn) = (config.width, config.ffn_width);
        let fused = self.require(&format!("blk.{index}.ffn_up.weight"))?;
        expect_shape(fused, &[width, 2 * ffn])?;
        Ok([0..ffn, ffn..2 * ffn].map(|rows| Linear {
            weight: fused.rows(rows),
            bias: None,
        }))
    }

    /// A matrix `{name}.weight`, and `{name}.bias` where the file has it: whether a model was trained with
    /// biases is not told by its architecture.
    pub(super) fn linear(
        &self,
        name: &str,
        n_in: usize,
        n_out: usize,
    ) -> Result<Linear, ModelError> {
        let weight = self.require(&format!("{name}.weight"))?.clone();
        expect_shape(&weight, &[n_in, n_out])?;
        let bias = self.optional_vector(&format!("{name}.bias"), n_out)?;
        Ok(Linear { weight, bias })
    }

    fn optional_vector(&self, name: &str, n: usize) -> Result<Option<Vec<f32>>, ModelError> {
        self.find(name).map(|_| self.vector(name, n)).transpose()
    }

    /// The tensor `name` of shape `dims`, the fastest first.
    pub(super) fn tensor(&self, name: &str, dims: &[usize]) -> Result<Tensor, ModelError> {
        let tensor = self.require(name)?;
        expect_shape(tensor, dims)?;
        Ok(tensor.clone())
    }

    pub(super) fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>, ModelError> {
        let tensor = self.require(name)?;
        expect_shape(tensor, &[n])?;
        Ok(tensor.to_f32())
    }
}

/// Checks dimensions; trailing ones (`[n, 1]`) do not count.
fn expect_shape(tensor: &Tensor, expected: &[usize]) -> Result<(), ModelError> {
    let without_ones = |dims: &[usize]| {
        let n = dims
            .iter()
            .rposition(|&dim| dim != 1)
            .map_or(0, |at| at + 1);
        dims[..n].to_vec()
    };
    if without_ones(tensor.dims()) == without_ones(expected) {
        return Ok(());
    }
    Err(ModelError::Shape {
        name: tensor.name().to_owned(),
        found: tensor.dims().to_vec(),
        expected: expected.to_vec(),
    })
}
