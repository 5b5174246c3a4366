//! Launches of `norm`: RMSNorm of rows of the residual stream, and of all heads of a token.

use kernels_gpu::abi::{DevicePtr, RmsNormParams, norm_threads};
use kernels_gpu::ops::norm::{RMS_NORM_F16, RMS_NORM_F32, ROWS_F16};
use kernels_gpu::prim::scale::inverse;

use crate::device::{Buffer, Result};
use crate::gpu::launcher::{Geometry, at, untyped};
use crate::gpu::pass::Pass;
use crate::gpu::scales::{HalfRows, stream_epsilon};
use crate::model::QkNorm;

/// A norm whose output is multiplied in f16.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    /// Its weight; without one rows stay as they are.
    pub weight: Option<&'a Buffer>,
    /// What its output is divided by.
    pub scale: f32,
    /// What the input's rows were divided by, and are multiplied by first.
    pub x_scales: Option<&'a Buffer>,
    /// A number for each row that becomes 0.
    pub cleared: Option<&'a Buffer>,
}

impl<'a> Norm<'a> {
    /// A norm of rows that were not divided.
    pub fn new(weight: Option<&'a Buffer>, scale: f32) -> Norm<'a> {
        Norm {
            weight,
            scale,
            x_scales: None,
            cleared: None,
        }
    }
}

impl<'a> Pass<'a> {
    /// RMSNorm of `rows` rows of the f32 matrix `x` from `first_row` on, to `normed` as f16.
    pub fn norm_rows(
        &self,
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
            epsilon: stream_epsilon(self.config),
            ..self.norm_params(x, first_row, norm.weight, &self.workspace.normed)
        };
        let kernel = match norm.weight {
            Some(_) => RMS_NORM_F16,
            None => ROWS_F16,
        };
        let block = norm_threads(self.config.width as u32);
        // SAFETY: both have `rows` rows of `width`, and the weight `width` elements.
        unsafe {
            let geometry = Geometry::new([rows as u32, 1, 1], block);
            self.launcher.launch(&kernel, geometry, &params)
        }?;
        Ok(HalfRows::normed(self.workspace, rows, norm.scale))
    }

    /// The last norm.
    pub fn output_norm(&self) -> Norm<'_> {
        Norm::new(Some(&self.weights.output_norm), self.norm_scales.output)
    }

    /// RMSNorm of `rows` rows of a block's output, which were divided by `x_scales`, to `block_normed` as f32.
    pub fn norm_block_output(
        &self,
        weight: &Buffer,
        x_scales: Option<&Buffer>,
        rows: usize,
    ) -> Result<()> {
        let w = self.workspace;
        let params = RmsNormParams {
            x_scales: x_scales.map_or(DevicePtr::NULL, |scales| at(scales, 0)),
            ..self.norm_params(&w.block_out, 0, Some(weight), &w.block_normed)
        };
        let geometry = Geometry::new([rows as u32, 1, 1], norm_threads(self.config.width as u32));
        // SAFETY: both have `rows` rows of `width`, and the weight `width` elements.
        unsafe { self.launcher.launch(&RMS_NORM_F32, geometry, &params) }
    }

    /// RMSNorm of Q and of K of the step's `n_tokens` tokens over all heads together, in place, where the model has
    /// it: a head's own norm is attention's.
    pub fn norm_projections(&self, layer: usize, n_tokens: usize) -> Result<()> {
        let (config, w) = (self.config, self.workspace);
        if config.arch.qk_norm != QkNorm::Projection {
            return Ok(());
        }
        let weights = &self.weights.layers[layer];
        let projections = [
            (&w.q, &weights.q_norm, config.q_width(), "Qcur_normed"),
            (&w.k, &weights.k_norm, config.kv_width(), "Kcur_normed"),
        ];
        for (x, norm, width, name) in projections {
            let params = RmsNormParams {
                width: width as u32,
                x_stride: width as u32,
                y_stride: width as u32,
                ..self.norm_params(x, 0, norm.as_deref(), x)
            };
            let geometry = Geometry::new([n_tokens as u32, 1, 1], norm_threads(width as u32));
            // SAFETY: there are `n_tokens` rows of `width`, and the weight has `width` elements.
            unsafe { self.launcher.launch(&RMS_NORM_F32, geometry, &params) }?;
            self.trace.f32(name, width, x)?;
        }
        Ok(())
    }

    /// What the kernels for a row's norm are told of rows of the residual stream's width.
    pub fn norm_params(
        &self,
        x: &Buffer,
        first_row: usize,
        weight: Option<&Buffer>,
        y: &Buffer,
    ) -> RmsNormParams {
        let config = self.config;
        let width = config.width as u32;
        RmsNormParams {
            x: at(x, first_row * config.width),
            weight: weight.map_or(DevicePtr::NULL, |weight| at(weight, 0)),
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
}
