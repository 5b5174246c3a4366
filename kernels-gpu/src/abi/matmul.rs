//! Parameters and launch of the products of a quantized matrix with many vectors, on tensor cores.

use super::{DevicePtr, MatvecSegment, WeightType, kernel_params};
use crate::prim::half::F16;
#[cfg(doc)]
use crate::prim::scale::FACTOR_MAX;

/// Rows of the matrix that a warp multiplies: those of a tensor core's product.
pub const MATMUL_WARP_ROWS: u32 = 16;

/// Elements of each of them that it takes at a time: a unit for each of the four lanes that share a row.
pub const MATMUL_WARP_ELEMENTS: u32 = 4 * 32;

/// Vectors of a tensor core's product.
pub const MATMUL_TILE_VECTORS: u32 = 8;

/// Tiles of vectors that there are kernels for: a block multiplies with all vectors of its tiles.
pub const MATMUL_TILES: [u32; 3] = [2, 4, 8];

/// Most warps of a block: with 128 registers a thread they fill a multiprocessor. The kernels for the fewest
/// tiles have 64, so that two blocks fit.
pub const MATMUL_MAX_WARPS: u32 = 16;

/// Most groups of rows of a block.
const MAX_ROW_GROUPS: u32 = 4;

/// Most stages: a thread counts the groups of its copies at compile time.
pub const MATMUL_MAX_STAGES: u32 = 4;

/// Fewest warps that share rows: with them a stage is whole blocks of every type.
pub const MATMUL_MIN_K_GROUPS: u32 = 2;

kernel_params! {
    /// Products of up to three matrices of one type with the same vectors:
    /// `y[t][o] = bias[o] + scale * scales[t] * sum over i of weights[o][i] * x[t][i]`, or that added to `y`.
    pub struct MatmulParams [160] {
        /// Vectors, f16 `[vectors][n_in]`, at a multiple of 16 bytes; below 2^32 elements.
        pub x: DevicePtr<F16>,
        /// The matrices.
        pub segments: [MatvecSegment; 3],
        /// What each vector was divided by, or null for 1.
        pub scales: DevicePtr<f32>,
        /// Where the bits of each vector's largest `|y|` go if that is above [`FACTOR_MAX`]; 0 before, as it
        /// stays otherwise. Or null.
        pub maxima: DevicePtr<u32>,
        /// Elements of a row: a multiple of the block's.
        pub n_in: u32,
        /// Vectors.
        pub vectors: u32,
        /// 1 to add to `y`, 0 to overwrite it.
        pub accumulate: u32,
        /// [`MatmulPlan::k_groups`], as a power of two.
        pub k_groups_log2: u32,
        /// [`MatmulPlan::stages`].
        pub stages: u32,
        /// [`MatmulPlan::row_groups`], as a power of two.
        pub row_groups_log2: u32,
        /// [`MatmulPlan::block_ends`].
        pub block_ends: [u32; 2],
        /// What all vectors were divided by.
        pub scale: f32,
        /// Zero.
        pub reserved: u32,
    }
}

/// Elements of a row in a stage.
pub const fn matmul_stage_elements(k_groups: u32) -> u32 {
    k_groups * MATMUL_WARP_ELEMENTS
}

/// Shared memory for a row's part of a stage, which lies as far from a multiple of 16 as in global memory:
/// an odd multiple of 64 bytes, so that two rows' 16-byte pieces are in different banks.
pub const fn matmul_row_bytes(ty: WeightType, k_groups: u32) -> u32 {
    let bytes = ty.span_bytes(matmul_stage_elements(k_groups));
    (bytes + 64).next_multiple_of(128) - 64
}

/// Shared memory for a stage's part of the vectors.
pub const fn matmul_vector_bytes(tiles: u32, k_groups: u32) -> u32 {
    2 * tiles * MATMUL_TILE_VECTORS * matmul_stage_elements(k_groups)
}

/// The launch of a kernel for matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatmulPlan {
    /// Tiles of the kernel to take: one of [`MATMUL_TILES`].
    pub tiles: u32,
    /// [`MATMUL_WARP_ROWS`] rows each, of a block; a power of two.
    pub row_groups: u32,
    /// Warps that share a group of rows, each with a part of every stage; a power of two.
    pub k_groups: u32,
    /// Stages in shared memory, of which one is multiplied while the others are on their way.
    pub stages: u32,
    /// Blocks: in x those of the vectors, in y those of the rows, so that blocks with the same rows run
    /// together and share them through the L2 cache.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Blocks in y up to the end of the first matrix, and of the second.
    pub block_ends: [u32; 2],
}

impl MatmulPlan {
    /// The launch for `vectors` vectors and up to three matrices of `n_out` rows of `n_in` elements, on a GPU
    /// with `multiprocessors` multiprocessors and `max_shared` bytes of shared memory a block. `None` where
    /// two stages do not fit in it.
    pub fn new(
        ty: WeightType,
        n_out: [u32; 3],
        n_in: u32,
        vectors: u32,
        multiprocessors: u32,
        max_shared: u32,
    ) -> Option<Self> {
        Self::with_k_groups(ty, n_out, n_in, vectors, None, multiprocessors, max_shared)
    }

