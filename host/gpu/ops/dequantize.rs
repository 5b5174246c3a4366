//! Launch of `dequantize`: a matrix as f16, for cuBLAS and for checks; and copies of all matrices.

use kernels_gpu::abi::{DequantizeParams, DevicePtr, UNPACK_THREADS, UnpackPlan};
use kernels_gpu::ops::dequantize;
use kernels_gpu::prim::scale::inverse;

use crate::device::{Buffer, Result};
use crate::gpu::launcher::{Geometry, untyped};
use crate::gpu::pass::Pass;
use crate::gpu::weights::GpuMatrix;

impl Pass<'_> {
    /// Unpacks `rows` rows of `matrix` at `address`, times `factor` if it is not quantized, to `to`, which has room for
    /// them.
    pub fn dequantize(
        &self,
        matrix: &GpuMatrix,
        (address, rows): (u64, usize),
        factor: f32,
        to: &Buffer,
    ) -> Result<()> {
        let n = (rows * matrix.n_in) as u64;
        let multiprocessors = self.launcher.device().info().multiprocessors;
        let plan = UnpackPlan::dequantize(matrix.ty, n, multiprocessors);
        let geometry = Geometry {
            grid: plan.grid,
            block: UNPACK_THREADS,
            shared_bytes: plan.shared_bytes,
        };
        let params = DequantizeParams {
            weights: DevicePtr::from_address(address),
            y: untyped(to),
            n,
            factor,
            reserved: 0,
        };
        // The unpacked matrix is written as f16.
        let blocks = rows * matrix.ty.row_bytes(matrix.n_in as u32) as usize;
        self.launcher.moves(blocks + 2 * rows * matrix.n_in);
        // SAFETY: the caller's rows are in the matrix, and fit `to`.
        unsafe {
            self.launcher
                .launch(&dequantize::kernel(matrix.ty), geometry, &params)
        }
    }

    /// Makes the copies of matrices that are missing, as far as the device has memory for them.
    pub fn copy_matrices(&self) -> Result<()> {
        for matrix in self.weights.missing_copies() {
            let bytes = 2 * matrix.n_in * matrix.n_out;
            let copy = match self.launcher.device().alloc(bytes, "an unpacked matrix") {
                Err(error) if error.is_out_of_memory() => return Ok(()),
                copy => copy?,
            };
            let all = (matrix.blocks.addr(), matrix.n_out);
            self.dequantize(matrix, all, inverse(matrix.scale), &copy)?;
            // Nobody else sets it: a backend runs one step at a time.
            let _ = matrix.copy.set(copy);
        }
        Ok(())
    }

    /// All elements of `matrix` as the device unpacks them, by their f16 bits.
    pub fn unpacked_matrix(&self, matrix: &GpuMatrix) -> Result<Vec<u16>> {
        let row_bytes = matrix.ty.row_bytes(matrix.n_in as u32) as usize;
        let part_rows = (self.workspace.unpacked_elements / matrix.n_in / 16 * 16).max(1);
        let mut bits = vec![0u16; matrix.n_in * matrix.n_out];
        for (part, bits) in bits.chunks_mut(part_rows * matrix.n_in).enumerate() {
            let address = matrix.blocks.addr() + (part * part_rows * row_bytes) as u64;
            let part = (address, bits.len() / matrix.n_in);
            self.dequantize(matrix, part, 1.0, &self.workspace.unpacked)?;
            let from = self.workspace.unpacked.slice(0, 2 * bits.len())?;
            self.launcher
                .device()
                .download(bytemuck::cast_slice_mut(bits), from)?;
        }
        Ok(bits)
    }
}
