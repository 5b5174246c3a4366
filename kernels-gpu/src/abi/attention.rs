//! Parameters of the attention family, and the layout of the paged KV cache.
//!
//! The cache is one buffer. A page holds [`PAGE_TOKENS`](super::PAGE_TOKENS) tokens of all layers;
//! in a layer's part lie K, then V, each `[n_kv_heads][PAGE_TOKENS][head_dim]` of f16. Kernels get
//! the address of page 0's part of their layer and the distance from page to page.

use super::{DevicePtr, PAGE_TOKENS, kernel_params};
use crate::prim::half::F16;

/// Pairs of adjacent elements are rotated: (0, 1), (2, 3), …
pub const ROPE_ADJACENT: u32 = 0;
/// Pairs of the halves' elements are rotated: (0, pairs), (1, pairs + 1), …
pub const ROPE_HALVES: u32 = 1;

/// A row that sees all tokens before it: the value of a `window` parameter.
pub const NO_WINDOW: u32 = u32::MAX;

/// Threads of a block of `rope_kv`.
pub const ROPE_THREADS: u32 = 128;

/// Heads of a token, of Q, K and V together, that a block of `rope_kv` handles: one a warp.
pub const ROPE_HEADS: u32 = ROPE_THREADS / 32;

/// Threads of a block of attention over many tokens.
pub const PREFILL_THREADS: u32 = 128;

/// Query rows of a tile of attention over many tokens, for each of a warp's row tiles.
pub const PREFILL_TILE_ROWS: u32 = 64;

/// Heads that a block of decoding attention handles at most: more heads of a group take more blocks.
pub const DECODE_HEADS: u32 = 8;

/// The most blocks that share a context in decoding attention.
pub const DECODE_MAX_SPLITS: u32 = 128;

kernel_params! {
    /// Per-head norm, rotation and KV write of `T` tokens; see `ops/rope_kv.rs`.
    pub struct RopeKvParams [136] {
        /// f32 `[T][q_stride]`, `n_heads * head_dim` of a row being used; with biases added.
        pub q: DevicePtr<f32>,
        /// f32 `[T][kv_stride]`, `n_kv_heads * head_dim` of a row being used; with biases added.
        pub k: DevicePtr<f32>,
        /// As `k`.
        pub v: DevicePtr<f32>,
        /// Weight of Q's RMSNorm, f32 `[head_dim]`, or null.
        pub q_norm: DevicePtr<f32>,
        /// Weight of K's RMSNorm, f32 `[head_dim]`, or null.
        pub k_norm: DevicePtr<f32>,
        /// Cosine and sine, f32 `[context][pairs][2]`.
        pub rope: DevicePtr<f32>,
        /// Factor on the queries at each position, f32 `[context]`, or null.
        pub q_factors: DevicePtr<f32>,
        /// Rotated queries, f16 `[T][n_heads * head_dim]`.
        pub q_out: DevicePtr<F16>,
        /// The layer's part of page 0.
        pub kv: DevicePtr<F16>,
        /// Pages of each sequence, `[sequences][max_pages]`.
        pub page_table: DevicePtr<u32>,
        /// Position of each token in its sequence, `[T]`.
        pub positions: DevicePtr<u32>,
        /// Sequence of each token, `[T]`.
        pub sequences: DevicePtr<u32>,
        /// Query heads.
        pub n_heads: u32,
        /// Key and value heads.
        pub n_kv_heads: u32,
        /// Elements of a head.
        pub head_dim: u32,
        /// Rotated pairs of a head; elements behind `2 * pairs` are not rotated.
        pub pairs: u32,
        /// [`ROPE_ADJACENT`] or [`ROPE_HALVES`].
        pub pairing: u32,
        /// Elements from token to token in `q`.
        pub q_stride: u32,
        /// Elements from token to token in `k` and `v`.
        pub kv_stride: u32,
        /// Entries of a sequence in the page table.
        pub max_pages: u32,
        /// Elements from page to page in `kv`.
        pub page_stride: u32,
        /// Added to the mean square in the norms.
        pub epsilon: f32,
    }

    /// Attention of many tokens; see `ops/attention_prefill.rs`.
    pub struct AttentionPrefillParams [72] {
        /// Rotated queries, f16 `[T][n_heads * head_dim]`.
        pub q: DevicePtr<F16>,
        /// Result, f16 `[T][n_heads * head_dim]`.
        pub out: DevicePtr<F16>,
        /// The layer's part of page 0.
        pub kv: DevicePtr<F16>,
        /// Pages of each sequence, `[sequences][max_pages]`.
        pub page_table: DevicePtr<u32>,
        /// The row of `q` where a sequence's tokens begin, and at the end `T`: `[sequences + 1]`.
        pub query_starts: DevicePtr<u32>,
        /// Position of each sequence's first token of `q`, `[sequences]`.
        pub first_positions: DevicePtr<u32>,
        /// Query heads.
        pub n_heads: u32,
        /// Key and value heads.
        pub n_kv_heads: u32,
        /// Entries of a sequence in the page table.
        pub max_pages: u32,
        /// Elements from page to page in `kv`.
        pub page_stride: u32,
        /// Tokens that a row sees, its own and those before it, at most; or [`NO_WINDOW`].
        pub window: u32,
        /// Factor on the scores.
        pub scale: f32,
    }

    /// Attention of one new token of each sequence; see `ops/attention_decode.rs`.
    pub struct AttentionDecodeParams [160] {
        /// f32 `[n][q_stride]`, with biases added.
        pub q: DevicePtr<f32>,
        /// f32 `[n][kv_stride]`, with biases added.
        pub k: DevicePtr<f32>,
        /// As `k`.
        pub v: DevicePtr<f32>,
        /// Weight of Q's RMSNorm, f32 `[head_dim]`, or null.
        pub q_norm: DevicePtr<f32>,
        /// Weight of K's RMSNorm, f32 `[head_dim]`, or null.
        pub k_norm: DevicePtr<f32>,
        /// Cosine and sine, f32 `[context][pairs][2]`.
        pub rope: DevicePtr<f32>,
        /// Factor on the queries at each position, f32 `[context]`, or null.
        pub q_factors: DevicePtr<f32>,
        /// The layer's part of page 0.
        pub kv: DevicePtr<F16>,
        /// Pages of each sequence, `[n][max_pages]`.
        pub page_table: DevicePtr<u32>,
        /// Position of each sequence's new token, `[n]`.
        pub positions: DevicePtr<u32>,
        /// Result, f32 or f16 `[n][n_heads * head_dim]`.
        pub out: DevicePtr<()>,
        /// [`decode_partial_floats`] f32 for each sequence.
        pub partial: DevicePtr<f32>,
        /// One for each block in the grid's y and z, zero between launches.
        pub arrived: DevicePtr<u32>,
        /// Query heads.
        pub n_heads: u32,
        /// Key and value heads.
        pub n_kv_heads: u32,
        /// Rotated pairs of a head; elements behind `2 * pairs` are not rotated.
        pub pairs: u32,
        /// [`ROPE_ADJACENT`] or [`ROPE_HALVES`].
        pub pairing: u32,
        /// Elements from token to token in `q`.
        pub q_stride: u32,
        /// Elements from token to token in `k` and `v`.
        pub kv_stride: u32,
        /// Entries of a sequence in the page table.
        pub max_pages: u32,
        /// Elements from page to page in `kv`.
        pub page_stride: u32,
        /// Tokens that the new one sees, itself included, at most; or [`NO_WINDOW`].
        pub window: u32,
        /// Factor on the scores.
        pub scale: f32,
        /// Added to the mean square in the norms.
        pub epsilon: f32,
        /// 1 where the result is f16, 0 where it is f32.
        pub out_f16: u32,
        /// 1 where the step's keys and values are in the cache already, by the kernel before: rows may then be positions
        /// of one sequence.
        pub is_cached: u32,
        /// 0.
        pub reserved: u32,
    }
}