    /// The launch whose results do not depend on how many vectors there are: a sum's order follows from
    /// [`k_groups`](Self::k_groups) alone, and those are as many for any number of vectors. `None` where some number of
    /// them has no such launch.
    pub fn invariant(
        ty: WeightType,
        n_out: [u32; 3],
        n_in: u32,
        vectors: u32,
        multiprocessors: u32,
        max_shared: u32,
    ) -> Option<Self> {
        let with = |vectors: u32, k_groups: u32| {
            let k_groups = Some(k_groups);
            Self::with_k_groups(
                ty,
                n_out,
                n_in,
                vectors,
                k_groups,
                multiprocessors,
                max_shared,
            )
        };
        let [.., most_tiles] = MATMUL_TILES;
        // The most tiles need the most memory; that there are more blocks of them changes nothing.
        let most_vectors = MATMUL_TILE_VECTORS * most_tiles;
        let fits = |&k_groups: &u32| with(most_vectors, k_groups).is_some();
        let k_groups = [4, MATMUL_MIN_K_GROUPS].into_iter().find(fits)?;
        with(vectors, k_groups)
    }

    fn with_k_groups(
        ty: WeightType,
        n_out: [u32; 3],
        n_in: u32,
        vectors: u32,
        fixed_k_groups: Option<u32>,
        multiprocessors: u32,
        max_shared: u32,
    ) -> Option<Self> {
        let wanted = vectors.div_ceil(MATMUL_TILE_VECTORS);
        let [few, some, many] = MATMUL_TILES;
        let tiles = match wanted {
            _ if wanted <= few => few,
            _ if wanted <= some => some,
            _ => many,
        };
        let grid_x = wanted.div_ceil(tiles).max(1);
        let blocks_of = |row_groups: u32| n_out.map(|n| n.div_ceil(MATMUL_WARP_ROWS * row_groups));
        let blocks = |row_groups: u32| blocks_of(row_groups).iter().sum::<u32>().max(1);

        // More rows a block move the vectors less often, as long as there is a block for nearly every
        // multiprocessor.
        let fills = |row_groups: u32| 8 * grid_x * blocks(row_groups) >= 7 * multiprocessors;
        let mut row_groups = MAX_ROW_GROUPS;
        while row_groups > 1 && !fills(row_groups) {
            row_groups /= 2;
        }

        loop {
            // A block that has the multiprocessor to itself takes all the warps that fit. Of those that share it
            // each takes at most half: one multiplies while the other waits at its barrier. (Those with few tiles
            // are small enough as they are.)
            let alone = grid_x * blocks(row_groups) <= multiprocessors;
            let most_rows = row_groups == MAX_ROW_GROUPS;
            let mut k_groups = match alone {
                _ if fixed_k_groups.is_some() => fixed_k_groups.unwrap_or_default(),
                true if !most_rows => 8,
                false if most_rows && tiles != few => 2,
                _ => 4,
            };
            while k_groups > MATMUL_MIN_K_GROUPS && n_in <= matmul_stage_elements(k_groups / 2) {
                k_groups /= 2;
            }
            while k_groups >= MATMUL_MIN_K_GROUPS {
                let stage_bytes = matmul_vector_bytes(tiles, k_groups)
                    + MATMUL_WARP_ROWS * row_groups * matmul_row_bytes(ty, k_groups);
                let warps = row_groups * k_groups;
                let two = !alone && (tiles == few || 2 * warps <= MATMUL_MAX_WARPS);
                if let Some(stages) = stages(stage_bytes, two, max_shared) {
                    let [first, second, _] = blocks_of(row_groups);
                    return Some(Self {
                        tiles,
                        row_groups,
                        k_groups,
                        stages,
                        grid: [grid_x, blocks(row_groups), 1],
                        block: 32 * warps,
                        shared_bytes: stages * stage_bytes,
                        block_ends: [first, first + second],
                    });
                }
                if fixed_k_groups.is_some() {
                    break;
                }
                k_groups /= 2;
            }
            if row_groups == 1 {
                return None;
            }
            row_groups /= 2;
        }
    }
}

/// How many stages of a size to have: as many as leave room for another block, where two are to be on a
/// multiprocessor (the registers suffice for both), or as many as fit; two at least.
fn stages(stage_bytes: u32, two: bool, max_shared: u32) -> Option<u32> {
    // The driver keeps a kilobyte of each block for itself.
    let beside_another = max_shared.saturating_sub(1024) / 2 / stage_bytes;
    let stages = match two && beside_another >= 2 {
        true => beside_another,
        false => max_shared / stage_bytes,
    };
    (stages >= 2).then_some(stages.min(MATMUL_MAX_STAGES))
}
