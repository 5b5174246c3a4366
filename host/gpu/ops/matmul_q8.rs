//! Products of quantized matrices with the vectors of a step in 8 bits, on integer tensor cores.

use kernels_gpu::abi::{
    MATMUL_Q8_MAX_VECTORS, MatmulQ8Params, MatmulQ8Plan, MatvecOrder, MatvecSegment,
};
use kernels_gpu::ops::matmul_q8_entries;

use super::matvec::Product;
use super::q8_rows::Q8Rows;
use crate::device::{DeviceError, Result};
use crate::gpu::launcher::Geometry;
use crate::gpu::pass::Pass;
use crate::model::{Layer, Model};

/// Whether there are kernels for all matrices of `model`; there are none for experts.
pub fn multiplies_in_q8(model: &Model) -> bool {
    if model.config.experts.is_some() {
        return false;
    }
    let linears = model.weights.layers.iter().flat_map(Layer::linears);
    let mut linears = linears.chain([&model.weights.output]);
    linears.all(|linear| {
        let ty = linear.weight.ty().weight_type();
        ty.is_some_and(|ty| matmul_q8_entries::kernel(ty, 1).is_some())
    })
}

impl Pass<'_> {
    /// `y = x W^T + bias` of up to three `products` with `rows`, or that added to what is there: a launch for each type of
    /// matrices, beside each other. Where there are several, results must not overlap with each other.
    pub fn multiply_q8(
        &self,
        rows: Q8Rows,
        products: &[Product<'_>],
        accumulate: bool,
    ) -> Result<()> {
        let mut of_types: Vec<Vec<Product<'_>>> = Vec::new();
        for &product in products {
            let ty = product.linear.matrix.ty;
            let same = of_types.iter_mut().find(|p| p[0].linear.matrix.ty == ty);
            match same {
                Some(same) => same.push(product),
                None => of_types.push(vec![product]),
            }
        }
        // What fills the fewest multiprocessors begins, and what comes next fills the others.
        let n_out = |products: &Vec<Product<'_>>| -> usize {
            products.iter().map(|p| p.linear.matrix.n_out).sum()
        };
        of_types.sort_by_key(n_out);
        let mut order = MatvecOrder::First;
        for products in &of_types {
            self.matmul_q8(rows, products, accumulate, order)?;
            order = MatvecOrder::Beside;
        }
        Ok(())
    }

    /// Products with matrices of one type: one launch.
    fn matmul_q8(
        &self,
        rows: Q8Rows,
        products: &[Product<'_>],
        accumulate: bool,
        order: MatvecOrder,
    ) -> Result<()> {
        let matrix = &products[0].linear.matrix;
        let (n_in, vectors) = (matrix.n_in as u32, rows.count as u32);
        let mut n_out = [0; 3];
        let mut segments = [MatvecSegment::NONE; 3];
        for (i, product) in products.iter().enumerate() {
            n_out[i] = product.linear.matrix.n_out as u32;
            segments[i] = product.segment(0);
        }
        let info = self.launcher.device().info();
        let (sms, shared) = (info.multiprocessors, info.max_shared_per_block);
        let plan = MatmulQ8Plan::new(matrix.ty, n_out, n_in, vectors, sms, shared);
        let kernel_of = |plan: &MatmulQ8Plan| matmul_q8_entries::kernel(matrix.ty, plan.tiles);
        let launch = plan.and_then(|plan| Some((plan, kernel_of(&plan)?)));
        let (plan, kernel) = launch.ok_or_else(|| {
            let (ty, most) = (matrix.ty.name(), MATMUL_Q8_MAX_VECTORS);
            DeviceError::Unsupported(format!(
                "a product of {ty} with {vectors} vectors in 8 bits, up to {most} of types with kernels for it"
            ))
        })?;
        let params = MatmulQ8Params {
            x: rows.vectors,
            segments,
            n_in,
            vectors,
            tile_ends: plan.tile_ends,
            k_groups_log2: plan.k_groups.ilog2(),
            accumulate: accumulate.into(),
            order: order as u32,
        };
        let geometry = Geometry {
            grid: plan.grid,
            block: plan.block,
            shared_bytes: plan.shared_bytes,
        };
        let blocks = products.iter().map(|product| &product.linear.matrix.blocks);
        self.launcher.moves(blocks.map(|blocks| blocks.len()).sum());
        // SAFETY: the plan is for these matrices; the rows are in the workspace, and the results have as many.
        unsafe { self.launcher.launch(&kernel, geometry, &params) }
    }
}
