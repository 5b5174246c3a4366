//! A model's weights: matrices stay quantized views of the file, vectors are decoded.

use super::config::Config;
use super::error::ModelError;
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

/// The weights of one transformer block. Norms are `[width]` unless said otherwise.
#[derive(Clone)]
pub struct Layer {
    /// RMSNorm before attention.
    pub attn_norm: Vec<f32>,
    /// `[q_width, width]`.
    pub q: Linear,
    /// `[kv_width, width]`.
    pub k: Linear,
    /// `[kv_width, width]`.
    pub v: Linear,
    /// `[width, q_width]`.
    pub attn_output: Linear,
    /// RMSNorm of each query head, `[head_dim]`.
    pub q_norm: Option<Vec<f32>>,
    /// RMSNorm of each key head, `[head_dim]`.
    pub k_norm: Option<Vec<f32>>,
    /// RMSNorm after attention.
    pub post_attn_norm: Option<Vec<f32>>,
    /// RMSNorm before the feed-forward block.
    pub ffn_norm: Vec<f32>,
    /// `[ffn_width, width]`, goes through the activation.
    pub ffn_gate: Linear,
    /// `[ffn_width, width]`, multiplied by the activated gate.
    pub ffn_up: Linear,
    /// `[width, ffn_width]`.
    pub ffn_down: Linear,
    /// RMSNorm after the feed-forward block.
    pub post_ffn_norm: Option<Vec<f32>>,
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
    /// Finds and checks every tensor that `config` asks for.
    pub fn from_gguf(gguf: &Gguf, config: &Config) -> Result<Weights, ModelError> {
        let tensors = Tensors { gguf };
        let token_embd = gguf.require("token_embd.weight")?.clone();
        let vocab = token_embd.n_rows();
        expect_shape(&token_embd, &[config.width, vocab])?;
        let output = match gguf.tensor("output.weight") {
            Some(_) => tensors.linear("output", config.width, vocab, false)?,
            None => Linear {
                weight: token_embd.clone(),
                bias: None,
            },
        };
        Ok(Weights {
            token_embd,
            layers: (0..config.n_layers)
                .map(|index| tensors.layer(index, config))
                .collect::<Result<_, _>>()?,
            output_norm: tensors.vector("output_norm.weight", config.width)?,
            output,
        })
    }
}

/// Looks tensors up by GGUF's names and checks their shapes.
struct Tensors<'a> {
    gguf: &'a Gguf,
}

impl Tensors<'_> {
    fn layer(&self, index: usize, config: &Config) -> Result<Layer, ModelError> {
        let arch = config.arch;
        let (width, ffn) = (config.width, config.ffn_width);
        let (q, kv) = (config.q_width(), config.kv_width());
        let name = |part: &str| format!("blk.{index}.{part}");
        let norm = |part: &str, n: usize| self.vector(&name(&format!("{part}.weight")), n);
        let optional_norm =
            |wanted: bool, part: &str, n: usize| wanted.then(|| norm(part, n)).transpose();
        let linear = |part: &str, n_in, n_out, bias| self.linear(&name(part), n_in, n_out, bias);
        Ok(Layer {
            attn_norm: norm("attn_norm", width)?,
            q: linear("attn_q", width, q, arch.qkv_bias)?,
            k: linear("attn_k", width, kv, arch.qkv_bias)?,
            v: linear("attn_v", width, kv, arch.qkv_bias)?,
            attn_output: linear("attn_output", q, width, false)?,
            q_norm: optional_norm(arch.qk_norm, "attn_q_norm", config.head_dim)?,
            k_norm: optional_norm(arch.qk_norm, "attn_k_norm", config.head_dim)?,
            post_attn_norm: optional_norm(arch.post_norms, "post_attention_norm", width)?,
            ffn_norm: norm("ffn_norm", width)?,
            ffn_gate: linear("ffn_gate", width, ffn, false)?,
            ffn_up: linear("ffn_up", width, ffn, false)?,
            ffn_down: linear("ffn_down", ffn, width, false)?,
            post_ffn_norm: optional_norm(arch.post_norms, "post_ffw_norm", width)?,
        })
    }

    /// A matrix `{name}.weight`. A bias that the file has is used even where the architecture does
    /// not require one: leaving it out would give wrong text without any error.
    fn linear(
        &self,
        name: &str,
        n_in: usize,
        n_out: usize,
        needs_bias: bool,
    ) -> Result<Linear, ModelError> {
        let weight = self.gguf.require(&format!("{name}.weight"))?.clone();
        expect_shape(&weight, &[n_in, n_out])?;
        let bias_name = format!("{name}.bias");
        let has_bias = needs_bias || self.gguf.tensor(&bias_name).is_some();
        let bias = has_bias
            .then(|| self.vector(&bias_name, n_out))
            .transpose()?;
        Ok(Linear { weight, bias })
    }

    fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>, ModelError> {
        let tensor = self.gguf.require(name)?;
        expect_shape(tensor, &[n])?;
        Ok(tensor.to_f32())
    }
}

/// Checks dimensions; trailing ones in the file (`[n, 1]`) do not count.
fn expect_shape(tensor: &Tensor, expected: &[usize]) -> Result<(), ModelError> {
    let (shared, rest) = tensor
        .dims()
        .split_at(expected.len().min(tensor.dims().len()));
    if shared == expected && rest.iter().all(|&dim| dim == 1) {
        return Ok(());
    }
    Err(ModelError::Shape {
        name: tensor.name().to_owned(),
        found: tensor.dims().to_vec(),
        expected: expected.to_vec(),
    })
}
