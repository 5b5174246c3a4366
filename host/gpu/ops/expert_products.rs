//! Launches of the products of a mixture's experts, `expert_matvec` and `expert_matmul`, and of their gates.

use kernels_gpu::abi::{
    DevicePtr, ELEMENTWISE_THREADS, EXPERT_MATMUL_TILES, ExpertMatmulParams, ExpertMatvecParams,
    GatedParams, GatedRowsParams, MATMUL_TILE_VECTORS, MatmulParams, MatmulPlan, MatvecEpilogue,
    MatvecOrder, MatvecParams, MatvecPlan, MatvecSegment, VectorFormat, expert_matmul_blocks,
    expert_matvec_blocks, gated_rows_geometry, matvec_pair_ends,
};
use kernels_gpu::ops::elementwise::{GEGLU_F32, SWIGLU_F32};
use kernels_gpu::ops::gated_rows::{GEGLU_ROWS, SWIGLU_ROWS};
use kernels_gpu::ops::{expert_matmul, expert_matvec};

use crate::device::{Buffer, DeviceError, Result};
use crate::gpu::experts::Mixture;
use crate::gpu::launcher::{Geometry, at};
use crate::gpu::pass::Pass;
use crate::gpu::scales::{HalfRows, stream_epsilon};
use crate::gpu::weights::GpuExpertMatrix;
use crate::model::GateFunction;

/// The vectors of pairs.
#[derive(Clone, Copy)]
pub struct Pairs<'a> {
    /// f32, one behind the other.
    pub x: &'a Buffer,
    /// The weight of an RMSNorm before the product.
    pub norm: Option<&'a Buffer>,
    /// Pairs that share a vector.
    pub sharing: usize,
    /// How they are rounded for quantized matrices.
    pub format: VectorFormat,
    /// Whether the launch before chooses their experts.
    pub ids_are_new: bool,
}

