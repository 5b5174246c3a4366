//! Products of quantized matrices with the vectors of a step that are too many for the matrix-vector
//! kernels and too few to be worth unpacking the matrix for.

use kernels_gpu::abi::{DevicePtr, MatmulParams, MatmulPlan, MatvecSegment};
use kernels_gpu::ops::matmul_entries;

use super::matvec::Product;
use crate::device::{DeviceError, Result};
use crate::gpu::launcher::{Geometry, at};
use crate::gpu::pass::Pass;
use crate::gpu::scales::HalfRows;

/// Most vectors that are multiplied straight from the blocks: as many as one block of the kernels takes. With
/// more of them a launch reads the matrix again for each 64, which at some number costs as much as
/// unpacking it for cuBLAS; `examples/kernel_bench.rs` times both.
pub const MATMUL_MAX_VECTORS: usize = 64;

impl Pass<'_> {
    /// The launch for products of matrices of one type with `rows` vectors, or `None` where
    /// [`multiply`](Self::multiply) is to unpack them.
    pub fn matmul_plan(&self, products: &[Product<'_>], rows: usize) -> Option<MatmulPlan> {
        let matrix = &products[0].linear.matrix;
        if !matrix.ty.is_quantized() || (rows > MATMUL_MAX_VECTORS && !self.is_deterministic) {
            return None;
        }
        let mut n_out = [0; 3];
        for (n_out, product) in n_out.iter_mut().zip(products) {
            *n_out = product.linear.matrix.n_out as u32;
        }
        let info = self.launcher.device().info();
        let plan = match self.is_deterministic {
            true => MatmulPlan::invariant,
            false => MatmulPlan::new,
        };
        plan(
            matrix.ty,
            n_out,
            matrix.n_in as u32,
            rows as u32,
            info.multiprocessors,
            info.max_shared_per_block,
        )
    }

    /// The `products` that `plan` was made for, with `rows`; added to what is there
    /// if `accumulate` says so.
    pub fn matmul(
        &self,
        rows: HalfRows<'_>,
        products: &[Product<'_>],
        accumulate: bool,
        plan: MatmulPlan,
    ) -> Result<()> {
        let matrix = &products[0].linear.matrix;
        let kernel = matmul_entries::kernel(matrix.ty, plan.tiles).ok_or_else(|| {
            let (ty, tiles) = (matrix.ty.name(), plan.tiles);
            DeviceError::NoKernel {
                name: format!("matmul of {ty} with {tiles} tiles"),
                count: 0,
            }
        })?;
        let mut segments = [MatvecSegment::NONE; 3];
        for (segment, product) in segments.iter_mut().zip(products) {
            *segment = product.segment(0);
        }
        let params = MatmulParams {
            x: at(rows.x, 0),
            segments,
            scales: rows.scales.map_or(DevicePtr::NULL, |scales| at(scales, 0)),
            maxima: rows.maxima.map_or(DevicePtr::NULL, |maxima| at(maxima, 0)),
            n_in: matrix.n_in as u32,
            vectors: rows.count as u32,
            accumulate: accumulate.into(),
            k_groups_log2: plan.k_groups.ilog2(),
            stages: plan.stages,
            row_groups_log2: plan.row_groups.ilog2(),
            block_ends: plan.block_ends,
            scale: rows.scale,
            reserved: 0,
        };
        let geometry = Geometry {
            grid: plan.grid,
            block: plan.block,
            shared_bytes: plan.shared_bytes,
        };
        let blocks = products.iter().map(|product| &product.linear.matrix.blocks);
        self.launcher.moves(blocks.map(|blocks| blocks.len()).sum());
        // SAFETY: the plan is for these matrices; `x` and the results have `rows` rows.
        unsafe { self.launcher.launch(&kernel, geometry, &params) }
    }
}
