//! Products of quantized matrices with many vectors on tensor cores, straight from the blocks.
//!
//! - Formula: see [`MatmulParams`]; the weights are rounded to f16, as `dequantize` does, sums are f32.
//! - Shapes: up to three matrices of any number of rows, any number of vectors; `n_in` a multiple of the
//!   block's elements.
//! - Threads: a block takes `8 * TILES` vectors and 16 rows for each group of warps that share rows. It
//!   goes through the columns in stages, of which each warp of a group has 128 columns: a lane unpacks a
//!   unit of row `g` and one of row `g + 8` (see [`mma`](crate::prim::mma)). The order of the columns
//!   inside a product is free: so that what a lane unpacks is already its part of the tensor cores'
//!   left factor, unit `t` gives columns `2t`, `2t + 1`, `2t + 8` and `2t + 9` of eight products in turn.
//! - Launch: [`MatmulPlan`](crate::abi::MatmulPlan)'s.
//! - Moves: the matrices once for each `8 * TILES` vectors, the vectors once a block of rows (from L2), the
//!   results once.

use cuda_std::prelude::*;
use cuda_std::shared::{Shared, dynamic};

use super::matmul_stages::{Slot, Stages};
use super::weights::Weights;
use super::weights::store::Unpacked;
use crate::abi::{MATMUL_TILE_VECTORS, MATMUL_WARP_ROWS, MatmulParams};
use crate::prim::grid;
use crate::prim::half::F16;
use crate::prim::integer::opaque;
use crate::prim::mma::mma_f16;

/// Units that a warp takes of a row at a time: one for each `t`.
const UNITS: u32 = 4;
/// Pieces of eight elements of a unit.
const EIGHTHS: u32 = 4;

/// A lane's sums: of each tile, rows `g` and `g + 8` with vectors `2t` and `2t + 1`.
type Sums<const TILES: usize> = [[f32; 4]; TILES];

