//! Launches of `elementwise`: sums, biases, gates and scales of rows.

use kernels_gpu::abi::{
    AddParams, BiasParams, ELEMENTWISE_THREADS, GatedParams, KernelDef, RestoreParams,
};
use kernels_gpu::ops::elementwise::{ADD_F32, BIAS_F32, RESTORE_ROWS};

use crate::device::{Buffer, Result};
use crate::gpu::launcher::{Geometry, at};
use crate::gpu::pass::Pass;
use crate::gpu::weights::GpuLinear;

impl Pass<'_> {
    /// Adds `block_normed` to `rows` rows of the residual stream.
    pub fn add_block_output(&self, rows: usize) -> Result<()> {
        let w = self.workspace;
        let n = (rows * self.config.width) as u32;
        let params = AddParams {
            a: at(&w.x, 0),
            b: at(&w.block_normed, 0),
            y: at(&w.x, 0),
            n,
            reserved: 0,
        };
        let geometry = Geometry::new([n.div_ceil(ELEMENTWISE_THREADS), 1, 1], ELEMENTWISE_THREADS);
        // SAFETY: both have `n` elements.
        unsafe { self.launcher.launch(&ADD_F32, geometry, &params) }
    }

    /// Adds the bias, if there is one, to `rows` rows of products.
    pub fn add_bias(&self, linear: &GpuLinear, x: &Buffer, rows: usize) -> Result<()> {
        if linear.bias.is_none() {
            return Ok(());
        }
        let n = (rows * linear.matrix.n_out) as u32;
        let params = BiasParams {
            x: at(x, 0),
            bias: linear.bias(),
            n,
            width: linear.matrix.n_out as u32,
        };
        let geometry = Geometry::new([n.div_ceil(ELEMENTWISE_THREADS), 1, 1], ELEMENTWISE_THREADS);
        // SAFETY: `x` has `n` elements, the bias a row's.
        unsafe { self.launcher.launch(&BIAS_F32, geometry, &params) }
    }

    /// The gated product of `gate` and `up` to `gated`, in f32.
    pub fn gate(&self, kernel: &KernelDef<GatedParams>, rows: usize) -> Result<()> {
        let (ffn, w) = (self.config.ffn_width as u32, self.workspace);
        let params = GatedParams {
            gate: at(&w.gate, 0),
            up: at(&w.up, 0),
            y: at(&w.gated, 0),
            width: ffn,
            rows: rows as u32,
            gate_stride: ffn,
            up_stride: ffn,
            y_stride: ffn,
            reserved: 0,
        };
        let geometry = Geometry::new(
            [ffn.div_ceil(ELEMENTWISE_THREADS), rows as u32, 1],
            ELEMENTWISE_THREADS,
        );
        // SAFETY: all three have `rows` rows of `ffn` elements.
        unsafe { self.launcher.launch(kernel, geometry, &params) }
    }

    /// Multiplies `rows` rows of `x`, of the residual stream's width, by `gated_scales`, which become 1.
    pub fn restore_rows(&self, x: &Buffer, rows: usize) -> Result<()> {
        let params = RestoreParams {
            x: at(x, 0),
            scales: at(&self.workspace.gated_scales, 0),
            width: self.config.width as u32,
            reserved: 0,
        };
        let geometry = Geometry::new([1, rows as u32, 1], ELEMENTWISE_THREADS);
        // SAFETY: `x` has `rows` rows of the width, and there is a scale for each.
        unsafe { self.launcher.launch(&RESTORE_ROWS, geometry, &params) }
    }
}
