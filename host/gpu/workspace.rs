//! Sizes and buffers of a step's intermediate results.

use std::ops::RangeInclusive;

use kernels_gpu::abi::{
    GROUP_LOGITS, MATMUL_Q8_MAX_VECTORS, PAGE_TOKENS, decode_grid_y, decode_partial_floats,
    q8_vectors_bytes,
};

use super::buffers::buffers;
use super::expert_space::{self, ExpertSpace};
use super::products::ROW_MULTIPLE;
use crate::device::plan::MemoryPlan;
use crate::device::{Buffer, Device, Result};
use crate::model::{Config, Model};

/// Most sequences of a step.
pub const MAX_SEQUENCES: usize = 256;
/// Most biases and counts of tokens that the device takes in a step; rows that have more are the host's.
pub const MAX_ENTRIES: usize = 1 << 15;
/// Most sequences of a step that takes the matrix-vector kernels. With more of them these are bound by their
/// arithmetic: on an H100 a step of llama-8b q4_k_m took 5.8 ms with 8 vectors a kernel, and less on tensor cores
/// with 16.
pub const DECODE_SEQUENCES: usize = 4;
/// Sequences of a step whose products are in 8 bits on integer tensor cores, where a model allows it. With 3 the
/// matrix-vector kernels, which take them as 4, need as long for Qwen2.5 0.5B, and 1.16 times as long for Llama 8B.
pub const Q8_SEQUENCES: RangeInclusive<usize> = 3..=MATMUL_Q8_MAX_VECTORS as usize;
/// Prompt tokens of a step, unless asked otherwise. On an H100 a prompt of 2,048 tokens is 1.4 times as fast
/// in one step as in four (Llama 8B): the matrices are unpacked once, and the products fill the GPU.
pub const DEFAULT_CHUNK: usize = 2048;
/// Most blocks of decoding attention that share contexts: more than any GPU runs at the same time.
pub const SHARED_BLOCKS: u32 = 1024;
/// Most bytes of a weight matrix that is unpacked to f16 at a time: large enough that the product's
/// efficiency does not suffer, small beside the weights.
const DECODED_BYTES: usize = 256 << 20;

/// What the buffers are sized for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Positions of a sequence.
    pub context: usize,
    /// Pages of the KV cache.
    pub n_pages: usize,
    /// New tokens of a step; as many as there may be sequences fit in any case.
    pub max_tokens: usize,
    /// Sequences of a step, up to [`MAX_SEQUENCES`].
    pub max_sequences: usize,
}

impl Limits {
    /// The same for sequences of at most `context` positions.
    pub fn with_context(&self, context: usize) -> Limits {
        let before = self.max_pages().max(1);
        let pages = context.div_ceil(PAGE_TOKENS as usize);
        Limits {
            context,
            // As many sequences as before.
            n_pages: (self.n_pages * pages).div_ceil(before),
            max_tokens: self.max_tokens.min(context),
            ..*self
        }
    }

    /// Sequences of a step.
    pub fn sequences(&self) -> usize {
        self.max_sequences.clamp(1, MAX_SEQUENCES)
    }

    /// Tokens of a step.
    pub fn tokens(&self) -> usize {
        self.max_tokens.max(self.sequences())
    }

    /// Rows of logits that are computed at a time: those of all sequences.
    pub fn logit_rows(&self) -> usize {
        self.sequences().next_multiple_of(ROW_MULTIPLE)
    }

    /// Pages of a sequence.
    pub fn max_pages(&self) -> usize {
        self.context.div_ceil(PAGE_TOKENS as usize)
    }
}

/// The buffers of a step; shapes are `[tokens, elements]`.
pub struct Workspace {
    /// The residual stream, f32.
    pub x: Buffer,
    /// The residual stream's other place, for steps whose kernels may not write where they read.
    pub x_other: Buffer,
    /// Normed activations, f16.
    pub normed: Buffer,
    /// f32.
    pub q: Buffer,
    /// f32.
    pub k: Buffer,
    /// f32.
    pub v: Buffer,
    /// Rotated queries, f16.
    pub q_rotated: Buffer,
    /// Attention's result, f16 or f32.
    pub mixed: Buffer,
    /// Output of a block before its post-norm, f32.
    pub block_out: Buffer,
    /// The same after the post-norm.
    pub block_normed: Buffer,
    /// f32.
    pub gate: Buffer,
    /// f32.
    pub up: Buffer,
    /// The gated product, f16 or f32.
    pub gated: Buffer,
    /// What each row of `gated` was divided by where that is f16.
    pub gated_scales: Buffer,
    /// The bits of the largest magnitude of each row of `gate` and `up` where that is large, u32.
    pub gated_maxima: Buffer,
    /// Vectors in 8 bits, see [`Q8Vectors`](kernels_gpu::abi::Q8Vectors).
    pub q8_elements: Buffer,
    /// Their scales.
    pub q8_scales: Buffer,
    /// The sums of their groups.
    pub q8_sums: Buffer,
    /// Residual rows whose logits are wanted, f32 `[logit_rows, width]`.
    pub last: Buffer,
    /// f32 `[logit_rows, vocab]`.
    pub logits: Buffer,
    /// A part of a weight matrix, f16.
    pub unpacked: Buffer,
    /// Elements that fit there.
    pub unpacked_elements: usize,
    /// Rows that fit in `logits`.
    pub logit_rows: usize,
    /// Partial results of decoding attention.
    pub partial: Buffer,
    /// Counters of decoding attention, zero between launches.
    pub arrived: Buffer,
    /// Likeliest tokens, u32.
    pub tokens: Buffer,
    /// Scratch of argmax: u64 and u32 a row, zero between launches.
    pub best: Buffer,
    /// See `best`.
    pub best_arrived: Buffer,
    /// Largest logit and the logarithm of a sum, two f32 a row.
    pub logit_sums: Buffer,
    /// The largest logit of each group of a row, u32.
    pub group_maxima: Buffer,
    /// Results of experts, where the model has some.
    pub experts: Option<ExpertSpace>,
}

