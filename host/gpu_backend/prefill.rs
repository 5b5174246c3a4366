//! Steps of many tokens: quantized matrices are multiplied straight from their blocks with few tokens, and
//! decoded to f16 for cuBLAS with more.

use kernels_gpu::abi::{
    AddParams, AttentionPrefillParams, BiasParams, DECODE_WARPS, DecodePlan, DequantizeParams,
    DevicePtr, EmbedParams, GatedParams, KernelDef, NO_WINDOW, PREFILL_TILE_ROWS, ROPE_ADJACENT,
    ROPE_HALVES, RmsNormParams, RopeKvParams, WeightType, prefill_shared_bytes,
};
use kernels_gpu::ops::attention_prefill::*;
use kernels_gpu::ops::elementwise::{ADD_F32, BIAS_F32, GEGLU_F32_F16, SWIGLU_F32_F16};
use kernels_gpu::ops::norm::{RMS_NORM_F16, RMS_NORM_F32};
use kernels_gpu::ops::rope_kv::ROPE_KV;
use kernels_gpu::ops::{dequantize, embed};

use super::GpuBackend;
use super::launcher::{Geometry, at, untyped};
use super::trace::DeviceTracer;
use super::weights::{GpuLayer, GpuLinear, GpuMatrix, optional};
use crate::backend::{Output, SequenceStep};
use crate::gpu::{Buffer, Gemm, GemmType, Matrix, Result};
use crate::model::{Activation, RopePairing};

/// Rows of a row-major f32 matrix where a product goes.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Where row 0 begins.
    pub buffer: &'a Buffer,
    /// Elements from row to row.
    pub stride: usize,
    /// Whether the product is added to what is there.
    pub accumulate: bool,
}

