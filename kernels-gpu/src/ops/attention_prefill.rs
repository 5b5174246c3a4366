//! Attention of many tokens on the tensor cores, tile by tile with an online softmax (Dao et al.
//! 2022, arXiv 2205.14135).
//!
//! - Formula: `out = softmax(scale * q K^T) V` for every query row, over the keys at its own position
//!   and before, at most `window` of them.
//! - Shapes: see [`AttentionPrefillParams`]; several sequences in one launch. The heads that share a
//!   KV head are folded into rows: row `r` of a KV head is head `r % group` of query `r / group`, so
//!   that few queries still fill a tile and K and V are read once for a group.
//! - Threads: a block has 4 warps and `64 * ROW_TILES` rows, a warp `16 * ROW_TILES` of them against
//!   all 64 keys of a page at a time; its scores, weights and results stay in registers. Two
//!   row tiles halve the shared memory reads of a product, and need twice the rows to fill the GPU.
//! - Launch: grid = [tiles of the sequence with the most rows, KV heads, sequences], block = [`PREFILL_THREADS`],
//!   [`prefill_shared_bytes`](crate::abi::prefill_shared_bytes) of dynamic shared memory. `q`, `out`
//!   and `kv` are aligned to 16 bytes.
//! - Broken numbers: what a row does not see does not reach it. Keys that it does not see have no score, but
//!   values have a weight of 0, and 0 times what is not finite is no number: a page that some row does not see
//!   in full is looked through for such values.
//! - Moves: q and out once; K and V of the visible keys once for each tile of rows. Pages that no row
//!   of the tile sees are not read.

use core::f32::consts::LOG2_E;

use cuda_std::prelude::*;
use cuda_std::shared;

use super::attention_rows::BlockRows;
use super::attention_tiles::Tile;
use super::entry_points;
use crate::abi::{AttentionPrefillParams, PAGE_TOKENS, PREFILL_THREADS, PREFILL_TILE_ROWS};
use crate::prim::half::f32_to_f16x2;
use crate::prim::math::exp2_approx;
use crate::prim::mma::{ldmatrix_x4, ldmatrix_x4_trans, mma_f16};
use crate::prim::reduce::{lanes_max, lanes_sum};
use crate::prim::scale::saturate;
use crate::prim::{async_copy, grid};

// `min_blocks`: without it ptxas takes 128 registers for heads of 80 and 128 on some architectures, and spills.
entry_points! {
    /// Heads of 32, 64 rows a block.
    ATTENTION_PREFILL_32 = attention_prefill_32(AttentionPrefillParams), max_threads = PREFILL_THREADS
        => attention_prefill::<4, 1>;
    /// Heads of 64, 64 rows a block.
    ATTENTION_PREFILL_64 = attention_prefill_64(AttentionPrefillParams), max_threads = PREFILL_THREADS
        => attention_prefill::<8, 1>;
    /// Heads of 80, 64 rows a block.
    ATTENTION_PREFILL_80 = attention_prefill_80(AttentionPrefillParams), max_threads = PREFILL_THREADS,
        min_blocks = 1
        => attention_prefill::<10, 1>;
    /// Heads of 96, 64 rows a block.
    ATTENTION_PREFILL_96 = attention_prefill_96(AttentionPrefillParams), max_threads = PREFILL_THREADS
        => attention_prefill::<12, 1>;
    /// Heads of 128, 64 rows a block.
    ATTENTION_PREFILL_128 = attention_prefill_128(AttentionPrefillParams), max_threads = PREFILL_THREADS,
        min_blocks = 3
        => attention_prefill::<16, 1>;
    /// Heads of 256, 64 rows a block.
    ATTENTION_PREFILL_256 = attention_prefill_256(AttentionPrefillParams), max_threads = PREFILL_THREADS
        => attention_prefill::<32, 1>;
    /// Heads of 64, 128 rows a block.
    ATTENTION_PREFILL_64_WIDE = attention_prefill_64_wide(AttentionPrefillParams), max_threads = PREFILL_THREADS
        => attention_prefill::<8, 2>;
    /// Heads of 128, 128 rows a block.
    ATTENTION_PREFILL_128_WIDE = attention_prefill_128_wide(AttentionPrefillParams), max_threads = PREFILL_THREADS
        => attention_prefill::<16, 2>;
}

