//! The small operations of a step, which all kinds of steps share.

use kernels_gpu::abi::{
    BiasParams, DevicePtr, EmbedParams, NO_WINDOW, ROPE_ADJACENT, ROPE_HALVES, RmsNormParams,
    UNPACK_WARPS, UnpackPlan,
};
use kernels_gpu::ops::elementwise::BIAS_F32;
use kernels_gpu::ops::embed;
use kernels_gpu::ops::norm::RMS_NORM_F16;
use kernels_gpu::prim::scale::inverse;

use super::GpuBackend;
use super::launcher::{Geometry, at, untyped};
use super::scales::HalfRows;
use super::trace::DeviceTracer;
use super::weights::GpuLinear;
use crate::backend::SequenceStep;
use crate::device::{Buffer, Result};
use crate::model::RopePairing;

/// A norm whose output is multiplied in f16.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    /// Its weight.
    pub weight: &'a Buffer,
    /// What its output is divided by.
    pub scale: f32,
    /// What the input's rows were divided by, and are multiplied by first.
    pub x_scales: Option<&'a Buffer>,
    /// A number for each row that becomes 0.
    pub cleared: Option<&'a Buffer>,
}

impl<'a> Norm<'a> {
    /// A norm of rows as they are.
    pub fn new(weight: &'a Buffer, scale: f32) -> Norm<'a> {
        Norm {
            weight,
            scale,
            x_scales: None,
            cleared: None,
        }
    }
}

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
    pub(super) fn norm_rows<'a>(
        &'a self,
        x: &Buffer,
        first_row: usize,
        norm: Norm<'_>,
        rows: usize,
    ) -> Result<HalfRows<'a>> {
        let or_null = |buffer: Option<&Buffer>| buffer.map_or(0, Buffer::addr);
        let params = RmsNormParams {
            x_scales: DevicePtr::from_address(or_null(norm.x_scales)),
            cleared: DevicePtr::from_address(or_null(norm.cleared)),
            factor: inverse(norm.scale),
            ..self.norm_params(x, first_row, norm.weight, &self.workspace.normed)
        };
        let block = norm_block(self.model.config.width);
        // SAFETY: both have `rows` rows of `width`, and the weight `width` elements.
        unsafe {
            let geometry = Geometry::new([rows as u32, 1, 1], block);
            self.launcher.launch(&RMS_NORM_F16, geometry, &params)
        }?;
        Ok(HalfRows::normed(&self.workspace, rows, norm.scale))
    }

    /// The last norm.
    pub(super) fn output_norm(&self) -> Norm<'_> {
        Norm::new(&self.weights.output_norm, self.norm_scales.output)
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
            x_scales: DevicePtr::NULL,
            cleared: DevicePtr::NULL,
            width,
            heads: 1,
            x_stride: width,
            y_stride: width,
            epsilon: config.rms_eps,
            factor: 1.0,
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
