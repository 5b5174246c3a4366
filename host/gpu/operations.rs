//! The small operations of a step, which all kinds of steps share.

use kernels_gpu::abi::{
    BiasParams, DevicePtr, EmbedParams, GatedParams, KernelDef, NO_WINDOW, ROPE_ADJACENT,
    ROPE_HALVES, RmsNormParams, UNPACK_WARPS, UnpackPlan,
};
use kernels_gpu::ops::elementwise::BIAS_F32;
use kernels_gpu::ops::embed;
use kernels_gpu::ops::norm::RMS_NORM_F16;

use super::GpuBackend;
use super::launcher::{Geometry, at, untyped};
use super::trace::DeviceTracer;
use super::weights::GpuLinear;
use crate::backend::SequenceStep;
use crate::device::{Buffer, Result};
use crate::model::RopePairing;

impl GpuBackend {
    /// The residual stream before the first block.
    pub(super) fn embed(&self, n_tokens: usize, trace: &mut DeviceTracer<'_>) -> Result<()> {
        let (config, table) = (&self.model.config, &self.weights.token_embd);
        let plan = UnpackPlan::embed(table.ty, n_tokens as u32, config.width as u32);
        let geometry = Geometry {
            grid: plan.grid,
            block: 32 * UNPACK_WARPS,
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

    /// What the kernels for a row's norm are told of rows of the residual stream's width.
    pub(super) fn norm_params(
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

    /// Adds the bias, if there is one, to `rows` rows of products.
    pub(super) fn add_bias(&self, linear: &GpuLinear, x: &Buffer, rows: usize) -> Result<()> {
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

    /// The kernels' number of a layer's pairing.
    pub(super) fn pairing(&self, layer: usize) -> u32 {
        match self.model.config.rope(layer).pairing {
            RopePairing::Adjacent => ROPE_ADJACENT,
            RopePairing::Halves => ROPE_HALVES,
        }
    }

    /// The kernels' number of a layer's window.
    pub(super) fn window(&self, layer: usize) -> u32 {
        let window = self.model.config.layers[layer].window;
        window.map_or(NO_WINDOW, |tokens| tokens as u32)
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
}

/// Threads for a row of `width`: four elements each.
pub fn norm_block(width: usize) -> u32 {
    (width.div_ceil(4) as u32).next_multiple_of(32).min(1024)
}
