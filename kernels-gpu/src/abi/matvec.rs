//! Parameters and launch of the products of a weight matrix with a few vectors.

use bytemuck::{Pod, Zeroable};

use super::{DevicePtr, WeightType, kernel_params};

/// Elements of an activation vector that lie together in shared memory, with their scales.
pub const ACTIVATION_GROUP: u32 = 32;

/// Most warps of a matrix-vector block: two blocks of one vector's kernels then fit on a multiprocessor with
/// 80 registers a thread, so that one kernel starts while the one before ends.
pub const MATVEC_MAX_WARPS: u32 = 12;

/// Most warps for a type of weights: fewer where two units take more registers, and their tiles so much shared
/// memory that no more would fit.
pub const fn matvec_max_warps(ty: WeightType) -> u32 {
    match ty {
        WeightType::Q5K | WeightType::Q6K => 10,
        _ => MATVEC_MAX_WARPS,
    }
}

/// The same for the kernels of chosen experts, which keep where a pair's matrices and results lie as well.
pub const fn expert_matvec_max_warps(ty: WeightType) -> u32 {
    match ty {
        WeightType::Q4K => 10,
        _ => matvec_max_warps(ty),
    }
}

/// Blocks of an expert's product that share a multiprocessor: two where a row leaves at least half of a warp's lanes idle.
pub const fn expert_matvec_blocks(ty: WeightType, n_in: u32) -> u32 {
    if 2 * n_in <= ty.tile_elements() * ty.matvec_tiles() {
        2
    } else {
        1
    }
}

/// Most vectors of a matrix-vector kernel.
pub const MATVEC_MAX_VECTORS: u32 = 4;

/// Sums of squares that a block keeps of each vector: one of each warp, and zeros up to a multiple of four.
pub const MATVEC_WARP_SQUARES: u32 = MATVEC_MAX_WARPS.next_multiple_of(4);

/// Sums of squares that a block keeps.
pub const MATVEC_SQUARES: usize = (MATVEC_WARP_SQUARES * MATVEC_MAX_VECTORS) as usize;

/// Partial products that a block keeps: of each warp, two rows and all vectors.
pub const MATVEC_PARTIAL_SUMS: usize = 2 * (MATVEC_MAX_WARPS * MATVEC_MAX_VECTORS) as usize;

/// Vectors that the kernels for a type are made for: the numbers in their names. Fewer where quantized
/// weights are multiplied in f32, which is for precision and not for speed.
pub const fn matvec_vectors(ty: WeightType, activations: VectorFormat) -> &'static [u32] {
    match activations {
        VectorFormat::F16 if ty.is_quantized() => &[1, 4],
        _ => &[1, 2, 4],
    }
}

/// How a kernel keeps its activations in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VectorFormat {
    /// 8-bit integers with a scale for each half of a group, for quantized weights only.
    Q8,
    /// f16 with a power of two for each group.
    F16,
}

impl VectorFormat {
    /// The name that is in kernel names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q8 => "q8",
            Self::F16 => "f16",
        }
    }

    /// Bytes of a group's elements.
    pub const fn group_bytes(self) -> u32 {
        match self {
            Self::Q8 => ACTIVATION_GROUP,
            Self::F16 => 2 * ACTIVATION_GROUP,
        }
    }

    /// Bytes of a group's scale; for Q8 of the scales of its halves, and of their sums.
    pub const fn scale_bytes(self) -> u32 {
        match self {
            Self::Q8 => 8,
            Self::F16 => 4,
        }
    }

    /// Bytes of `vectors` vectors of `n_in` elements.
    pub const fn bytes(self, vectors: u32, n_in: u32) -> u32 {
        let groups = n_in.div_ceil(ACTIVATION_GROUP);
        vectors * groups * (self.group_bytes() + self.scale_bytes())
    }
}

/// Bytes that a warp takes of a row at a time.
pub const fn matvec_tile_bytes(ty: WeightType) -> u32 {
    ty.matvec_tiles() * ty.tile_bytes()
}

/// What they take up in shared memory.
pub const fn matvec_slot_bytes(ty: WeightType) -> u32 {
    ty.span_bytes(ty.matvec_tiles() * ty.tile_elements())
}

/// Pairs of tiles that a warp's ring has room for: as many as let all warps, with the vectors beside them,
/// stay within half of an H100's shared memory. The weights of the next launch then come while a kernel
/// waits for the one before it and encodes its vectors: 80 KB a multiprocessor are what memory delivers in
/// the 3 us that this takes.
pub const fn matvec_slots(ty: WeightType) -> u32 {
    const RING_BYTES: u32 = 84_000;
    let slots = RING_BYTES / (2 * MATVEC_MAX_WARPS * matvec_slot_bytes(ty));
    if slots < 3 {
        3
    } else if slots > 8 {
        8
    } else {
        slots
    }
}

