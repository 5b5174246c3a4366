//! Parameters and launch of the products of a quantized matrix with many vectors in 8 bits, on integer tensor
//! cores; and of the kernels that encode the vectors.

#[cfg(doc)]
use super::MatvecOrder;
use super::{
    ACTIVATION_GROUP, DevicePtr, MATMUL_TILE_VECTORS, MatvecSegment, WeightType, kernel_params,
};

/// Rows of the matrix that a warp multiplies at a time: those of a tensor core's product.
pub const MATMUL_Q8_ROWS: u32 = 16;

/// Elements of each of them that it takes at a time: a block of the K types.
pub const MATMUL_Q8_STEP: u32 = 256;

/// Groups of [`ACTIVATION_GROUP`] elements of a step.
pub const MATMUL_Q8_UNITS: u32 = MATMUL_Q8_STEP / ACTIVATION_GROUP;

/// Warps of a block.
pub const MATMUL_Q8_WARPS: u32 = 8;

/// Blocks of a multiprocessor: two, of which one multiplies while the other adds up, where the registers suffice.
pub const fn matmul_q8_blocks(ty: WeightType, tiles: u32) -> u32 {
    match (ty, tiles) {
        (WeightType::Q6K, 4) => 1,
        _ => 2,
    }
}

/// Steps that a warp has room for: one is multiplied while the next is on its way. Two blocks' warps have 37 KB of
/// Q4_K on their way to a multiprocessor then, which is what memory delivers while it takes to answer; more room
/// would be taken from the L1 cache, in which the vectors are.
pub const MATMUL_Q8_SLOTS: u32 = 2;

/// Tiles of [`MATMUL_TILE_VECTORS`] vectors that there are kernels for.
pub const MATMUL_Q8_TILES: [u32; 4] = [1, 2, 3, 4];

/// Most vectors of a launch.
pub const MATMUL_Q8_MAX_VECTORS: u32 = 4 * MATMUL_TILE_VECTORS;

/// Threads of a block of the kernels that encode rows, but for those that norm them.
pub const Q8_ROWS_THREADS: u32 = 256;

/// Elements that a thread of them encodes at a time.
pub const Q8_ROWS_ELEMENTS: u32 = 4;

/// Vectors in 8 bits, as the kernels of `ops/matmul_q8.rs` take them: for each group of 32 elements
/// `d = max |x| / 127` and `round(x / d)`.
///
/// They are cut into steps of [`MATMUL_Q8_STEP`] elements and tiles of [`MATMUL_TILE_VECTORS`] vectors: element
/// `32 u + 16 h + 4 t + b` of a step of vector `g` of a tile is byte `b` of word `h` of unit `u % 2` of lane
/// `4 g + t` of pair `u / 2`, so that a lane loads its part of two products at once. Elements behind the end of a
/// vector are zeros.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Q8Vectors {
    /// The integers, `[steps][tiles][pairs][lanes][units of the pair][words]`.
    pub elements: DevicePtr<u32>,
    /// The `d`, f32 `[steps][tiles][pairs][pairs of vectors][units of the pair][vectors of the pair]`.
    pub scales: DevicePtr<f32>,
    /// The sums of the groups' elements as they are encoded, rounded to 10 bits of fraction, f32 `[steps][tiles][units][vectors]`.
    pub sums: DevicePtr<f32>,
}

impl Q8Vectors {
    /// None.
    pub const NULL: Self = Self {
        elements: DevicePtr::NULL,
        scales: DevicePtr::NULL,
        sums: DevicePtr::NULL,
    };
}

/// Steps of a vector.
pub const fn matmul_q8_steps(n_in: u32) -> u32 {
    n_in.div_ceil(MATMUL_Q8_STEP)
}

/// Bytes of the elements of `vectors` vectors, and of their scales or their sums.
pub const fn q8_vectors_bytes(n_in: u32, vectors: u32) -> [u32; 2] {
    let tiles = vectors.div_ceil(MATMUL_TILE_VECTORS);
    let elements = matmul_q8_steps(n_in) * MATMUL_Q8_STEP * tiles * MATMUL_TILE_VECTORS;
    [elements, 4 * elements / ACTIVATION_GROUP]
}