/// 8-key columns of the scores' tiles.
const KEY_TILES: usize = PAGE_TOKENS as usize / 8;

/// The scores of a warp's rows against a page: 16x8 tiles.
type Scores<const ROW_TILES: usize> = [[[f32; 4]; KEY_TILES]; ROW_TILES];
/// The weights of a page's values, pairs of f16: row `g` and row `g + 8` of each tile.
type Weights<const ROW_TILES: usize> = [[[u32; 2]; KEY_TILES]; ROW_TILES];

/// What a lane keeps of its rows: `[tile][0]` is row `g`, `[tile][1]` row `g + 8` (see
/// [`mma`](crate::prim::mma)).
struct Rows<const ROW_TILES: usize> {
    /// The largest score so far, before scaling.
    max: [[f32; 2]; ROW_TILES],
    /// This lane's part of the sum of the weights so far.
    sum: [[f32; 2]; ROW_TILES],
}

/// The body, for heads of `8 * CHUNKS` elements.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn attention_prefill<const CHUNKS: usize, const ROW_TILES: usize>(
    p: AttentionPrefillParams,
) {
    grid::wait();

    let tile_rows = PREFILL_TILE_ROWS * ROW_TILES as u32;
    // SAFETY: the launch has such a sequence.
    let Some(rows) = (unsafe { BlockRows::<CHUNKS>::of_block(&p, tile_rows) }) else {
        return;
    };
    let (mut page, last_page) = (rows.first_page(), rows.last_page());
    let head_elements = PAGE_TOKENS as usize * 8 * CHUNKS;
    let values_offset = p.n_kv_heads as usize * head_elements;

    let queries = Tile::<CHUNKS>::new(shared::dynamic());
    let keys = Tile::<CHUNKS>::new(queries.at(tile_rows, 0));
    let values = Tile::<CHUNKS>::new(keys.at(PAGE_TOKENS, 0));

    let warp_row = thread::thread_idx_x() / 32 * (16 * ROW_TILES as u32);
    let scale = p.scale * LOG2_E;
    let mut state = Rows::<ROW_TILES> {
        max: [[f32::NEG_INFINITY; 2]; ROW_TILES],
        sum: [[0.0; 2]; ROW_TILES],
    };
    let mut out = [[[0.0f32; 4]; CHUNKS]; ROW_TILES];
    // Whether values were taken out that are not finite: behind a row, where nothing else is, because a
    // register would be one too many.
    let has_broken = queries.at(0, CHUNKS as u32).cast::<u32>();

    // SAFETY: rows and pages are those of the launch; the barriers order the tiles' uses.
    unsafe {
        rows.load(p.q.ptr(), queries, tile_rows);
        if thread::thread_idx_x() == 0 {
            has_broken.store(0);
        }
        let mut page_keys = rows.keys(&p, page);
        keys.load_page(page_keys, rows.max_position + 1 - page * PAGE_TOKENS);
        async_copy::commit();

        while page <= last_page {
            let first_key = page * PAGE_TOKENS;
            let valid = rows.max_position + 1 - first_key;
            async_copy::wait_group::<0>();
            // Publishes the keys (and the queries); all warps are past the previous page's values,
            // whose place is filled again while the scores are computed.
            thread::sync_threads();
            values.load_page(page_keys.add(values_offset), valid);
            async_copy::commit();
            if page < last_page {
                page_keys = rows.keys(&p, page + 1);
            }

            let mut scores = products(queries, keys, warp_row);
            if !rows.see_all_of(first_key) {
                async_copy::wait_group::<0>();
                // Publishes the values to those that look through them.
                thread::sync_threads();
                if thread::sync_threads_or(values.take_out_broken().into()) != 0
                    && thread::thread_idx_x() == 0
                {
                    has_broken.store(1);
                }
                hide(
                    &mut scores,
                    warp_row,
                    |row| rows.position(row),
                    first_key,
                    rows.window,
                );
            }

            // Before the copies, whose addresses need the registers that this frees.
            let weights = soften(scores, &mut state, &mut out, scale);

            async_copy::wait_group::<0>();
            // Publishes the values; all warps are past the keys, whose place is filled again.
            thread::sync_threads();
            if page < last_page {
                keys.load_page(page_keys, valid - PAGE_TOKENS);
                async_copy::commit();
            }
            accumulate(&mut out, &weights, values);
            page += 1;
        }

        keep_results(&out, &state, queries, warp_row);
        // Publishes whether values were taken out, and the warp's rows to its lanes.
        thread::sync_threads();
        if has_broken.load() != 0 {
            rows.drop_those_with_broken::<ROW_TILES>(&p, queries, warp_row, values_offset);
        }
        // Publishes the warp's rows to its lanes.
        warp::sync_warp(warp::FULL_MASK);
        rows.store::<ROW_TILES>(p.out.mut_ptr(), queries, warp_row);
    }
}

