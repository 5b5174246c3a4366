//! Products of a matrix with rows of f16: quantized matrices are multiplied straight from their blocks with
//! few rows, and decoded to f16 for cuBLAS with more.

use kernels_gpu::abi::{DequantizeParams, DevicePtr, UNPACK_WARPS, UnpackPlan, WeightType};
use kernels_gpu::ops::dequantize;

use super::GpuBackend;
use super::launcher::{Geometry, untyped};
use super::matvec::Product;
use super::weights::GpuMatrix;
use crate::device::{Buffer, Gemm, GemmType, Matrix, Result};

impl GpuBackend {
    /// `y = x W^T + bias` of up to three `products` for `rows` rows of the f16 matrix `x`, or that added to
    /// what is there.
    pub(super) fn multiply(
        &self,
        x: &Buffer,
        rows: usize,
        products: &[Product<'_>],
        accumulate: bool,
    ) -> Result<()> {
        let mut rest: Vec<Product<'_>> = products.to_vec();
        while let Some(first) = rest.first() {
            let ty = first.linear.matrix.ty;
            let is_same = |product: &Product<'_>| product.linear.matrix.ty == ty;
            let (same, others): (Vec<_>, Vec<_>) = rest.iter().partition(|p| is_same(p));
            match self.matmul_plan(&same, rows) {
                Some(plan) => self.matmul(x, rows, &same, accumulate, plan)?,
                None => {
                    for &product in &same {
                        self.decoded_product(x, rows, product, accumulate)?;
                        self.add_bias(product.linear, product.y, rows)?;
                    }
                }
            }
            rest = others;
        }
        Ok(())
    }

    /// A product without its bias by cuBLAS; the matrix is decoded in parts that fit the workspace.
    fn decoded_product(
        &self,
        x: &Buffer,
        rows: usize,
        Product { linear, y, stride }: Product<'_>,
        accumulate: bool,
    ) -> Result<()> {
        let matrix = &linear.matrix;
        let GpuMatrix { n_in, n_out, .. } = *matrix;
        let x = Matrix::dense(x.slice(0, 2 * rows * n_in)?, GemmType::F16, rows, n_in);
        let row_bytes = matrix.ty.row_bytes(n_in as u32) as usize;
        // Parts of whole 16 rows begin at a multiple of 16 bytes in every type.
        let fitting = self.workspace.decoded_elements / n_in;
        let part_rows = match matrix.ty {
            WeightType::F16 => n_out,
            _ if fitting >= n_out => n_out,
            _ => (fitting / 16 * 16).max(1),
        };
        for first in (0..n_out).step_by(part_rows) {
            let part = part_rows.min(n_out - first);
            let blocks = matrix.blocks.slice(first * row_bytes, part * row_bytes)?;
            let decoded = match matrix.ty {
                WeightType::F16 => blocks,
                _ => {
                    self.dequantize(matrix, blocks.addr(), part)?;
                    self.workspace.decoded.slice(0, 2 * part * n_in)?
                }
            };
            let y_bytes = 4 * ((rows - 1) * stride + part);
            let call = Gemm {
                x,
                w: Matrix::dense(decoded, GemmType::F16, part, n_in),
                y: Matrix {
                    data: y.slice(4 * first, y_bytes)?,
                    ty: GemmType::F32,
                    rows,
                    cols: part,
                    stride,
                },
                accumulate,
            }
            .call()?;
            // SAFETY: `call` checked the extents against the slices, whose buffers live on.
            unsafe { self.launcher.device.gemm(&call) }?;
        }
        Ok(())
    }

    /// Decodes `rows` rows of `matrix` at `address` to the workspace.
    pub(super) fn dequantize(&self, matrix: &GpuMatrix, address: u64, rows: usize) -> Result<()> {
        let n = (rows * matrix.n_in) as u64;
        let multiprocessors = self.launcher.device.info().multiprocessors;
        let plan = UnpackPlan::dequantize(matrix.ty, n, multiprocessors);
        let geometry = Geometry {
            grid: plan.grid,
            block: 32 * UNPACK_WARPS,
            shared_bytes: plan.shared_bytes,
        };
        let params = DequantizeParams {
            weights: DevicePtr::from_address(address),
            y: untyped(&self.workspace.decoded),
            n,
        };
        // The decoded matrix is written as f16.
        let blocks = rows * matrix.ty.row_bytes(matrix.n_in as u32) as usize;
        self.launcher.moves(blocks + 2 * rows * matrix.n_in);
        // SAFETY: the caller's rows are in the matrix, and fit the workspace.
        unsafe {
            self.launcher
                .launch(&dequantize::kernel(matrix.ty), geometry, &params)
        }
    }

    /// All elements of `matrix` as the device decodes them, by their f16 bits.
    pub(super) fn decoded_matrix(&self, matrix: &GpuMatrix) -> Result<Vec<u16>> {
        let row_bytes = matrix.ty.row_bytes(matrix.n_in as u32) as usize;
        let part_rows = (self.workspace.decoded_elements / matrix.n_in / 16 * 16).max(1);
        let mut bits = vec![0u16; matrix.n_in * matrix.n_out];
        for (part, bits) in bits.chunks_mut(part_rows * matrix.n_in).enumerate() {
            let address = matrix.blocks.addr() + (part * part_rows * row_bytes) as u64;
            self.dequantize(matrix, address, bits.len() / matrix.n_in)?;
            let from = self.workspace.decoded.slice(0, 2 * bits.len())?;
            self.launcher
                .device
                .download(bytemuck::cast_slice_mut(bits), from)?;
        }
        Ok(bits)
    }
}
