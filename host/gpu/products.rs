//! Products of a matrix with rows of f16: quantized matrices are multiplied straight from their blocks with
//! few rows, and unpacked to f16 for cuBLAS with more.

use kernels_gpu::abi::WeightType;
use kernels_gpu::prim::scale::inverse;

use super::ops::matvec::Product;
use super::pass::Pass;
use super::scales::HalfRows;
use super::weights::GpuMatrix;
use crate::device::{Gemm, GemmType, Matrix, Result};

/// Products by cuBLAS have a multiple of as many rows, or up to as many. For a number of rows that is new to it, the
/// library takes up to tens of milliseconds to choose and load a kernel, and steps have any number. Where results must
/// not depend on it, a product has just as many. Rows behind a step's own are of no use to anyone; buffers have room
/// for them.
pub const ROW_MULTIPLE: usize = 64;

impl Pass<'_> {
    /// `y = x W^T + bias` of up to three `products` for `rows`, or that added to what is there.
    pub fn multiply(
        &self,
        rows: HalfRows<'_>,
        products: &[Product<'_>],
        accumulate: bool,
    ) -> Result<()> {
        let mut rest: Vec<Product<'_>> = products.to_vec();
        while let Some(first) = rest.first() {
            let ty = first.linear.matrix.ty;
            let is_same = |product: &Product<'_>| product.linear.matrix.ty == ty;
            let (same, others): (Vec<_>, Vec<_>) = rest.iter().partition(|p| is_same(p));
            match self.matmul_plan(&same, rows.count) {
                Some(plan) => self.matmul(rows, &same, accumulate, plan)?,
                None => {
                    for &product in &same {
                        self.unpacked_product(rows, product, accumulate)?;
                        if product.linear.bias.is_some() && rows.scales.is_some() {
                            // The bias is not divided.
                            self.restore_rows(product.y, rows.count)?;
                        }
                        self.add_bias(product.linear, product.y, rows.count)?;
                    }
                }
            }
            rest = others;
        }
        Ok(())
    }

    /// A product without its bias by cuBLAS, the rows left divided by `rows.scales`; the matrix is unpacked in parts that fit the workspace.
    fn unpacked_product(
        &self,
        rows: HalfRows<'_>,
        Product { linear, y, stride }: Product<'_>,
        accumulate: bool,
    ) -> Result<()> {
        let matrix = &linear.matrix;
        let GpuMatrix { n_in, n_out, .. } = *matrix;
        let row_bytes = matrix.ty.row_bytes(n_in as u32) as usize;
        // Parts of whole 16 rows begin at a multiple of 16 bytes in every type.
        let fitting = self.workspace.unpacked_elements / n_in;
        let whole = match matrix.ty {
            WeightType::F16 => Some(&*matrix.blocks),
            _ => matrix.copy.get(),
        };
        let part_rows = match whole {
            None if fitting < n_out => (fitting / 16 * 16).max(1),
            _ => n_out,
        };
        for first in (0..n_out).step_by(part_rows) {
            let part = part_rows.min(n_out - first);
            let unpacked = match whole {
                Some(whole) => whole.slice(0, 2 * part * n_in)?,
                None => {
                    let blocks = matrix.blocks.slice(first * row_bytes, part * row_bytes)?;
                    let to = &self.workspace.unpacked;
                    self.dequantize(matrix, (blocks.addr(), part), inverse(matrix.scale), to)?;
                    to.slice(0, 2 * part * n_in)?
                }
            };
            let padded = rows.count.next_multiple_of(ROW_MULTIPLE);
            // Which algorithm cuBLAS takes depends on the number of rows.
            let (at_a_time, end) = match self.is_deterministic {
                true => (ROW_MULTIPLE, padded),
                false if rows.count > ROW_MULTIPLE => (padded, padded),
                false => (rows.count, rows.count),
            };
            for row in (0..end).step_by(at_a_time) {
                let x = rows.x.slice(2 * row * n_in, 2 * at_a_time * n_in)?;
                let y_bytes = 4 * ((at_a_time - 1) * stride + part);
                let call = Gemm {
                    x: Matrix::dense(x, GemmType::F16, at_a_time, n_in),
                    w: Matrix::dense(unpacked, GemmType::F16, part, n_in),
                    y: Matrix {
                        data: y.slice(4 * (row * stride + first), y_bytes)?,
                        ty: GemmType::F32,
                        rows: at_a_time,
                        cols: part,
                        stride,
                    },
                    factor: rows.unpacked_factor(matrix),
                    accumulate,
                }
                .call()?;
                // SAFETY: `call` checked the extents against the slices, whose buffers live on.
                unsafe { self.launcher.device().gemm(&call) }?;
            }
        }
        Ok(())
    }
}