/// Shared memory of a warp for its tiles of two rows.
pub const fn matvec_warp_bytes(ty: WeightType) -> u32 {
    matvec_slots(ty) * 2 * matvec_slot_bytes(ty)
}

/// What becomes of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum MatvecEpilogue {
    /// It is written to `y`.
    Store = 0,
    /// It is added to what is in `y`.
    Add = 1,
    /// `y = silu(first segment) * second segment`, which have the same size; `y` is the first's.
    Silu = 2,
    /// The same with gelu in its tanh form.
    Gelu = 3,
}

/// How launches with the same vectors follow each other, that do not depend on each other otherwise: products
/// with matrices of different types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum MatvecOrder {
    /// Waits for the launch before; lets the next one start at once, to load its first weights.
    InTurn = 0,
    /// Waits for the launch before, and lets the next one start only then: it is [`Beside`](Self::Beside) this
    /// one.
    First = 1,
    /// Starts when what the launch before has waited for is complete, and so does not wait for that launch, but
    /// in the end, because those that follow rely on both.
    Beside = 2,
}

/// One of the matrices that a launch multiplies with, of few vectors or many.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct MatvecSegment {
    /// Blocks of the matrix, row after row, at a multiple of 16 bytes.
    pub weights: DevicePtr<u8>,
    /// Results, f32.
    pub y: DevicePtr<f32>,
    /// `n_out` f32 that are added to the products, or null.
    pub bias: DevicePtr<f32>,
    /// Rows of the matrix; 0 for a segment that is left out.
    pub n_out: u32,
    /// Elements from vector to vector in `y`.
    pub y_stride: u32,
}

impl MatvecSegment {
    /// A segment that is left out.
    pub const NONE: Self = Self {
        weights: DevicePtr::NULL,
        y: DevicePtr::NULL,
        bias: DevicePtr::NULL,
        n_out: 0,
        y_stride: 0,
    };
}

/// Pairs of rows up to the end of each segment, as warps take them: two rows of a segment, or one each of
/// the first two where they are gate and up.
pub fn matvec_pair_ends(segments: &[MatvecSegment; 3], epilogue: MatvecEpilogue) -> [u32; 3] {
    let [a, b, c] = segments.map(|segment| segment.n_out.div_ceil(2));
    match epilogue {
        MatvecEpilogue::Store | MatvecEpilogue::Add => [a, a + b, a + b + c],
        MatvecEpilogue::Silu | MatvecEpilogue::Gelu => [segments[0].n_out; 3],
    }
}

kernel_params! {
    /// Products of up to three matrices of one type with the same vectors:
    /// `y[t][o] = sum over i of weights[o][i] * v[t][i]`, where `v` is
    ///
    /// 1. `x`, or with a residual `x + rms_norm(residual) * residual_weight`, which one block writes to
    ///    `x_out`;
    /// 2. the RMSNorm of that times `norm_weight`, where there is one.
    pub struct MatvecParams [176] {
        /// Vectors, f32; each begins at a multiple of 16 bytes.
        pub x: DevicePtr<f32>,
        /// `n_in` factors at a multiple of 16 bytes, or null for no norm.
        pub norm_weight: DevicePtr<f32>,
        /// Vectors as `x`, or null.
        pub residual: DevicePtr<f32>,
        /// `n_in` factors at a multiple of 16 bytes.
        pub residual_weight: DevicePtr<f32>,
        /// Vectors as `x`, which they do not overlap with.
        pub x_out: DevicePtr<f32>,
        /// The matrices.
        pub segments: [MatvecSegment; 3],
        /// Elements of a row: a multiple of the block's.
        pub n_in: u32,
        /// Vectors: at most the number in the kernel's name.
        pub vectors: u32,
        /// Elements from vector to vector in `x`, `residual` and `x_out`: a multiple of 4.
        pub x_stride: u32,
        /// Added to the mean squares.
        pub epsilon: f32,
        /// A [`MatvecEpilogue`].
        pub epilogue: u32,
        /// [`MatvecPlan::row_split_log2`].
        pub row_split_log2: u32,
        /// [`matvec_pair_ends`] of the segments.
        pub pair_ends: [u32; 3],
        /// A [`MatvecOrder`].
        pub order: u32,
    }
}

