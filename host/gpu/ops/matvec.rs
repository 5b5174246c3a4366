//! Products of matrices with one to four vectors, straight from their blocks.

use std::cell::Cell;

use kernels_gpu::abi::{
    DevicePtr, MatvecEpilogue, MatvecOrder, MatvecParams, MatvecPlan, MatvecSegment, VectorFormat,
    matvec_alone_bytes, matvec_beside_bytes, matvec_pair_ends,
};
use kernels_gpu::ops::matvec_entries;

use crate::backend::ActivationPrecision;
use crate::device::{Buffer, DeviceError, Result};
use crate::gpu::launcher::{Geometry, at};
use crate::gpu::pass::Pass;
use crate::gpu::scales::stream_epsilon;
use crate::gpu::weights::GpuLinear;

/// The vectors that are multiplied: f32 rows of the residual stream's width or another, and what
/// happens to them first.
#[derive(Clone, Copy)]
pub struct Vectors<'a> {
    /// The vectors, one behind the other.
    pub x: &'a Buffer,
    /// How many.
    pub count: usize,
    /// The weight of an RMSNorm before the product.
    pub norm: Option<&'a Buffer>,
    /// What is normed with a weight and added to `x` first, and where the sum goes.
    pub residual: Option<Residual<'a>>,
}

/// A block's output that still has to go through its norm and into the residual stream.
#[derive(Clone, Copy)]
pub struct Residual<'a> {
    /// The block's output.
    pub addend: &'a Buffer,
    /// The weight of its norm.
    pub weight: &'a Buffer,
    /// The new residual stream, which is not `x`.
    pub sum: &'a Buffer,
}

/// One matrix of a launch and where its products go.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    /// The matrix.
    pub linear: &'a GpuLinear,
    /// f32 `[count, stride]`.
    pub y: &'a Buffer,
    /// Elements from vector to vector there.
    pub stride: usize,
}

impl<'a> Product<'a> {
    /// A product whose results follow each other without padding.
    pub fn new(linear: &'a GpuLinear, y: &'a Buffer) -> Product<'a> {
        Product {
            linear,
            y,
            stride: linear.matrix.n_out,
        }
    }

    /// What a kernel is told of it, with the results of vectors from `first` on.
    pub fn segment(&self, first: usize) -> MatvecSegment {
        MatvecSegment {
            weights: at(&self.linear.matrix.blocks, 0),
            y: at(self.y, first * self.stride),
            bias: self.linear.bias(),
            n_out: self.linear.matrix.n_out as u32,
            y_stride: self.stride as u32,
        }
    }
}

/// Spreads the blocks of launches that follow each other over the multiprocessors; see
/// [`MatvecPlan::shared_bytes`].
#[derive(Debug, Default)]
pub struct Spread {
    is_second: Cell<bool>,
}

impl Spread {
    /// The next launch follows a small kernel: its blocks have to be alone.
    pub fn restart(&self) {
        self.is_second.set(false);
    }

    /// The shared memory for the next launch, of at least `bytes` a block.
    pub(super) fn shared_bytes(&self, bytes: u32, max_shared: u32) -> u32 {
        match self.is_second.replace(!self.is_second.get()) {
            true => bytes.max(matvec_beside_bytes(max_shared)),
            false => bytes.max(matvec_alone_bytes(max_shared)),
        }
    }
}

