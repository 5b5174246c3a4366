//! Products of quantized matrices with many vectors in 8 bits on integer tensor cores, straight from the blocks.
//!
//! - Formula: see [`MatmulQ8Params`]; the vectors are encoded as [`Q8Vectors`](crate::abi::Q8Vectors) says. The sums of
//!   a unit's 32 products of integers are exact, those over units are f32; minimums are rounded to 10 bits of fraction, as
//!   the sums of the vectors' groups are.
//! - Shapes: up to three matrices of any number of rows; `n_in` a multiple of the block's elements; up to `8 * TILES`
//!   vectors.
//! - Threads: a warp takes [`MATMUL_Q8_ROWS`] rows at a time, [`MATMUL_Q8_STEP`] elements of each after the other, the
//!   warps of a group every so many-th step of the same rows. A lane multiplies its words of two rows
//!   ([`Fragments`]) with its words of each tile's vectors.
//! - Launch: [`MatmulQ8Plan`](crate::abi::MatmulQ8Plan)'s.
//! - Moves: the matrices once, the vectors once for every tile of rows (from the L1 or the L2 cache), the results once.

use cuda_std::prelude::*;
use cuda_std::shared::{Shared, dynamic};

use super::matmul_q8_products::{Sums, Vectors, add_step};
use super::matmul_q8_rows::{RowSteps, Share, row_starts, tile_rows, two_rows};
use super::weights::{Fragments, Weights};
#[cfg(doc)]
use crate::abi::MATMUL_Q8_STEP;
use crate::abi::{
    MATMUL_Q8_ROWS, MATMUL_Q8_WARPS, MATMUL_TILE_VECTORS, MatmulQ8Params, MatvecOrder,
    matmul_q8_steps, matmul_q8_warp_bytes,
};
use crate::prim::grid;

/// Results of a tile of rows with a tile of vectors.
const TILE_RESULTS: u32 = MATMUL_Q8_ROWS * MATMUL_TILE_VECTORS;

/// The body, for `TILES` tiles of eight vectors, the last of which may have fewer.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn matmul_q8<W: Fragments, const TILES: usize>(p: MatmulQ8Params) {
    let warp = thread::thread_idx_x() / 32;
    let slots =
        dynamic::<u32>().byte_add(warp * const { matmul_q8_warp_bytes(<W as Weights>::TYPE) });
    // No kernel writes weights: the first of them need not wait for the kernels before.
    // SAFETY: the memory is the warp's; all lanes are here.
    let mut rows = unsafe { RowSteps::<W, TILES>::start(&p, slots) };
    let is_beside = p.order == MatvecOrder::Beside as u32;
    if !is_beside {
        grid::wait();
    }

    let Share {
        first_of_block,
        tile_step,
        ..
    } = Share::of_thread::<W, TILES>(&p);
    let mut first = first_of_block;
    // The block's first tile decides for all warps because of the barriers.
    while first < p.tile_ends[2] {
        let share = Share::of_thread::<W, TILES>(&p);
        let tile = first + share.row_group;
        let mut sums: Sums<TILES> = [[0.0; 4]; TILES];
        if tile < p.tile_ends[2] {
            let starts = row_starts::<W>(&p, tile, share.lane / 4);
            let mut step = share.part;
            while step < matmul_q8_steps(p.n_in) {
                // SAFETY: the step before has been read; the whole warp is here; the vectors are as the parameters say.
                unsafe {
                    let slot = rows.next();
                    let lane = Share::of_thread::<W, TILES>(&p).lane;
                    let rows = two_rows::<W>(slot, starts, step, lane / 4);
                    let vectors = Vectors::of_step::<TILES>(&p, step, lane);
                    add_step::<W, TILES>(rows, vectors, lane % 4, &mut sums);
                }
                step += 1 << p.k_groups_log2;
            }
        }
        // SAFETY: the whole block is here; the sums are of its tiles.
        unsafe { add_up::<W, TILES>(&p, sums, tile) };
        first += tile_step;
    }
    if is_beside {
        grid::wait();
    }
}

/// Adds up the sums of the warps that share rows, and writes the results of the tile.
///
/// # Safety
/// The whole block comes here; results and bias are as the parameters say.
#[inline(always)]
unsafe fn add_up<W: Fragments, const TILES: usize>(
    p: &MatmulQ8Params,
    sums: Sums<TILES>,
    tile: u32,
) {
    let all_sums = dynamic::<[f32; 4]>()
        .byte_add(const { MATMUL_Q8_WARPS * matmul_q8_warp_bytes(<W as Weights>::TYPE) });
    let share = Share::of_thread::<W, TILES>(p);
    let first_warp = share.row_group << p.k_groups_log2;
    let of_warp = all_sums.add((first_warp + share.part) * TILES as u32 * 32);
    let mut vectors = 0;
    while vectors < TILES {
        // SAFETY: a place of this thread alone, which the barrier below frees.
        unsafe {
            of_warp
                .add(vectors as u32 * 32 + share.lane)
                .store(sums[vectors]);
        };
        vectors += 1;
    }
    // Publishes the sums of the warps that share rows.
    thread::sync_threads();
    if tile < p.tile_ends[2] {
        let of_group = all_sums.add(first_warp * TILES as u32 * 32);
        // SAFETY: published above.
        unsafe {
            store_results::<TILES>(p, of_group.cast(), tile, 32 * share.part + share.lane);
        }
    }
    // The sums have been read, and may be overwritten.
    thread::sync_threads();
}

/// Adds up the warps' sums of a tile of rows and writes the results; `thread` of the group's.
///
/// # Safety
/// The sums have been published; results and bias are as the parameters say.
#[inline(always)]
unsafe fn store_results<const TILES: usize>(
    p: &MatmulQ8Params,
    sums: Shared<f32>,
    tile: u32,
    thread: u32,
) {
    let (segment, first_row) = tile_rows(p, tile);
    let mut result = thread;
    while result < TILES as u32 * TILE_RESULTS {
        // Neighbouring threads have neighbouring rows, which lie together in the results.
        let (row, vector) = (result % MATMUL_Q8_ROWS, result / MATMUL_Q8_ROWS);
        let (tile, column) = (vector / MATMUL_TILE_VECTORS, vector % MATMUL_TILE_VECTORS);
        let lane = row % 8 * 4 + column / 2;
        let place = sums.add(tile * TILE_RESULTS + 4 * lane + row / 8 * 2 + column % 2);
        let row = first_row + row;
        if row < segment.n_out && vector < p.vectors {
            let y = segment.y.mut_ptr();
            let y = y.wrapping_add(vector as usize * segment.y_stride as usize + row as usize);
            // SAFETY: the caller's.
            unsafe {
                let mut sum = 0.0;
                if p.accumulate != 0 {
                    sum = *y;
                }
                if !segment.bias.is_null() {
                    sum += *segment.bias.ptr().add(row as usize);
                }
                let mut part = 0;
                while part < 1 << p.k_groups_log2 {
                    sum += place.add(part * TILES as u32 * TILE_RESULTS).load();
                    part += 1;
                }
                *y = sum;
            }
        }
        result += 32 << p.k_groups_log2;
    }
}