impl Pass<'_> {
    /// What becomes of the products of gate and up.
    pub fn gated_epilogue(&self) -> MatvecEpilogue {
        match self.config.gate_function() {
            GateFunction::Silu => MatvecEpilogue::Silu,
            GateFunction::GeluTanh => MatvecEpilogue::Gelu,
        }
    }

    /// The products of each pair with one of its expert's `matrices`, or with gate and up, to `y`.
    pub fn expert_matvec(
        &self,
        mixture: Mixture<'_>,
        vectors: Pairs<'_>,
        matrices: &[&GpuExpertMatrix],
        y: &Buffer,
        epilogue: MatvecEpilogue,
    ) -> Result<()> {
        let (matrix, pairs) = (&matrices[0].all, mixture.pairs());
        let n_out = matrices[0].n_out as u32;
        let format = match matrix.ty.is_quantized() {
            true => vectors.format,
            false => VectorFormat::F16,
        };
        let info = self.launcher.device().info();
        // The pairs share the GPU. Sums must not depend on how many there are where a token's bits must not.
        let beside = match self.is_deterministic {
            true => mixture.counts.used,
            false => pairs,
        };
        let blocks = expert_matvec_blocks(matrix.ty, matrix.n_in as u32);
        let share = (blocks * info.multiprocessors / beside as u32).max(1);
        let plan = MatvecPlan::expert(
            matrix.ty,
            format,
            matrices.len() > 1,
            [n_out, matrix.n_in as u32],
            (share, info.max_shared_per_block),
        );
        let plan = plan.ok_or_else(|| {
            DeviceError::Unsupported(format!(
                "a row of tensor `{}` ({} elements) does not fit in shared memory",
                matrix.name, matrix.n_in
            ))
        })?;
        let kernel =
            expert_matvec::kernel(matrix.ty, format).ok_or_else(|| DeviceError::NoKernel {
                name: format!("expert_matvec of {}", matrix.ty.name()),
                count: 0,
            })?;
        let mut segments = [MatvecSegment::NONE; 3];
        for (segment, matrix) in segments.iter_mut().zip(matrices) {
            *segment = MatvecSegment {
                weights: at(&matrix.all.blocks, 0),
                y: at(y, 0),
                n_out,
                y_stride: n_out,
                ..MatvecSegment::NONE
            };
        }
        let product = MatvecParams {
            x: at(vectors.x, 0),
            norm_weight: vectors.norm.map_or(DevicePtr::NULL, |norm| at(norm, 0)),
            residual: DevicePtr::NULL,
            residual_weight: DevicePtr::NULL,
            x_out: DevicePtr::NULL,
            segments,
            n_in: matrix.n_in as u32,
            vectors: 1,
            x_stride: matrix.n_in as u32,
            epsilon: stream_epsilon(self.config),
            epilogue: epilogue as u32,
            row_split_log2: plan.row_split_log2,
            pair_ends: matvec_pair_ends(&segments, epilogue),
            order: MatvecOrder::InTurn as u32,
        };
        let params = ExpertMatvecParams {
            product,
            ids: at(&mixture.space.ids, 0),
            expert_bytes: matrices[0].bytes(),
            pairs_of_vector: vectors.sharing as u32,
            ids_are_new: vectors.ids_are_new.into(),
        };
        let shared_bytes = match blocks {
            1 => self
                .spread
                .shared_bytes(plan.shared_bytes, info.max_shared_per_block),
            _ => plan.shared_bytes,
        };
        let geometry = Geometry {
            grid: [plan.grid, pairs as u32, 1],
            block: plan.block,
            shared_bytes,
        };
        self.launcher
            .moves(pairs * matrices.len() * matrices[0].bytes() as usize);
        // SAFETY: the plan is for these matrices, of which there is one for each expert; there are as many vectors as
        // the pairs take, and room for a result of each pair.
        unsafe { self.launcher.launch(&kernel, geometry, &params) }
    }

    /// The gated product of the pairs' `gate` and `up`, in f32.
    pub fn gate_pairs(&self, mixture: Mixture<'_>) -> Result<()> {
        let Mixture { counts, space, .. } = mixture;
        let width = counts.width as u32;
        let params = GatedParams {
            gate: at(&space.gate, 0),
            up: at(&space.up, 0),
            y: at(&space.gated, 0),
            width,
            rows: mixture.pairs() as u32,
            gate_stride: width,
            up_stride: width,
            y_stride: width,
            reserved: 0,
        };
        let blocks = width.div_ceil(ELEMENTWISE_THREADS);
        let geometry = Geometry::new([blocks, mixture.pairs() as u32, 1], ELEMENTWISE_THREADS);
        let kernel = match self.config.gate_function() {
            GateFunction::Silu => SWIGLU_F32,
            GateFunction::GeluTanh => GEGLU_F32,
        };
        // SAFETY: all three have a row for each pair.
        unsafe { self.launcher.launch(&kernel, geometry, &params) }
    }

    /// Whether all products of the experts can be by experts.
    pub fn groups_experts(&self, mixture: Mixture<'_>) -> bool {
        let experts = mixture.experts;
        let matrices = [&experts.gate, &experts.up, &experts.down];
        let has_plan = |matrix: &&GpuExpertMatrix| {
            let plan = self.expert_matmul_plan(mixture, &[*matrix, *matrix]);
            plan.is_some()
        };
        matrices.iter().all(has_plan)
    }

    fn expert_matmul_plan(
        &self,
        mixture: Mixture<'_>,
        matrices: &[&GpuExpertMatrix],
    ) -> Option<MatmulPlan> {
        let matrix = &matrices[0].all;
        let is_aligned = matrices[0].bytes().is_multiple_of(16);
        if !matrix.ty.is_quantized() || !is_aligned {
            return None;
        }
        let mut n_out = [0; 3];
        for (n_out, matrix) in n_out.iter_mut().zip(matrices) {
            *n_out = matrix.n_out as u32;
        }
        let (pairs, experts) = (mixture.pairs(), mixture.counts.count);
        let [few, many] = EXPERT_MATMUL_TILES.map(|tiles| tiles * MATMUL_TILE_VECTORS);
        let vectors = match pairs <= few as usize * experts {
            true => few,
            false => many,
        };
        let info = self.launcher.device().info();
        // Experts with tokens, if these are spread evenly, share the GPU.
        let beside = pairs.min(experts) as u32;
        let plan = match self.is_deterministic {
            true => MatmulPlan::invariant,
            false => MatmulPlan::new,
        };
        plan(
            matrix.ty,
            n_out,
            matrix.n_in as u32,
            vectors,
            (info.multiprocessors / beside).max(1),
            info.max_shared_per_block,
        )
    }

    /// The products of rows by experts with one or two matrices of one type, and where they go.
    pub fn expert_matmul(
        &self,
        mixture: Mixture<'_>,
        rows: HalfRows<'_>,
        products: &[(&GpuExpertMatrix, &Buffer)],
    ) -> Result<()> {
        let matrices: Vec<&GpuExpertMatrix> = products.iter().map(|(matrix, _)| *matrix).collect();
        let (matrix, counts) = (&matrices[0].all, mixture.counts);
        let plan = self.expert_matmul_plan(mixture, &matrices);
        let plan =
            plan.and_then(|plan| Some((plan, expert_matmul::kernel(matrix.ty, plan.tiles)?)));
        let (plan, kernel) = plan.ok_or_else(|| DeviceError::NoKernel {
            name: format!("expert_matmul of {}", matrix.ty.name()),
            count: 0,
        })?;
        let mut segments = [MatvecSegment::NONE; 3];
        for (segment, (matrix, y)) in segments.iter_mut().zip(products) {
            *segment = MatvecSegment {
                weights: at(&matrix.all.blocks, 0),
                y: at(y, 0),
                n_out: matrix.n_out as u32,
                y_stride: matrix.n_out as u32,
                ..MatvecSegment::NONE
            };
        }
        let product = MatmulParams {
            x: at(rows.x, 0),
            segments,
            scales: rows.scales.map_or(DevicePtr::NULL, |scales| at(scales, 0)),
            maxima: DevicePtr::NULL,
            n_in: matrix.n_in as u32,
            vectors: rows.count as u32,
            accumulate: 0,
            k_groups_log2: plan.k_groups.ilog2(),
            stages: plan.stages,
            row_groups_log2: plan.row_groups.ilog2(),
            block_ends: plan.block_ends,
            scale: rows.scale,
            reserved: 0,
        };
        let params = ExpertMatmulParams {
            product,
            starts: at(&mixture.space.starts, 0),
            expert_bytes: matrices[0].bytes(),
            experts: counts.count as u32,
            reserved: 0,
        };
        let vectors = plan.tiles * MATMUL_TILE_VECTORS;
        let (used, experts) = (counts.used as u32, counts.count as u32);
        let blocks = expert_matmul_blocks(rows.count as u32, used, experts, vectors);
        let geometry = Geometry {
            grid: [blocks, plan.grid[1], 1],
            block: plan.block,
            shared_bytes: plan.shared_bytes,
        };
        let read = rows.count.min(counts.count) * matrices.len();
        self.launcher.moves(read * matrices[0].bytes() as usize);
        // SAFETY: the plan is for these matrices, of which there is one for each expert; rows and results have a place for
        // each pair.
        unsafe { self.launcher.launch(&kernel, geometry, &params) }
    }

    /// The gated product of `gate` and `up` by experts, in scaled f16.
    pub fn gate_expert_rows<'b>(&self, mixture: Mixture<'b>) -> Result<HalfRows<'b>> {
        let (space, width) = (mixture.space, mixture.counts.width as u32);
        let (blocks, block) = gated_rows_geometry(width, false, false);
        let params = GatedRowsParams {
            gate: at(&space.gate, 0),
            up: at(&space.up, 0),
            y: at(&space.gated, 0),
            scales: at(&space.gated_scales, 0),
            maxima: DevicePtr::NULL,
            addend: DevicePtr::NULL,
            width,
            addend_width: self.config.width as u32,
            reserved: [0; 2],
        };
        let kernel = match self.config.gate_function() {
            GateFunction::Silu => SWIGLU_ROWS,
            GateFunction::GeluTanh => GEGLU_ROWS,
        };
        let geometry = Geometry::new([blocks, mixture.pairs() as u32, 1], block);
        // SAFETY: gate, up and `gated` have a row of `width` elements, a multiple of 4, for each pair, and there is a
        // scale for each.
        unsafe { self.launcher.launch(&kernel, geometry, &params) }?;
        Ok(HalfRows {
            scales: Some(&space.gated_scales),
            ..HalfRows::new(&space.gated, mixture.pairs())
        })
    }
}
