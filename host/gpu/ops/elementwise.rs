//! Launches of `elementwise`: sums, biases, gates and scales of rows.

use kernels_gpu::abi::{AddParams, BiasParams, GatedParams, KernelDef, RestoreParams};
use kernels_gpu::ops::elementwise::{ADD_F32, BIAS_F32, RESTORE_ROWS};

use crate::device::{Buffer, Result};
use crate::gpu::launcher::{Geometry, at, untyped};
use crate::gpu::pass::Pass;
use crate::gpu::weights::GpuLinear;

/// Threads of a block.
const BLOCK: u32 = 256;

impl Pass<'_> {
    /// Adds `block_normed` to `rows` rows of the residual stream.
    pub fn add_block_output(&self, rows: usize) -> Result<()> {
        let w = self.workspace;
        let n = (rows * self.config.width) as u32;
        let params = AddParams {
            a: untyped(&w.x),
            b: untyped(&w.block_normed),
            y: untyped(&w.x),
            n,
            reserved: 0,
        };
        let geometry = Geometry::new([n.div_ceil(BLOCK), 1, 1], BLOCK);
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
            x: untyped(x),
            bias: linear.bias(),
            n,
            width: linear.matrix.n_out as u32,
        };
        let geometry = Geometry::new([n.div_ceil(256), 1, 1], 256);
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
        let geometry = Geometry::new([ffn.div_ceil(256), rows as u32, 1], 256);
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
        let geometry = Geometry::new([1, rows as u32, 1], 256);
        // SAFETY: `x` has `rows` rows of the width, and there is a scale for each.
        unsafe { self.launcher.launch(&RESTORE_ROWS, geometry, &params) }
    }
}