impl GpuBackend {
    /// Runs a step of any tokens.
    pub(super) fn prefill(
        &mut self,
        sequences: &[SequenceStep<'_>],
        trace: &mut DeviceTracer<'_>,
    ) -> Result<Vec<Output>> {
        let n_tokens = sequences.iter().map(|step| step.tokens.len()).sum();
        self.embed(n_tokens, trace)?;
        for layer in 0..self.model.config.n_layers {
            trace.layer = Some(layer);
            self.prefill_attention(layer, n_tokens, sequences, trace)?;
            self.prefill_feed_forward(layer, n_tokens, trace)?;
        }
        trace.layer = None;
        self.prefill_outputs(sequences, trace)
    }

    /// The residual stream before the first block.
    pub(super) fn embed(&self, n_tokens: usize, trace: &mut DeviceTracer<'_>) -> Result<()> {
        let (config, table) = (&self.model.config, &self.weights.token_embd);
        let plan = DecodePlan::embed(table.ty, n_tokens as u32, config.width as u32);
        let geometry = Geometry {
            grid: plan.grid,
            block: 32 * DECODE_WARPS,
            shared_bytes: plan.shared_bytes,
        };
        let params = EmbedParams {
            table: at(&table.blocks, 0),
            tokens: self.inputs.token_ids(),
            y: at(&self.workspace.x, 0),
            width: config.width as u32,
            rows: table.n_out as u32,
            scale: config.embedding_scale,
            reserved: 0,
        };
        // SAFETY: the plan is for this table, whose rows the token ids were checked against.
        unsafe {
            self.launcher
                .launch(&embed::kernel(table.ty), geometry, &params)
        }?;
        let name = if config.arch.scale_embeddings {
            "inp_scaled"
        } else {
            "embd"
        };
        trace.residual(name, config.width, &self.workspace.x)
    }

    fn prefill_attention(
        &self,
        layer: usize,
        n_tokens: usize,
        sequences: &[SequenceStep<'_>],
        trace: &mut DeviceTracer<'_>,
    ) -> Result<()> {
        let (config, w) = (&self.model.config, &self.workspace);
        let weights = &self.weights.layers[layer];
        let (width, q_width, kv_width) = (config.width, config.q_width(), config.kv_width());

        self.norm_rows(&w.x, 0, &weights.attn_norm, n_tokens)?;
        trace.f16("attn_norm", width, &w.normed)?;
        for (linear, out, name, elements) in [
            (&weights.q, &w.q, "Qcur_raw", q_width),
            (&weights.k, &w.k, "Kcur_raw", kv_width),
            (&weights.v, &w.v, "Vcur", kv_width),
        ] {
            self.product(&linear.matrix, &w.normed, n_tokens, dense(out, elements))?;
            self.add_bias(linear, out, n_tokens)?;
            trace.f32(name, elements, out)?;
        }
        self.rotate_and_cache(layer, n_tokens, weights)?;
        trace.f16("Qcur", q_width, &w.q_rotated)?;
        self.trace_cache(layer, sequences, trace)?;
        self.attend(layer, sequences)?;
        trace.f16("kqv_out", q_width, &w.mixed)?;
        let names = match weights.post_attn_norm {
            Some(_) => ["attn_out", "attn_post_norm", "sa_out"],
            None => ["attn_out", "attn_out", "ffn_inp"],
        };
        let post_norm = weights.post_attn_norm.as_deref();
        self.add_block(
            &weights.attn_output,
            &w.mixed,
            post_norm,
            n_tokens,
            names,
            trace,
        )
    }

    fn prefill_feed_forward(
        &self,
        layer: usize,
        n_tokens: usize,
        trace: &mut DeviceTracer<'_>,
    ) -> Result<()> {
        let (config, w) = (&self.model.config, &self.workspace);
        let weights = &self.weights.layers[layer];
        let (width, ffn) = (config.width, config.ffn_width);

        self.norm_rows(&w.x, 0, &weights.ffn_norm, n_tokens)?;
        trace.f16("ffn_norm", width, &w.normed)?;
        for (linear, out, name) in [
            (&weights.ffn_gate, &w.gate, "ffn_gate"),
            (&weights.ffn_up, &w.up, "ffn_up"),
        ] {
            self.product(&linear.matrix, &w.normed, n_tokens, dense(out, ffn))?;
            self.add_bias(linear, out, n_tokens)?;
            trace.f32(name, ffn, out)?;
        }
        let (kernel, name) = match config.activation() {
            Activation::Silu => (SWIGLU_F32_F16, "ffn_swiglu"),
            Activation::GeluTanh => (GEGLU_F32_F16, "ffn_geglu"),
        };
        self.gate(&kernel, n_tokens)?;
        trace.f16(name, ffn, &w.gated)?;
        let post_norm = weights.post_ffn_norm.as_deref();
        let names = ["ffn_out", "ffn_post_norm", "l_out"];
        self.add_block(
            &weights.ffn_down,
            &w.gated,
            post_norm,
            n_tokens,
            names,
            trace,
        )
    }

    /// Adds a block's last product to the residual stream, normed where the architecture says so.
    /// `names` are those of the product, of its norm and of the sum.
    fn add_block(
        &self,
        linear: &GpuLinear,
        input: &Buffer,
        post_norm: Option<&Buffer>,
        n_tokens: usize,
        [product_name, norm_name, sum_name]: [&'static str; 3],
        trace: &mut DeviceTracer<'_>,
    ) -> Result<()> {
        let (width, w) = (self.model.config.width, &self.workspace);
        let Some(post_norm) = post_norm else {
            let target = Target {
                accumulate: true,
                ..dense(&w.x, width)
            };
            self.product(&linear.matrix, input, n_tokens, target)?;
            self.add_bias(linear, &w.x, n_tokens)?;
            return trace.residual_and_addend(product_name, sum_name, width, &w.x);
        };
        self.product(&linear.matrix, input, n_tokens, dense(&w.block_out, width))?;
        self.add_bias(linear, &w.block_out, n_tokens)?;
        trace.f32(product_name, width, &w.block_out)?;
        let params = self.norm_params(&w.block_out, 0, post_norm, &w.block_normed);
        let geometry = Geometry::new([n_tokens as u32, 1, 1], norm_block(width));
        // SAFETY: all three have `n_tokens` rows of `width`, and the weight `width` elements.
        unsafe { self.launcher.launch(&RMS_NORM_F32, geometry, &params) }?;
        trace.f32(norm_name, width, &w.block_normed)?;
        let n = (n_tokens * width) as u32;
        let params = AddParams {
            a: untyped(&w.x),
            b: untyped(&w.block_normed),
            y: untyped(&w.x),
            n,
            reserved: 0,
        };
        let geometry = Geometry::new([n.div_ceil(256), 1, 1], 256);
        // SAFETY: both have `n` elements.
        unsafe { self.launcher.launch(&ADD_F32, geometry, &params) }?;
        trace.residual(sum_name, width, &w.x)
    }

    /// RMSNorm of `rows` rows of the f32 matrix `x` from `first_row` on, to `normed` as f16.
    pub(super) fn norm_rows(
        &self,
        x: &Buffer,
        first_row: usize,
        weight: &Buffer,
        rows: usize,
    ) -> Result<()> {
        let params = self.norm_params(x, first_row, weight, &self.workspace.normed);
        let block = norm_block(self.model.config.width);
        // SAFETY: both have `rows` rows of `width`, and the weight `width` elements.
        unsafe {
            let geometry = Geometry::new([rows as u32, 1, 1], block);
            self.launcher.launch(&RMS_NORM_F16, geometry, &params)
        }
    }

    fn norm_params(
        &self,
        x: &Buffer,
        first_row: usize,
        weight: &Buffer,
        y: &Buffer,
    ) -> RmsNormParams {
        let config = &self.model.config;
        let width = config.width as u32;
        RmsNormParams {
            x: at(x, first_row * config.width),
            residual: DevicePtr::NULL,
            weight: at(weight, 0),
            y: untyped(y),
            width,
            heads: 1,
            x_stride: width,
            y_stride: width,
            epsilon: config.rms_eps,
            reserved: 0,
        }
    }

    /// `y = x W^T` for `rows` rows of the f16 matrix `x`.
    pub(super) fn product(
        &self,
        matrix: &GpuMatrix,
        x: &Buffer,
        rows: usize,
        y: Target<'_>,
    ) -> Result<()> {
        match self.matmul_plan(matrix, rows) {
            Some(plan) => self.matmul(matrix, x, rows, y, plan),
            None => self.decoded_product(matrix, x, rows, y),
        }
    }

    /// [`product`](Self::product) by cuBLAS; the matrix is decoded in parts that fit the workspace.
    fn decoded_product(
        &self,
        matrix: &GpuMatrix,
        x: &Buffer,
        rows: usize,
        y: Target<'_>,
    ) -> Result<()> {
        let GpuMatrix { n_in, n_out, .. } = *matrix;
        let x = Matrix::dense(x.slice(0, 2 * rows * n_in)?, GemmType::F16, rows, n_in);
        let row_bytes = matrix.ty.row_bytes(n_in as u32) as usize;
        // Parts of whole 16 rows begin at a multiple of 16 bytes in every type.
        let fitting = self.workspace.decoded_elements / n_in;
        let part_rows = match matrix.ty {
            WeightType::F16 => n_out,
            _ if fitting >= n_out => n_out,
            _ => (fitting / 16 * 16).max(1),
        };
        for first in (0..n_out).step_by(part_rows) {
            let part = part_rows.min(n_out - first);
            let blocks = matrix.blocks.slice(first * row_bytes, part * row_bytes)?;
            let decoded = match matrix.ty {
                WeightType::F16 => blocks,
                _ => {
                    self.dequantize(matrix, blocks.addr(), part)?;
                    self.workspace.decoded.slice(0, 2 * part * n_in)?
                }
            };
            let y_bytes = 4 * ((rows - 1) * y.stride + part);
            let call = Gemm {
                x,
                w: Matrix::dense(decoded, GemmType::F16, part, n_in),
                y: Matrix {
                    data: y.buffer.slice(4 * first, y_bytes)?,
                    ty: GemmType::F32,
                    rows,
                    cols: part,
                    stride: y.stride,
                },
                accumulate: y.accumulate,
            }
            .call()?;
            // SAFETY: `call` checked the extents against the slices, whose buffers live on.
            unsafe { self.launcher.device.gemm(&call) }?;
        }
        Ok(())
    }

    /// Decodes `rows` rows of `matrix` at `address` to the workspace.
    pub(super) fn dequantize(&self, matrix: &GpuMatrix, address: u64, rows: usize) -> Result<()> {
        let n = (rows * matrix.n_in) as u64;
        let multiprocessors = self.launcher.device.info().multiprocessors;
        let plan = DecodePlan::dequantize(matrix.ty, n, multiprocessors);
        let geometry = Geometry {
            grid: plan.grid,
            block: 32 * DECODE_WARPS,
            shared_bytes: plan.shared_bytes,
        };
        let params = DequantizeParams {
            weights: DevicePtr::from_address(address),
            y: untyped(&self.workspace.decoded),
            n,
        };
        // The decoded matrix is written as f16.
        let blocks = rows * matrix.ty.row_bytes(matrix.n_in as u32) as usize;
        self.launcher.moves(blocks + 2 * rows * matrix.n_in);
        // SAFETY: the caller's rows are in the matrix, and fit the workspace.
        unsafe {
            self.launcher
                .launch(&dequantize::kernel(matrix.ty), geometry, &params)
        }
    }

    /// All elements of `matrix` as the device decodes them, by their f16 bits.
    pub(super) fn decoded_matrix(&self, matrix: &GpuMatrix) -> Result<Vec<u16>> {
        let row_bytes = matrix.ty.row_bytes(matrix.n_in as u32) as usize;
        let part_rows = (self.workspace.decoded_elements / matrix.n_in / 16 * 16).max(1);
        let mut bits = vec![0u16; matrix.n_in * matrix.n_out];
        for (part, bits) in bits.chunks_mut(part_rows * matrix.n_in).enumerate() {
            let address = matrix.blocks.addr() + (part * part_rows * row_bytes) as u64;
            self.dequantize(matrix, address, bits.len() / matrix.n_in)?;
            let from = self.workspace.decoded.slice(0, 2 * bits.len())?;
            self.launcher
                .device
                .download(bytemuck::cast_slice_mut(bits), from)?;
        }
        Ok(bits)
    }

    fn add_bias(&self, linear: &GpuLinear, x: &Buffer, rows: usize) -> Result<()> {
        if linear.bias.is_none() {
            return Ok(());
        }
        let n = (rows * linear.matrix.n_out) as u32;
        let params = BiasParams {
            x: untyped(x),
            bias: linear.bias(),
            n,
            width: linear.matrix.n_out as u32,
        };
        let geometry = Geometry::new([n.div_ceil(256), 1, 1], 256);
        // SAFETY: `x` has `n` elements, the bias a row's.
        unsafe { self.launcher.launch(&BIAS_F32, geometry, &params) }
    }

    fn rotate_and_cache(&self, layer: usize, n_tokens: usize, weights: &GpuLayer) -> Result<()> {
        let (config, w) = (&self.model.config, &self.workspace);
        let rope = &self.ropes[config.layers[layer].rope];
        let params = RopeKvParams {
            q: at(&w.q, 0),
            k: at(&w.k, 0),
            v: at(&w.v, 0),
            q_bias: DevicePtr::NULL,
            k_bias: DevicePtr::NULL,
            v_bias: DevicePtr::NULL,
            q_norm: optional(&weights.q_norm),
            k_norm: optional(&weights.k_norm),
            rope: at(&rope.table, 0),
            q_out: at(&w.q_rotated, 0),
            kv: self.cache.layer(layer),
            page_table: self.inputs.page_table(),
            positions: self.inputs.positions(),
            sequences: self.inputs.sequences(),
            n_heads: config.n_heads as u32,
            n_kv_heads: config.n_kv_heads as u32,
            head_dim: config.head_dim as u32,
            pairs: rope.pairs,
            pairing: self.pairing(layer),
            q_stride: config.q_width() as u32,
            kv_stride: config.kv_width() as u32,
            max_pages: self.inputs.max_pages(),
            page_stride: self.cache.page_stride,
            epsilon: config.rms_eps,
        };
        let heads = (config.n_heads + 2 * config.n_kv_heads) as u32;
        let geometry = Geometry::new([n_tokens as u32, heads.div_ceil(4), 1], 128);
        // SAFETY: the workspace has room for `n_tokens`; `check_step` saw to pages for all positions.
        unsafe { self.launcher.launch(&ROPE_KV, geometry, &params) }
    }

    /// The kernels' number of a layer's pairing.
    pub(super) fn pairing(&self, layer: usize) -> u32 {
        match self.model.config.rope(layer).pairing {
            RopePairing::Adjacent => ROPE_ADJACENT,
            RopePairing::Halves => ROPE_HALVES,
        }
    }

    /// Reports keys and values from where the kernels put them in the cache, so that a wrong page
    /// shows.
    pub(super) fn trace_cache(
        &self,
        layer: usize,
        sequences: &[SequenceStep<'_>],
        trace: &mut DeviceTracer<'_>,
    ) -> Result<()> {
        if !trace.wants("Kcur") {
            return Ok(());
        }
        let config = &self.model.config;
        let mut keys = Vec::new();
        for step in sequences {
            for position in step.start..step.end() {
                let page_tokens = crate::backend::PAGE_TOKENS;
                let place = (step.pages[position / page_tokens], position % page_tokens);
                let device = &*self.launcher.device;
                let heads = 0..config.n_kv_heads;
                keys.extend(
                    self.cache
                        .read_head(device, layer, place, heads, config.head_dim)?,
                );
            }
        }
        trace.f16_values("Kcur", config.kv_width(), &keys);
        Ok(())
    }

    fn attend(&self, layer: usize, sequences: &[SequenceStep<'_>]) -> Result<()> {
        let (config, w) = (&self.model.config, &self.workspace);
        let most = sequences.iter().map(|step| step.tokens.len()).max();
        let rows = (most.unwrap_or(0) * config.group_size()) as u32;
        let (kernel, row_tiles) = prefill_kernel(config.head_dim, rows);
        let params = AttentionPrefillParams {
            q: at(&w.q_rotated, 0),
            out: at(&w.mixed, 0),
            kv: self.cache.layer(layer),
            page_table: self.inputs.page_table(),
            query_starts: self.inputs.query_starts(),
            first_positions: self.inputs.first_positions(),
            n_heads: config.n_heads as u32,
            n_kv_heads: config.n_kv_heads as u32,
            max_pages: self.inputs.max_pages(),
            page_stride: self.cache.page_stride,
            window: self.window(layer),
            scale: config.attention_scale,
        };
        let geometry = Geometry {
            grid: [
                rows.div_ceil(PREFILL_TILE_ROWS * row_tiles),
                config.n_kv_heads as u32,
                sequences.len() as u32,
            ],
            block: 128,
            shared_bytes: prefill_shared_bytes(config.head_dim as u32, row_tiles),
        };
        // SAFETY: the workspace has room for all tokens; `check_step` saw to pages for all positions.
        unsafe { self.launcher.launch(&kernel, geometry, &params) }
    }

    /// The kernels' number of a layer's window.
    pub(super) fn window(&self, layer: usize) -> u32 {
        let window = self.model.config.layers[layer].window;
        window.map_or(NO_WINDOW, |tokens| tokens as u32)
    }

    /// The gated product of `gate` and `up`, to `gated` in the kernel's type.
    pub(super) fn gate(&self, kernel: &KernelDef<GatedParams>, rows: usize) -> Result<()> {
        let (ffn, w) = (self.model.config.ffn_width as u32, &self.workspace);
        let params = GatedParams {
            gate: untyped(&w.gate),
            up: untyped(&w.up),
            y: untyped(&w.gated),
            width: ffn,
            rows: rows as u32,
            gate_stride: ffn,
            up_stride: ffn,
            y_stride: ffn,
            reserved: 0,
        };
        let geometry = Geometry::new([ffn.div_ceil(256), rows as u32, 1], 256);
        // SAFETY: all three have `rows` rows of `ffn` elements.
        unsafe { self.launcher.launch(kernel, geometry, &params) }
    }
}

/// A target without padding.
pub fn dense(buffer: &Buffer, stride: usize) -> Target<'_> {
    Target {
        buffer,
        stride,
        accumulate: false,
    }
}

/// Threads for a row of `width`: four elements each.
fn norm_block(width: usize) -> u32 {
    (width.div_ceil(4) as u32).next_multiple_of(32).min(1024)
}

/// The kernel for a head size and rows of a KV head, and its row tiles: two where there are rows
/// enough that half as many blocks still fill the GPU.
fn prefill_kernel(head_dim: usize, rows: u32) -> (KernelDef<AttentionPrefillParams>, u32) {
    const MANY_ROWS: u32 = 1024;
    match (head_dim, rows >= MANY_ROWS) {
        (32, _) => (ATTENTION_PREFILL_32, 1),
        (64, false) => (ATTENTION_PREFILL_64, 1),
        (64, true) => (ATTENTION_PREFILL_64_WIDE, 2),
        (80, _) => (ATTENTION_PREFILL_80, 1),
        (96, _) => (ATTENTION_PREFILL_96, 1),
        (128, false) => (ATTENTION_PREFILL_128, 1),
        (128, true) => (ATTENTION_PREFILL_128_WIDE, 2),
        _ => (ATTENTION_PREFILL_256, 1),
    }
}
