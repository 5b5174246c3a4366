//! Products of quantized matrices with the vectors of a step that are too many for the matrix-vector
//! kernels and too few to be worth decoding the matrix for.

use kernels_gpu::abi::{MatmulParams, MatmulPlan};
use kernels_gpu::ops::matmul_entries;

use super::GpuBackend;
use super::launcher::{Geometry, at};
use super::products::Target;
use super::weights::GpuMatrix;
use crate::gpu::{Buffer, GpuError, Result};

/// Most vectors that are multiplied straight from the blocks: as many as one block of the kernels takes. With
/// more of them a launch reads the matrix again for each 64, which at some number costs as much as
/// decoding it for cuBLAS; `examples/kernel_bench.rs` times both.
const MATMUL_MAX_VECTORS: usize = 64;

impl GpuBackend {
    /// The launch for a product with `rows` vectors, or `None` where [`product`](Self::product) is to
    /// decode the matrix.
    pub(super) fn matmul_plan(&self, matrix: &GpuMatrix, rows: usize) -> Option<MatmulPlan> {
        if !matrix.ty.is_quantized() || rows > MATMUL_MAX_VECTORS {
            return None;
        }
        let info = self.launcher.device.info();
        MatmulPlan::new(
            matrix.ty,
            matrix.n_out as u32,
            matrix.n_in as u32,
            rows as u32,
            info.multiprocessors,
            info.max_shared_per_block,
        )
    }

    /// `y = x W^T` for `rows` rows of the f16 matrix `x`.
    pub(super) fn matmul(
        &self,
        matrix: &GpuMatrix,
        x: &Buffer,
        rows: usize,
        y: Target<'_>,
        plan: MatmulPlan,
    ) -> Result<()> {
        let kernel = matmul_entries::kernel(matrix.ty, plan.tiles).ok_or_else(|| {
            let (ty, tiles) = (matrix.ty.name(), plan.tiles);
            GpuError::NoKernel {
                name: format!("matmul of {ty} with {tiles} tiles"),
                count: 0,
            }
        })?;
        let params = MatmulParams {
            x: at(x, 0),
            weights: at(&matrix.blocks, 0),
            y: at(y.buffer, 0),
            n_in: matrix.n_in as u32,
            n_out: matrix.n_out as u32,
            vectors: rows as u32,
            y_stride: y.stride as u32,
            accumulate: y.accumulate.into(),
            k_groups_log2: plan.k_groups.ilog2(),
            stages: plan.stages,
            row_groups_log2: plan.row_groups.ilog2(),
        };
        let geometry = Geometry {
            grid: plan.grid,
            block: plan.block,
            shared_bytes: plan.shared_bytes,
        };
        self.launcher.moves(matrix.blocks.len());
        // SAFETY: the plan is for this matrix; `x` has `rows` rows of `n_in` elements, `y` as many of `n_out`.
        unsafe { self.launcher.launch(&kernel, geometry, &params) }
    }
}