/// Label and bytes of each buffer, in the order of [`Workspace`]'s fields.
fn sizes(model: &Model, limits: Limits) -> [(&'static str, usize); 28] {
    let config = &model.config;
    // Results are f32 in a step that multiplies in 8 bits, and f16 in any other.
    let tokens = padded_tokens(limits);
    let (sequences, logit_rows) = (limits.sequences(), limits.logit_rows());
    // Experts may be all that there is.
    let (width, ffn, vocab) = (config.width, config.ffn_width.max(4), model.vocab());
    let (q, kv) = (config.q_width(), config.kv_width());
    let grid_y = grid_y(config) as usize;
    let longest = width.max(q).max(ffn) as u32;
    let [q8_elements, q8_scales] = q8_vectors_bytes(longest, MATMUL_Q8_MAX_VECTORS);
    let partial = decode_partial_floats(config.head_dim as u32, SHARED_BLOCKS, 1);
    [
        ("residual stream", 4 * tokens * width),
        ("residual stream, other", 4 * tokens * width),
        ("normed activations", 2 * tokens * width),
        ("queries", 4 * tokens * q),
        ("keys", 4 * tokens * kv),
        ("values", 4 * tokens * kv),
        ("rotated queries", 2 * tokens * q),
        ("attention result", 2 * tokens * q),
        ("block output", 4 * tokens * width),
        ("block output, normed", 4 * tokens * width),
        ("gate", 4 * tokens * ffn),
        ("up", 4 * tokens * ffn),
        ("gated", 2 * tokens * ffn),
        ("gated, scales", 4 * tokens),
        ("gated, maxima", 4 * tokens),
        ("encoded vectors", q8_elements as usize),
        ("encoded vectors, scales", q8_scales as usize),
        ("encoded vectors, sums", q8_scales as usize),
        ("last residual rows", 4 * logit_rows * width),
        ("logits", 4 * logit_rows * vocab),
        ("unpacked weights", unpacked_bytes(model)),
        ("attention parts", 4 * partial as usize),
        ("attention counters", 4 * sequences * grid_y),
        ("chosen tokens", 4 * logit_rows),
        ("argmax", 8 * logit_rows),
        ("argmax counters", 4 * logit_rows),
        ("sums of logits", 8 * logit_rows),
        (
            "maxima of logits",
            4 * logit_rows * vocab.div_ceil(GROUP_LOGITS as usize),
        ),
    ]
}

/// Tokens that buffers have room for: products may compute more of them than a step has.
fn padded_tokens(limits: Limits) -> usize {
    let tokens = limits.tokens().max(2 * Q8_SEQUENCES.end());
    tokens.next_multiple_of(ROW_MULTIPLE)
}

/// Blocks in y of decoding attention that shares its context among blocks.
pub fn grid_y(config: &Config) -> u32 {
    decode_grid_y(config.n_heads as u32, config.n_kv_heads as u32)
}

fn unpacked_bytes(model: &Model) -> usize {
    let (config, vocab) = (&model.config, model.vocab());
    let rows = config.q_width().max(config.ffn_width).max(vocab);
    let row = config.width.max(config.ffn_width).max(config.q_width());
    // At least one row, however long.
    (2 * rows * row).min(DECODED_BYTES.max(2 * row))
}

/// Adds the workspace to `plan`, as one entry.
pub fn plan(plan: &mut MemoryPlan, model: &Model, limits: Limits) {
    let experts = expert_space::sizes(&model.config, limits.tokens());
    let sizes = sizes(model, limits).into_iter().chain(experts);
    plan.add_each("workspace", sizes.map(|(_, bytes)| bytes as u64));
}

impl Workspace {
    /// Allocates the buffers. Counters begin at 0 and all else as no numbers.
    pub fn new(device: &dyn Device, model: &Model, limits: Limits) -> Result<Workspace> {
        let mut next = buffers(device, &sizes(model, limits))?;
        let workspace = Workspace {
            x: next()?,
            x_other: next()?,
            normed: next()?,
            q: next()?,
            k: next()?,
            v: next()?,
            q_rotated: next()?,
            mixed: next()?,
            block_out: next()?,
            block_normed: next()?,
            gate: next()?,
            up: next()?,
            gated: next()?,
            gated_scales: next()?,
            gated_maxima: next()?,
            q8_elements: next()?,
            q8_scales: next()?,
            q8_sums: next()?,
            last: next()?,
            logits: next()?,
            unpacked: next()?,
            unpacked_elements: unpacked_bytes(model) / 2,
            logit_rows: limits.logit_rows(),
            partial: next()?,
            arrived: next()?,
            tokens: next()?,
            best: next()?,
            best_arrived: next()?,
            logit_sums: next()?,
            group_maxima: next()?,
            experts: ExpertSpace::new(device, &model.config, limits.tokens())?,
        };
        for counters in [&workspace.arrived, &workspace.best, &workspace.best_arrived] {
            device.fill(counters.all(), 0)?;
        }
        Ok(workspace)
    }
}