/// Dynamic shared memory of `attention_prefill`: a tile of queries, one of K and one of V, whose
/// rows have 16 bytes more than their data so that the rows of a column lie in different banks.
pub const fn prefill_shared_bytes(head_dim: u32, row_tiles: u32) -> u32 {
    (PREFILL_TILE_ROWS * row_tiles + 2 * PAGE_TOKENS) * (2 * head_dim + 16)
}

/// Blocks in y of `attention_decode`.
pub const fn decode_grid_y(n_heads: u32, n_kv_heads: u32) -> u32 {
    n_kv_heads * (n_heads / n_kv_heads).div_ceil(DECODE_HEADS)
}

/// Bytes from row to row of a decoding block's queries in shared memory: an odd multiple of 64, so
/// that the rows of two neighbours lie in different banks.
pub const fn decode_query_stride(head_dim: u32) -> u32 {
    (2 * head_dim + 63) / 128 * 128 + 64
}

/// Threads of a block of `attention_decode` that has a context for itself: four warps for each page that it reads at
/// the same time, as many as have registers beside a block of the kernel before. A block that has to wait for
/// that kernel's end costs more than it gains.
pub const fn decode_threads(head_dim: u32) -> u32 {
    match head_dim {
        ..=64 => 256,
        _ => 128,
    }
}

/// Threads of a block of `attention_decode` that shares a long context with others: of these, more fit on the device the
/// fewer threads they have.
pub const DECODE_SHARED_THREADS: u32 = 128;

/// Dynamic shared memory of `attention_decode`: queries in two roundings, the new key and value, the
/// warps' results with their maxima and sums, the new scores, a flag.
pub const fn decode_shared_bytes(head_dim: u32, threads: u32) -> u32 {
    let queries = 2 * DECODE_HEADS * decode_query_stride(head_dim);
    let floats = 2 * head_dim + threads / 32 * DECODE_HEADS * (head_dim + 2) + DECODE_HEADS;
    queries + 4 * floats + 16
}

/// f32 of scratch memory that `attention_decode` needs for each sequence with `splits` blocks in x
/// and `grid_y` in y: each block's unscaled result, maximum and sum of each head.
pub const fn decode_partial_floats(head_dim: u32, splits: u32, grid_y: u32) -> u32 {
    grid_y * splits * DECODE_HEADS * (head_dim + 2)
}