/// The body, for blocks of `TILES` tiles of eight vectors.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn matmul<W: Weights, const TILES: usize>(p: MatmulParams) {
    const { assert!(W::TYPE.is_quantized()) };
    let k_groups = 1 << p.k_groups_log2;
    // Found again for each stage: what follows from the thread's number would take up registers that are scarce.
    let place = || {
        let thread = opaque(thread::thread_idx_x());
        let (warp, lane) = (thread / 32, thread % 32);
        let (row_group, part) = (warp >> p.k_groups_log2, warp & (k_groups - 1));
        (row_group, part, lane)
    };

    let stages = Stages::<W, TILES>::of_block(&p);
    let slots = dynamic::<[u32; 4]>();
    let stage_bytes = stages.bytes();
    let end = p.stages * stage_bytes;
    let ahead = p.stages - 1;
    // No kernel writes weights: the first stages of them need not wait for the kernels before.
    let mut stage = 0;
    while stage < ahead {
        // SAFETY: no slot is in use.
        unsafe { stages.copy_rows(stage, slots.byte_add(stage * stage_bytes)) };
        stage += 1;
    }
    grid::wait();
    stage = 0;
    while stage < ahead {
        // SAFETY: no slot is in use.
        unsafe { stages.copy_vectors(stage, slots.byte_add(stage * stage_bytes)) };
        stage += 1;
    }

    let mut sums: Sums<TILES> = [[0.0; 4]; TILES];
    let mut multiplied = 0;
    stage = 0;
    while stage < stages.count() {
        stages.wait();
        // Publishes every thread's copies of this stage; all warps are past the stage before, whose slot is
        // filled again.
        thread::sync_threads();
        // SAFETY: see the barrier.
        unsafe {
            let before = if multiplied == 0 { end } else { multiplied };
            let slot = slots.byte_add(before - stage_bytes);
            stages.copy_rows(stage + ahead, slot);
            stages.copy_vectors(stage + ahead, slot);
        }

        let slot = slots.byte_add(multiplied);
        let (row_group, part, lane) = place();
        let units = opaque(p.n_in) / W::TYPE.unit();
        let first_unit = UNITS * (stage << p.k_groups_log2);
        let warps_first = first_unit + UNITS * part;
        if warps_first < units {
            let (g, t) = (lane / 4, lane % 4);
            // Behind the row's end its last unit again, times zeros.
            let unit = (warps_first + t).min(units - 1) - first_unit;
            let row = MATMUL_WARP_ROWS * row_group + g;
            // SAFETY: the rows and vectors of the stage have arrived; the unit is in the rows.
            unsafe {
                let [upper, lower] = stages.rows(stage, slot, row);
                let rows = [W::unit(upper, unit), W::unit(lower, unit)];
                let vectors = stages.eighths(slot, part, g, t);
                add_products::<W, TILES>(rows, vectors, &mut sums);
            }
        }

        multiplied += stage_bytes;
        if multiplied == end {
            multiplied = 0;
        }
        stage += 1;
    }

    // All warps are past the last stage: the memory is free for the sums.
    thread::sync_threads();
    let (row_group, part, lane) = place();
    let scratch = slots.cast::<[f32; 4]>();
    let sums_at = |part: u32, tile: u32| {
        let group = (row_group << p.k_groups_log2) + part;
        scratch.add((group * TILES as u32 + tile) * 32 + lane)
    };
    let mut tile = 0;
    while tile < TILES {
        // SAFETY: a place of this thread alone; four groups of rows take up as much as a stage's vectors, and
        // there are no more.
        unsafe { sums_at(part, tile as u32).store(sums[tile]) };
        tile += 1;
    }
    // Publishes the sums of the warps with the same rows, which share the tiles among them.
    thread::sync_threads();
    let (g, t) = (lane / 4, lane % 4);
    let row = MATMUL_WARP_ROWS * row_group + g;
    let mut tile = part;
    while tile < TILES as u32 {
        let vector = MATMUL_TILE_VECTORS * tile + 2 * t;
        // SAFETY: published above; `store` checks rows and vectors.
        unsafe { stages.store(total(|part| sums_at(part, tile), k_groups), row, vector) };
        tile += k_groups;
    }
}

/// Adds the products of a lane's units of two rows with all tiles of vectors: the first piece of the first
/// tile and what it is exclusive-ored with, of [`Stages::eighths`].
///
/// # Safety
/// The whole warp comes here; the vectors are published.
#[inline(always)]
unsafe fn add_products<W: Weights, const TILES: usize>(
    units: [W::Unit; 2],
    (first, swizzle): (Slot, u32),
    sums: &mut Sums<TILES>,
) {
    let mut eighth = 0;
    while eighth < EIGHTHS {
        let [upper, lower] = units.map(|unit| F16::pieces(W::values(&unit, eighth as usize))[0]);
        let place = first.add(eighth ^ swizzle);
        let mut tile = 0;
        while tile < TILES {
            // SAFETY: the caller's.
            unsafe {
                let vector = place
                    .add(tile as u32 * Stages::<W, TILES>::TILE_STEP)
                    .load();
                let sums = &mut sums[tile];
                let left = [upper[0], lower[0], upper[1], lower[1]];
                mma_f16(sums, left, [vector[0], vector[1]]);
                let left = [upper[2], lower[2], upper[3], lower[3]];
                mma_f16(sums, left, [vector[2], vector[3]]);
            }
            tile += 1;
        }
        eighth += 1;
    }
}

/// The sum of what lies at `k_groups` places.
///
/// # Safety
/// It has been written and published.
#[inline(always)]
unsafe fn total(place: impl Fn(u32) -> Shared<[f32; 4]>, k_groups: u32) -> [f32; 4] {
    let mut total = [0.0; 4];
    let mut part = 0;
    while part < k_groups {
        // SAFETY: the caller's.
        let sums = unsafe { place(part).load() };
        let mut i = 0;
        while i < 4 {
            total[i] += sums[i];
            i += 1;
        }
        part += 1;
    }
    total
}
