//! Products of weight matrices with one to four vectors, straight from the blocks.
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

use super::activations::VectorEncoding;
use super::elementwise::{Gate, GeluTanh, Silu};
use super::matvec_input::{encode_input, inverse_norm, prefetch_norm};
use super::matvec_rows::{Place, RowPairs};
use super::matvec_tiles::{Share, Tiles};
use super::weights::Weights;
use crate::abi::{
    ACTIVATION_GROUP, MATVEC_MAX_VECTORS, MatvecEpilogue, MatvecOrder, MatvecParams,
    matvec_warp_bytes,
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
pub unsafe fn matvec<W: Weights, A: VectorEncoding<W>, const N: usize>(p: MatvecParams) {
    if p.order == MatvecOrder::InTurn as u32 {
        grid::launch_dependents();
    }

    let lane = thread::thread_idx_x() % 32;
    let warp = thread::thread_idx_x() / 32;
    let warps = thread::block_dim_x() / 32;
    // The warps of a group share the rows that it takes.
    let split = 1 << p.row_split_log2;
    let place_of = |warp: u32| (warp >> p.row_split_log2, warp & (split - 1));
    let (group, part) = place_of(warp);

    let units = p.n_in.div_ceil(W::TYPE.unit());
    let tile_units = const { 32 * W::TYPE.matvec_tiles() };
    let pairs = RowPairs::of(&p);
    let share = Share {
        first_pair: group * thread::grid_dim_x() + thread::block_idx_x(),
        pair_step: (warps >> p.row_split_log2) * thread::grid_dim_x(),
        first_tile: part,
        tile_step: split,
        tiles: units.div_ceil(tile_units),
    };
    let activation_bytes = A::TYPE.bytes(N as u32, p.n_in).next_multiple_of(16);
    let slots = dynamic::<u32>()
        .byte_add(activation_bytes)
        .byte_add(warp * const { matvec_warp_bytes(W::TYPE) });
    // No kernel writes weights: the first tiles need not wait for the kernels before.
    prefetch_norm(&p);
    // SAFETY: the launch conditions.
    let mut tiles = unsafe { Tiles::<W>::start(&p, share, lane, slots) };
    // SAFETY: as above.
    let mut target = unsafe { Target::of::<W, N>(&p, share.first_pair, lane) };
    let is_beside = p.order == MatvecOrder::Beside as u32;
    if is_beside {
        grid::launch_dependents();
    } else {
        grid::wait();
    }

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
        // SAFETY: published above.
        unsafe { inverse_norm(&p, squares, vector) }
    };

    let partial_sums = static_shared![f32; crate::abi::MATVEC_PARTIAL_SUMS];
    let mut number = share.first_pair;
    loop {
        // Found again for each pair: it would take up registers that are scarce.
        let (group, part) = place_of(opaque(thread::thread_idx_x()) / 32);
        // The pair of the first group decides for all warps because of the barriers.
        if number - group * thread::grid_dim_x() >= pairs.count() {
            break;
        }
        // Loaded before the product is computed, which takes as long.
        // SAFETY: the target is in a matrix's results.
        let before = unsafe { target.before(&p) };
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
                let first = tile_units * tile;
                if first + W::number(lane, 0) < units {
                    // Rows of a quantized type end with a block, in which both units of a lane are.
                    let has_second = W::TYPE.matvec_tiles() == 2
                        && (W::TYPE.is_quantized() || first + W::number(lane, 1) < units);
                    let [one, two] = tiles.units(target.low_bits, tile, has_second);
                    let unit = first + W::number(lane, 0);
                    activations.add_products::<N>(&one, unit, p.vectors, &mut sums);
                    if has_second {
                        // With one vector, of which two blocks are to fit, again for each tile as for the pair.
                        let lane = if N == 1 { opaque(lane) } else { lane };
                        let unit = first + W::number(lane, 1);
                        activations.add_products::<N>(&two, unit, p.vectors, &mut sums);
                    }
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
            // SAFETY: the whole warp is here; the target is in a matrix's results.
            unsafe { target.write::<N>(&p, sum * norm, before) };
        }
        number += share.pair_step;
        // SAFETY: the launch conditions.
        target = unsafe { Target::of::<W, N>(&p, number, lane) };
    }
    if is_beside {
        grid::wait();
    }
}

/// A pair of rows, and where a lane's product of it belongs.
struct Target {
    /// The last four bits of the addresses where the rows' blocks begin.
    low_bits: [u32; 2],
    /// Null if this lane writes nothing.
    y: *mut f32,
    bias: f32,
}

impl Target {
    /// The target for pair `number`, which may be behind the last.
    ///
    /// # Safety
    /// The launch conditions.
    #[inline(always)]
    unsafe fn of<W: Weights, const N: usize>(p: &MatvecParams, number: u32, lane: u32) -> Self {
        let pairs = RowPairs::of(p);
        let pair = pairs.place(number);
        // Computed again for each pair: it would take up registers that are scarce.
        let place = Place::of_lane::<N>(opaque(lane));
        let (segment, row) = pairs.row(pair, place.row);
        let inside = number < pairs.count() && row < segment.n_out;
        let has_result = place.leads && inside && place.vector < p.vectors;
        let writes = has_result && !(pairs.are_gated() && place.row == 1);
        let offset = (place.vector * segment.y_stride + row) as usize;
        let y = segment.y.mut_ptr().wrapping_add(offset);
        let mut bias = 0.0;
        if has_result && !segment.bias.is_null() {
            // SAFETY: the row is in the segment.
            bias = unsafe { *segment.bias.ptr().add(row as usize) };
        }
        Self {
            low_bits: pairs.rows::<W>(pair).map(|row| row as usize as u32 % 16),
            y: if writes { y } else { core::ptr::null_mut() },
            bias,
        }
    }

    /// What the product is added to.
    ///
    /// # Safety
    /// The kernels before have ended.
    #[inline(always)]
    unsafe fn before(&self, p: &MatvecParams) -> f32 {
        if p.epilogue == MatvecEpilogue::Add as u32 && !self.y.is_null() {
            // SAFETY: the caller's.
            unsafe { *self.y }
        } else {
            0.0
        }
    }

    /// Writes a lane's product.
    ///
    /// # Safety
    /// The whole warp is here.
    #[inline(always)]
    unsafe fn write<const N: usize>(&self, p: &MatvecParams, mut value: f32, before: f32) {
        // SAFETY: the whole warp shuffles; y is the lane's.
        unsafe {
            value += self.bias + before;
            if RowPairs::of(p).are_gated() {
                // The lanes of the first row have the gate, those of the second the other factor.
                let up = shuffle_xor(value, const { 16 / N as u32 });
                value = if p.epilogue == MatvecEpilogue::Silu as u32 {
                    Silu::apply(value) * up
                } else {
                    GeluTanh::apply(value) * up
                };
            }
            if !self.y.is_null() {
                *self.y = value;
            }
        }
    }
}
