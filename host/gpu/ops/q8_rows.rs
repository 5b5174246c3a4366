//! Launches of `q8_rows`: rows of a step on their way to products in 8 bits.

use kernels_gpu::abi::{
    DevicePtr, KernelDef, MATMUL_Q8_STEP, Q8_ROWS_ELEMENTS, Q8_ROWS_THREADS, Q8RowsParams,
    Q8Vectors, norm_threads,
};
use kernels_gpu::ops::q8_rows::{GEGLU_Q8, Q8_ROWS, RMS_NORM_Q8, SWIGLU_Q8};

use crate::device::{Buffer, Result};
use crate::gpu::launcher::{Geometry, at, untyped};
use crate::gpu::pass::Pass;
use crate::gpu::scales::stream_epsilon;
use crate::model::GateFunction;

/// Rows in 8 bits in the workspace: the next that are encoded take their place.
#[derive(Clone, Copy)]
pub struct Q8Rows {
    /// Where they lie.
    pub vectors: Q8Vectors,
    /// How many.
    pub count: usize,
}

impl Pass<'_> {
    /// `rows` rows of `width` elements of the f32 matrix `x`.
    pub fn q8_rows(&self, x: &Buffer, width: usize, rows: usize) -> Result<Q8Rows> {
        let params = self.q8_params(x, width, rows);
        self.encode(&Q8_ROWS, params)
    }

    /// RMSNorm of `rows` rows of the residual stream; without a weight the rows as they are.
    pub fn q8_normed(&self, weight: Option<&Buffer>, rows: usize) -> Result<Q8Rows> {
        let width = self.config.width;
        let Some(weight) = weight else {
            return self.q8_rows(&self.workspace.x, width, rows);
        };
        let params = Q8RowsParams {
            other: at(weight, 0),
            epsilon: stream_epsilon(self.config),
            ..self.q8_params(&self.workspace.x, width, rows)
        };
        let geometry = Geometry::new([1, rows as u32, 1], norm_threads(width as u32));
        // SAFETY: there are `rows` rows of `width`, and the weight has `width` elements.
        unsafe { self.launcher.launch(&RMS_NORM_Q8, geometry, &params) }?;
        Ok(self.in_workspace(rows))
    }

    /// The gated product of `rows` rows of `gate` and `up`; as f32 to `gated` where somebody wants to see it.
    pub fn q8_gated(&self, rows: usize) -> Result<Q8Rows> {
        let (ffn, w) = (self.config.ffn_width, self.workspace);
        let kernel = match self.config.gate_function() {
            GateFunction::Silu => SWIGLU_Q8,
            GateFunction::GeluTanh => GEGLU_Q8,
        };
        let params = Q8RowsParams {
            other: at(&w.up, 0),
            values: match self.trace.is_active() {
                true => at(&w.gated, 0),
                false => DevicePtr::NULL,
            },
            ..self.q8_params(&w.gate, ffn, rows)
        };
        self.encode(&kernel, params)
    }

    /// A launch in which each thread has eight elements of a row.
    fn encode(&self, kernel: &KernelDef<Q8RowsParams>, params: Q8RowsParams) -> Result<Q8Rows> {
        let padded = params.width.next_multiple_of(MATMUL_Q8_STEP);
        let blocks = padded.div_ceil(Q8_ROWS_THREADS * Q8_ROWS_ELEMENTS);
        let geometry = Geometry::new([blocks, params.rows, 1], Q8_ROWS_THREADS);
        // SAFETY: there are as many rows of that width, and room for the longest of a step's.
        unsafe { self.launcher.launch(kernel, geometry, &params) }?;
        Ok(self.in_workspace(params.rows as usize))
    }

    fn in_workspace(&self, count: usize) -> Q8Rows {
        let w = self.workspace;
        let vectors = Q8Vectors {
            elements: untyped(&w.q8_elements).cast(),
            scales: at(&w.q8_scales, 0),
            sums: at(&w.q8_sums, 0),
        };
        Q8Rows { vectors, count }
    }

    fn q8_params(&self, x: &Buffer, width: usize, rows: usize) -> Q8RowsParams {
        Q8RowsParams {
            x: at(x, 0),
            other: DevicePtr::NULL,
            y: self.in_workspace(rows).vectors,
            values: DevicePtr::NULL,
            width: width as u32,
            rows: rows as u32,
            epsilon: 0.0,
            reserved: 0,
        }
    }
}