/// The launch of a matrix-vector kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatvecPlan {
    /// Vectors of the kernel to take: a number of [`matvec_vectors`].
    pub vectors: u32,
    /// Blocks.
    pub grid: u32,
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block, at least. A kernel may start while the one before it still
    /// runs, and the GPU then puts two of its blocks on one multiprocessor, if there is room, and none on
    /// another. So every other launch of a chain is given
    /// [`matvec_alone_bytes`]: two of its blocks have no room, and beside one of them there is room for
    /// one of the next launch.
    pub shared_bytes: u32,
    /// Warps that share a row, as a power of two.
    pub row_split_log2: u32,
}

impl MatvecPlan {
    /// The launch for `vectors` vectors of `n_in` elements and matrices of `n_out` rows in all (of one of
    /// the two where they are gate and up), on a GPU with `multiprocessors` multiprocessors and
    /// `max_shared` bytes of shared memory a block. `None` where the vectors do not fit in it, or are
    /// none or more than a kernel takes: multiply fewer at a time.
    #[allow(clippy::too_many_arguments)] // the numbers that a matrix and a device come with
    pub fn new(
        ty: WeightType,
        activations: VectorFormat,
        gated: bool,
        n_out: u32,
        n_in: u32,
        vectors: u32,
        multiprocessors: u32,
        max_shared: u32,
    ) -> Option<Self> {
        let device = (multiprocessors, max_shared);
        let most_warps = matvec_max_warps(ty);
        Self::with_warps(
            ty,
            activations,
            gated,
            [n_out, n_in, vectors],
            device,
            most_warps,
        )
    }

    /// The launch for a pair's expert, as [`new`](Self::new)'s for one vector.
    pub fn expert(
        ty: WeightType,
        activations: VectorFormat,
        gated: bool,
        [n_out, n_in]: [u32; 2],
        (multiprocessors, max_shared): (u32, u32),
    ) -> Option<Self> {
        let device = (multiprocessors, max_shared);
        let most_warps = expert_matvec_max_warps(ty);
        Self::with_warps(ty, activations, gated, [n_out, n_in, 1], device, most_warps)
    }

    fn with_warps(
        ty: WeightType,
        activations: VectorFormat,
        gated: bool,
        [n_out, n_in, vectors]: [u32; 3],
        (multiprocessors, max_shared): (u32, u32),
        max_warps: u32,
    ) -> Option<Self> {
        /// Fewer warps do not keep the memory busy, so that a block rather takes all shared memory.
        const FEW_WARPS: u32 = 8;
        let kernels = matvec_vectors(ty, activations);
        let vectors = *kernels.iter().find(|&&n| n >= vectors && vectors > 0)?;
        let activation_bytes = activations.bytes(vectors, n_in);
        let warps_in = |shared: u32| {
            let for_tiles = shared.checked_sub(activation_bytes + MATVEC_STATIC_BYTES)?;
            Some((for_tiles / matvec_warp_bytes(ty)).min(max_warps)).filter(|&n| n > 0)
        };
        let most_warps = warps_in(matvec_alone_bytes(max_shared) - MATVEC_STATIC_BYTES)
            .filter(|&warps| warps >= FEW_WARPS)
            .or_else(|| warps_in(max_shared))?;

        // A warp takes two rows at a time. Where that leaves warps idle, several share a row.
        let pairs = if gated { n_out } else { n_out.div_ceil(2) }.max(1);
        let tiles = n_in.div_ceil(ty.tile_elements() * ty.matvec_tiles()).max(1);
        let split = (most_warps * multiprocessors / pairs).clamp(1, tiles.min(most_warps));
        let row_split_log2 = split.ilog2();
        let split = 1 << row_split_log2;
        // No warp without work, but enough of them to read the vectors quickly.
        let busy = pairs.div_ceil(multiprocessors) * split;
        let wanted = busy.max(n_in.div_ceil(256)).next_multiple_of(split);
        let warps = wanted.min(most_warps / split * split);
        Some(Self {
            vectors,
            grid: pairs.min(multiprocessors),
            block: 32 * warps,
            shared_bytes: activation_bytes + warps * matvec_warp_bytes(ty),
            row_split_log2,
        })
    }
}

/// The least shared memory that keeps two blocks off one multiprocessor, on a GPU with `max_shared` bytes of
/// it a block; see [`MatvecPlan::shared_bytes`].
pub const fn matvec_alone_bytes(max_shared: u32) -> u32 {
    max_shared / 2
}

/// The least shared memory that keeps two blocks from lying beside one of [`matvec_alone_bytes`].
pub const fn matvec_beside_bytes(max_shared: u32) -> u32 {
    max_shared / 4
}

/// At least the static shared memory of a matrix-vector kernel.
const MATVEC_STATIC_BYTES: u32 = 4096;