/// Shared memory for a row's part of a step, which lies as far from a multiple of 16 as in global memory: an odd
/// multiple of 16 bytes, so that the words that a warp loads of eight rows are in different banks.
pub const fn matmul_q8_row_bytes(ty: WeightType) -> u32 {
    let pieces = ty.span_bytes(MATMUL_Q8_STEP) / 16;
    (pieces | 1) * 16
}

/// Shared memory of a warp for its steps.
pub const fn matmul_q8_warp_bytes(ty: WeightType) -> u32 {
    MATMUL_Q8_SLOTS * MATMUL_Q8_ROWS * matmul_q8_row_bytes(ty)
}

kernel_params! {
    /// Products of up to three matrices of one type with the same vectors:
    /// `y[t][o] = bias[o] + sum over i of weights[o][i] * x[t][i]`, or that added to `y`.
    pub struct MatmulQ8Params [152] {
        /// The vectors.
        pub x: Q8Vectors,
        /// The matrices.
        pub segments: [MatvecSegment; 3],
        /// Elements of a row: a multiple of the block's.
        pub n_in: u32,
        /// Vectors.
        pub vectors: u32,
        /// [`MatmulQ8Plan::tile_ends`].
        pub tile_ends: [u32; 3],
        /// [`MatmulQ8Plan::k_groups`], as a power of two.
        pub k_groups_log2: u32,
        /// 1 to add to `y`, 0 to overwrite it.
        pub accumulate: u32,
        /// A [`MatvecOrder`]; in turn and first are the same.
        pub order: u32,
    }

    /// Rows that are encoded: `x` as it is, normed, or as a gated product.
    pub struct Q8RowsParams [64] {
        /// Rows, f32, one behind the other.
        pub x: DevicePtr<f32>,
        /// The weight of the norm, or the other factor of the gated product: rows as `x`; null for rows as they are.
        pub other: DevicePtr<f32>,
        /// Where the rows go.
        pub y: Q8Vectors,
        /// Where their elements go before they are encoded, f32; or null.
        pub values: DevicePtr<f32>,
        /// Elements of a row: a multiple of [`ACTIVATION_GROUP`].
        pub width: u32,
        /// Rows.
        pub rows: u32,
        /// Added to the mean square of a norm.
        pub epsilon: f32,
        /// Zero.
        pub reserved: u32,
    }
}

/// The launch of a kernel for matrix products in 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatmulQ8Plan {
    /// Tiles of the kernel to take: one of [`MATMUL_Q8_TILES`].
    pub tiles: u32,
    /// Warps that share rows, each with every so many-th step; a power of two.
    pub k_groups: u32,
    /// Blocks: each takes tiles of [`MATMUL_Q8_ROWS`] rows in turn.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Tiles of rows up to the end of each matrix.
    pub tile_ends: [u32; 3],
}

impl MatmulQ8Plan {
    /// The launch for `vectors` vectors and up to three matrices of `n_out` rows of `n_in` elements, on a GPU
    /// with `multiprocessors` multiprocessors and `max_shared` bytes of shared memory a block. `None` where there
    /// are too many vectors, or a block's memory does not suffice.
    pub fn new(
        ty: WeightType,
        n_out: [u32; 3],
        n_in: u32,
        vectors: u32,
        multiprocessors: u32,
        max_shared: u32,
    ) -> Option<Self> {
        let wanted = vectors.div_ceil(MATMUL_TILE_VECTORS);
        let tiles = MATMUL_Q8_TILES.into_iter().find(|&tiles| tiles == wanted)?;
        let k_groups = matmul_q8_steps(n_in)
            .next_power_of_two()
            .min(MATMUL_Q8_WARPS);
        let row_groups = MATMUL_Q8_WARPS / k_groups;
        let [a, b, c] = n_out.map(|n| n.div_ceil(MATMUL_Q8_ROWS));
        let tile_ends = [a, a + b, a + b + c];
        let blocks = tile_ends[2]
            .div_ceil(row_groups)
            .min(matmul_q8_blocks(ty, tiles) * multiprocessors);
        let sums = 4 * MATMUL_Q8_ROWS * MATMUL_TILE_VECTORS * tiles;
        let shared_bytes = MATMUL_Q8_WARPS * (matmul_q8_warp_bytes(ty) + sums);
        (shared_bytes <= max_shared).then_some(Self {
            tiles,
            k_groups,
            grid: [blocks.max(1), 1, 1],
            block: 32 * MATMUL_Q8_WARPS,
            shared_bytes,
            tile_ends,
        })
    }
}