/// Puts the warp's results into its own rows of the queries' tile, which carry them from the lanes that have them to those
/// that store 16 bytes each.
///
/// # Safety
/// The whole warp comes here, which reads its rows no more.
#[inline(always)]
unsafe fn keep_results<const CHUNKS: usize, const ROW_TILES: usize>(
    out: &[[[f32; 4]; CHUNKS]; ROW_TILES],
    state: &Rows<ROW_TILES>,
    queries: Tile<CHUNKS>,
    warp_row: u32,
) {
    let lane = thread::thread_idx_x() % 32;
    let mut tile = 0;
    while tile < ROW_TILES {
        let row = warp_row + 16 * tile as u32 + lane / 4;
        // SAFETY: the caller's.
        unsafe {
            let factor = [
                1.0 / lanes_sum::<4>(state.sum[tile][0]),
                1.0 / lanes_sum::<4>(state.sum[tile][1]),
            ];
            let mut chunk = 0;
            while chunk < CHUNKS {
                let d = out[tile][chunk];
                let at = |row: u32| queries.at(row, chunk as u32).cast::<u32>().add(lane % 4);
                let pair = |a: f32, b: f32| f32_to_f16x2(saturate(a), saturate(b));
                at(row).store(pair(d[0] * factor[0], d[1] * factor[0]));
                at(row + 8).store(pair(d[2] * factor[1], d[3] * factor[1]));
                chunk += 1;
            }
        }
        tile += 1;
    }
}

/// Scores of the warp's rows before scaling: queries times transposed keys.
///
/// # Safety
/// The whole warp comes here; the tiles are published.
#[inline(always)]
unsafe fn products<const CHUNKS: usize, const ROW_TILES: usize>(
    queries: Tile<CHUNKS>,
    keys: Tile<CHUNKS>,
    warp_row: u32,
) -> Scores<ROW_TILES> {
    let lane = thread::thread_idx_x() % 32;
    let (matrix, line) = (lane / 8, lane % 8);
    let query = queries.at(warp_row + matrix % 2 * 8 + line, matrix / 2);
    let key = keys.at(matrix / 2 * 8 + line, matrix % 2);
    let mut scores = [[[0.0; 4]; KEY_TILES]; ROW_TILES];
    let mut step = 0;
    while step < CHUNKS / 2 {
        let chunk = 2 * step as u32;
        let mut a = [[0; 4]; ROW_TILES];
        let mut tile = 0;
        while tile < ROW_TILES {
            let row = 16 * tile as u32 * Tile::<CHUNKS>::STRIDE;
            // SAFETY: rows of the tile, all lanes together.
            a[tile] = unsafe { ldmatrix_x4(query.add(row + chunk)) };
            tile += 1;
        }
        let mut pair = 0;
        while pair < KEY_TILES / 2 {
            let row = 16 * pair as u32 * Tile::<CHUNKS>::STRIDE;
            // SAFETY: as above.
            unsafe {
                let b = ldmatrix_x4(key.add(row + chunk));
                let mut tile = 0;
                while tile < ROW_TILES {
                    mma_f16(&mut scores[tile][2 * pair], a[tile], [b[0], b[1]]);
                    mma_f16(&mut scores[tile][2 * pair + 1], a[tile], [b[2], b[3]]);
                    tile += 1;
                }
            }
            pair += 1;
        }
        step += 1;
    }
    scores
}

