//! Products of weight matrices with one to eight vectors, straight from the blocks.
//!
//! - Formula: see [`MatvecParams`]; the vectors are kept in one of the formats of
//!   [`activations`](super::activations).
//! - Shapes: any number of rows; `n_in` a multiple of the block's elements; `vectors` up to the number in
//!   the kernel's name.
//! - Threads: a warp (or several, where there are fewer rows than warps) takes two rows at a time, a tile of
//!   each after the other, a lane a unit of it. The pairs of rows go round all blocks, then all warps of
//!   a block. Every block first normalizes and encodes all vectors into shared memory.
//! - Launch: [`MatvecPlan`](crate::abi::MatvecPlan)'s.
//! - Moves: the matrices once, the vectors once a block (from L2), the results once.

use cuda_std::shared::dynamic;
use cuda_std::{prelude::*, static_shared};

use super::activations::Activations;
use super::elementwise::{Gate, GeluTanh, Silu};
use super::matvec_input::{encode_input, inverse_norm, prefetch_norm};
use super::matvec_rows::{Pair, Place, RowPairs};
use super::matvec_tiles::{Share, Tiles};
use super::weights::Weights;
use crate::abi::{
    ACTIVATION_GROUP, MATVEC_MAX_VECTORS, MatvecEpilogue, MatvecParams, matvec_warp_bytes,
};
use crate::prim::grid;
use crate::prim::integer::opaque;
use crate::prim::reduce::{lanes_sums, shuffle_xor};

/// Results of a warp: of two rows with as many vectors as a kernel can have.
const WARP_SUMS: u32 = 2 * MATVEC_MAX_VECTORS;

/// The body, for up to `N` vectors.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn matvec<W: Weights, A: Activations<W>, const N: usize>(p: MatvecParams) {
    let lane = thread::thread_idx_x() % 32;
    let warp = thread::thread_idx_x() / 32;
    let warps = thread::block_dim_x() / 32;
    // The warps of a group share the rows that it takes.
    let split = 1 << p.row_split_log2;
    let (group, part) = (warp >> p.row_split_log2, warp & (split - 1));

    let units = p.n_in.div_ceil(W::TYPE.unit());
    let pairs = RowPairs::of(&p);
    let share = Share {
        first_pair: group * thread::grid_dim_x() + thread::block_idx_x(),
        pair_step: (warps >> p.row_split_log2) * thread::grid_dim_x(),
        first_tile: part,
        tile_step: split,
        tiles: units.div_ceil(32),
    };
    let activation_bytes = A::TYPE.bytes(N as u32, p.n_in).next_multiple_of(16);
    let slots = dynamic::<u32>()
        .byte_add(activation_bytes)
        .byte_add(warp * const { matvec_warp_bytes(W::TYPE) });
    // No kernel writes weights: the first tiles need not wait for the kernels before.
    prefetch_norm(&p);
    // SAFETY: the launch conditions.
    let mut tiles = unsafe { Tiles::<W>::start(&p, share, lane, slots) };
    grid::wait();

    let groups = p.n_in.div_ceil(ACTIVATION_GROUP);
    let activations = A::new(dynamic::<u32>(), N as u32, groups);
    let squares = static_shared![f32; crate::abi::MATVEC_SQUARES];
    // SAFETY: all threads are here; the memory is for the vectors alone.
    unsafe { encode_input::<W, A>(&p, activations, squares) };
    // Publishes the vectors and the warps' sums of squares.
    thread::sync_threads();

    // After the sums over the lanes each lane has that of one vector and one of the two rows.
    let place = Place::of_lane::<N>(lane);
    let norm = if p.norm_weight.is_null() {
        1.0
    } else {
        let vector = place.vector.min(p.vectors - 1);
        // SAFETY: published above; the whole warp is here.
        unsafe { inverse_norm(&p, squares, vector, const { 32 / N as u32 }) }
    };

    let partial_sums = static_shared![f32; crate::abi::MATVEC_PARTIAL_SUMS];
    // The pair of the first group, which decides for all warps because of the barriers.
    let mut first_number = thread::block_idx_x();
    while first_number < pairs.count() {
        let number = first_number + group * thread::grid_dim_x();
        let mut sums = [[0f32; 2]; N];
        let mut tile = if number < pairs.count() {
            share.first_tile
        } else {
            share.tiles
        };
        while tile < share.tiles {
            tiles.wait();
            // SAFETY: the whole warp is here. The barrier publishes every lane's pieces of these tiles,
            // and ends the warp's reading of the ones before, whose slots are used again. The lane's
            // unit is in the rows.
            unsafe {
                warp::sync_warp(u32::MAX);
                tiles.copy_next();
                let unit = 32 * tile + lane;
                if unit < units {
                    let weights = tiles.units();
                    activations.add_products::<N>(&weights, unit, p.vectors, &mut sums);
                }
            }
            tile += split;
        }

        // SAFETY: the whole warp is here.
        let mut sum = unsafe { lanes_sums(sums, lane) };
        if split > 1 {
            // SAFETY: each warp has its own part of the memory, each lane that leads its own place.
            unsafe {
                let mine = partial_sums.add(WARP_SUMS * warp + place.index);
                if place.leads {
                    mine.store(sum);
                }
                // Publishes the sums of the group's warps.
                thread::sync_threads();
                let mut other = 1;
                while part == 0 && other < split {
                    sum += mine.add(WARP_SUMS * other).load();
                    other += 1;
                }
            }
            // The first warps have read; the sums may be overwritten.
            thread::sync_threads();
        }
        if part == 0 && number < pairs.count() {
            // SAFETY: the whole warp is here; the pair is one of the matrices.
            unsafe { write::<N>(&p, pairs.place(number), lane, sum * norm) };
        }
        first_number += share.pair_step;
    }
}

/// Writes a lane's product where it belongs.
///
/// # Safety
/// The whole warp is here; the pair is one of the matrices.
#[inline(always)]
unsafe fn write<const N: usize>(p: &MatvecParams, pair: Pair, lane: u32, mut value: f32) {
    let place = Place::of_lane::<N>(opaque(lane));
    let pairs = RowPairs::of(p);
    let (segment, row) = pairs.row(pair, place.row);
    let mut inside = place.leads && place.vector < p.vectors && row < segment.n_out;
    // SAFETY: the row is in the segment; the whole warp shuffles.
    unsafe {
        if inside && !segment.bias.is_null() {
            value += *segment.bias.ptr().add(row as usize);
        }
        if pairs.are_gated() {
            // The lanes of the first row have the gate, those of the second the other factor.
            let up = shuffle_xor(value, const { 16 / N as u32 });
            value = if p.epilogue == MatvecEpilogue::Silu as u32 {
                Silu::apply(value) * up
            } else {
                GeluTanh::apply(value) * up
            };
            inside &= place.row == 0;
        }
        if inside {
            let at = place.vector as usize * segment.y_stride as usize + row as usize;
            let y = segment.y.mut_ptr().add(at);
            if p.epilogue == MatvecEpilogue::Add as u32 {
                value += *y;
            }
            *y = value;
        }
    }
}