impl Pass<'_> {
    /// Multiplies `vectors` with up to three matrices of one type: one launch, or several where the
    /// vectors do not fit in shared memory together.
    pub fn matvec(
        &self,
        vectors: Vectors<'_>,
        products: &[Product<'_>],
        epilogue: MatvecEpilogue,
        order: MatvecOrder,
    ) -> Result<()> {
        let mut first = 0;
        let mut at_a_time = vectors.count;
        while first < vectors.count {
            let count = at_a_time.min(vectors.count - first);
            match self.matvec_plan(products, epilogue, count) {
                Some((kernel_type, plan)) => {
                    self.launch_matvec(
                        vectors,
                        products,
                        epilogue,
                        // Only launches that take all vectors at once can be beside each other.
                        if count == vectors.count {
                            order
                        } else {
                            MatvecOrder::InTurn
                        },
                        (first, count),
                        kernel_type,
                        plan,
                    )?;
                    first += count;
                }
                None if at_a_time > 1 => at_a_time /= 2,
                None => {
                    let matrix = &products[0].linear.matrix;
                    return Err(DeviceError::Unsupported(format!(
                        "a row of tensor `{}` ({} elements) does not fit in shared memory",
                        matrix.name, matrix.n_in
                    )));
                }
            }
        }
        Ok(())
    }

    fn matvec_plan(
        &self,
        products: &[Product<'_>],
        epilogue: MatvecEpilogue,
        count: usize,
    ) -> Option<(VectorFormat, MatvecPlan)> {
        let matrix = &products[0].linear.matrix;
        let gated = matches!(epilogue, MatvecEpilogue::Silu | MatvecEpilogue::Gelu);
        let rows: usize = match gated {
            true => matrix.n_out,
            false => products
                .iter()
                .map(|product| product.linear.matrix.n_out)
                .sum(),
        };
        let activations = match self.activations {
            ActivationPrecision::Q8 if matrix.ty.is_quantized() => VectorFormat::Q8,
            _ => VectorFormat::F16,
        };
        let info = self.launcher.device().info();
        let plan = MatvecPlan::new(
            matrix.ty,
            activations,
            gated,
            rows as u32,
            matrix.n_in as u32,
            count as u32,
            info.multiprocessors,
            info.max_shared_per_block,
        )?;
        Some((activations, plan))
    }

    #[allow(clippy::too_many_arguments)] // what a launch consists of
    fn launch_matvec(
        &self,
        vectors: Vectors<'_>,
        products: &[Product<'_>],
        epilogue: MatvecEpilogue,
        order: MatvecOrder,
        (first, count): (usize, usize),
        activations: VectorFormat,
        plan: MatvecPlan,
    ) -> Result<()> {
        let matrix = &products[0].linear.matrix;
        let info = self.launcher.device().info();
        let mut segments = [MatvecSegment::NONE; 3];
        for (segment, product) in segments.iter_mut().zip(products) {
            *segment = product.segment(first);
        }
        let vector = |buffer: Option<&Buffer>| {
            buffer.map_or(DevicePtr::NULL, |buffer| at(buffer, first * matrix.n_in))
        };
        let weight = |buffer: Option<&Buffer>| buffer.map_or(DevicePtr::NULL, |b| at(b, 0));
        let residual = vectors.residual;
        let params = MatvecParams {
            x: vector(Some(vectors.x)),
            norm_weight: weight(vectors.norm),
            residual: vector(residual.map(|r| r.addend)),
            residual_weight: weight(residual.map(|r| r.weight)),
            x_out: vector(residual.map(|r| r.sum)),
            segments,
            n_in: matrix.n_in as u32,
            vectors: count as u32,
            x_stride: matrix.n_in as u32,
            epsilon: stream_epsilon(self.config),
            epilogue: epilogue as u32,
            row_split_log2: plan.row_split_log2,
            pair_ends: matvec_pair_ends(&segments, epilogue),
            order: order as u32,
        };
        let kernel =
            matvec_entries::kernel(matrix.ty, activations, plan.vectors).ok_or_else(|| {
                DeviceError::NoKernel {
                    name: format!(
                        "matvec of {} with {} vectors",
                        matrix.ty.name(),
                        plan.vectors
                    ),
                    count: 0,
                }
            })?;
        let geometry = Geometry {
            grid: [plan.grid, 1, 1],
            block: plan.block,
            shared_bytes: self
                .spread
                .shared_bytes(plan.shared_bytes, info.max_shared_per_block),
        };
        let blocks = products.iter().map(|product| &product.linear.matrix.blocks);
        self.launcher.moves(blocks.map(|blocks| blocks.len()).sum());
        // SAFETY: the plan is for these matrices; vectors and results have `vectors.count` rows.
        unsafe { self.launcher.launch(&kernel, geometry, &params) }
    }
}