/// Minus infinity where a row does not see the key.
#[inline(always)]
fn hide<const ROW_TILES: usize>(
    scores: &mut Scores<ROW_TILES>,
    warp_row: u32,
    position_of: impl Fn(u32) -> u32,
    first_key: u32,
    window: u32,
) {
    let lane = thread::thread_idx_x() % 32;
    let first_key = first_key + lane % 4 * 2;
    let mut tile = 0;
    while tile < ROW_TILES {
        let row = warp_row + 16 * tile as u32 + lane / 4;
        let positions = [position_of(row), position_of(row + 8)];
        let mut column = 0;
        while column < KEY_TILES {
            let mut i = 0;
            while i < 4 {
                let key = first_key + (8 * column + i % 2) as u32;
                if positions[i / 2].wrapping_sub(key) >= window {
                    scores[tile][column][i] = f32::NEG_INFINITY;
                }
                i += 1;
            }
            column += 1;
        }
        tile += 1;
    }
}

/// Scores become weights relative to the largest score so far, and what was summed before is brought
/// to the same measure.
///
/// # Safety
/// The whole warp comes here.
#[inline(always)]
unsafe fn soften<const CHUNKS: usize, const ROW_TILES: usize>(
    scores: Scores<ROW_TILES>,
    rows: &mut Rows<ROW_TILES>,
    out: &mut [[[f32; 4]; CHUNKS]; ROW_TILES],
    scale: f32,
) -> Weights<ROW_TILES> {
    let mut weights = [[[0; 2]; KEY_TILES]; ROW_TILES];
    let mut tile = 0;
    while tile < ROW_TILES {
        let mut half = 0;
        while half < 2 {
            let mut max = rows.max[tile][half];
            let mut column = 0;
            while column < KEY_TILES {
                let s = scores[tile][column];
                max = max.max(s[2 * half].max(s[2 * half + 1]));
                column += 1;
            }
            // SAFETY: the caller's. The four lanes of a row agree on its maximum.
            let max = unsafe { lanes_max::<4>(max) };
            // A row that has seen no key yet has nothing to measure against; its weights are 0
            // relative to anything.
            let base = if max == f32::NEG_INFINITY {
                0.0
            } else {
                max * scale
            };
            // Exactly 1 behind a page that changes nothing, such as one that only other rows of the tile see: the
            // product in `base` is rounded, and the one of the old maximum here would not be.
            let correction = if max == rows.max[tile][half] {
                1.0
            } else {
                exp2_approx(rows.max[tile][half].mul_add(scale, -base))
            };
            let mut sum = rows.sum[tile][half] * correction;
            let mut column = 0;
            while column < KEY_TILES {
                let s = scores[tile][column];
                let left = exp2_approx(s[2 * half].mul_add(scale, -base));
                let right = exp2_approx(s[2 * half + 1].mul_add(scale, -base));
                sum += left + right;
                weights[tile][column][half] = f32_to_f16x2(left, right);
                column += 1;
            }
            rows.max[tile][half] = max;
            rows.sum[tile][half] = sum;
            let mut chunk = 0;
            while chunk < CHUNKS {
                out[tile][chunk][2 * half] *= correction;
                out[tile][chunk][2 * half + 1] *= correction;
                chunk += 1;
            }
            half += 1;
        }
        tile += 1;
    }
    weights
}

/// `out += weights * values`.
///
/// # Safety
/// The whole warp comes here; the tile is published.
#[inline(always)]
unsafe fn accumulate<const CHUNKS: usize, const ROW_TILES: usize>(
    out: &mut [[[f32; 4]; CHUNKS]; ROW_TILES],
    weights: &Weights<ROW_TILES>,
    values: Tile<CHUNKS>,
) {
    let lane = thread::thread_idx_x() % 32;
    let (matrix, line) = (lane / 8, lane % 8);
    let value = values.at(matrix % 2 * 8 + line, matrix / 2);
    let mut step = 0;
    while step < KEY_TILES / 2 {
        let mut pair = 0;
        while pair < CHUNKS / 2 {
            let row = 16 * step as u32 * Tile::<CHUNKS>::STRIDE;
            // SAFETY: rows of the tile, all lanes together.
            unsafe {
                let b = ldmatrix_x4_trans(value.add(row + 2 * pair as u32));
                let mut tile = 0;
                while tile < ROW_TILES {
                    // A result's layout is that of the left factor of a product.
                    let (left, right) = (weights[tile][2 * step], weights[tile][2 * step + 1]);
                    let a = [left[0], left[1], right[0], right[1]];
                    mma_f16(&mut out[tile][2 * pair], a, [b[0], b[1]]);
                    mma_f16(&mut out[tile][2 * pair + 1], a, [b[2], b[3]]);
                    tile += 1;
                }
            }
            pair += 1;
        }
        step += 1;
    }
}
