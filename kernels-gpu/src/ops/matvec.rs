//! Products of weight matrices with one to eight vectors, straight from the blocks.
//!
//! - Formula: see [`MatvecParams`]; the vectors are kept as one of the formats of
//!   [`activations`](super::activations).
//! - Shapes: any number of rows; `n_in` a multiple of the block's elements; `vectors` up to the number in
//!   the kernel's name.
//! - Threads: a warp (or several, where there are fewer rows than warps) takes two rows at a time, a tile of
//!   each after the other, a lane a unit of it. The pairs of rows go round all blocks, then all warps of
//!   a block. Every block first normalizes and encodes all vectors into shared memory.
//! - Launch: [`MatvecPlan`](crate::abi::MatvecPlan)'s.
//! - Moves: the matrices once, the vectors once a block (from L2), the results once.

use core::marker::PhantomData;

use cuda_std::shared::{Shared, dynamic};
use cuda_std::{prelude::*, static_shared};

use super::activations::Activations;
use super::elementwise::{Gate, GeluTanh, Silu};
use super::matvec_input::{VECTOR_SUMS, encode_input, inverse_norm};
use super::matvec_rows::{Place, RowPair};
use super::weights::Weights;
use super::weights::tile::Tile;
use crate::abi::{
    ACTIVATION_GROUP, MATVEC_MAX_WARPS, MATVEC_VECTORS, MatvecEpilogue, MatvecParams, matvec_depth,
    matvec_warp_bytes,
};
use crate::prim::async_copy::{commit, wait_group};
use crate::prim::grid;
use crate::prim::integer::div;
use crate::prim::reduce::{lanes_sums, shuffle_xor};

/// Results of a warp: of two rows with as many vectors as a kernel can have.
const WARP_SUMS: usize = 2 * MATVEC_VECTORS[3] as usize;

/// The body, for up to `N` vectors.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn matvec<W: Weights, A: Activations<W>, const N: usize>(p: MatvecParams) {
    grid::launch_dependents();
    let lane = thread::thread_idx_x() % 32;
    let warp = thread::thread_idx_x() / 32;
    let warps = thread::block_dim_x() / 32;
    let split = 1 << p.row_split_log2;
    // The warps of a group share the rows that it takes.
    let (group, part) = (warp >> p.row_split_log2, warp & (split - 1));
    let first_pair = group * thread::grid_dim_x() + thread::block_idx_x();
    let pairs_at_once = (warps >> p.row_split_log2) * thread::grid_dim_x();
    let pairs = RowPair::count(&p);

    let units = p.n_in.div_ceil(W::TYPE.unit());
    let tiles = units.div_ceil(32);
    let groups = p.n_in.div_ceil(ACTIVATION_GROUP);
    let activations = A::new(dynamic::<u32>(), N as u32, groups);
    let mut tiles_to_come = Tiles::<W> {
        params: p,
        slots: dynamic::<u32>()
            .byte_add(A::TYPE.bytes(N as u32, p.n_in).next_multiple_of(16))
            .byte_add(warp * const { matvec_warp_bytes(W::TYPE) }),
        slot: 0,
        lane,
        pairs,
        pairs_at_once,
        pair: first_pair,
        tiles,
        first_tile: part,
        split,
        tile: part,
        rows: RowPair::new::<W>(&p, first_pair),
        weights: PhantomData,
    };

    // No kernel writes weights: the first tiles need not wait for the kernels before.
    let mut i = 0;
    while i < const { matvec_depth(W::TYPE) } {
        // SAFETY: the slots are this warp's, and none has been used.
        unsafe { tiles_to_come.copy_next() };
        i += 1;
    }
    grid::wait();

    let squares = static_shared![f32; VECTOR_SUMS];
    // SAFETY: all threads are here; the memory is for the vectors alone.
    unsafe { encode_input::<W, A>(&p, activations, squares) };
    // Publishes the vectors and the warps' sums of squares.
    thread::sync_threads();

    // After the sums over the lanes each lane has that of one vector and one of the two rows.
    let place = Place::of_lane::<N>(lane);
    let norm = if p.norm_weight.is_null() || place.vector >= p.vectors {
        1.0
    } else {
        // SAFETY: published above.
        unsafe { inverse_norm(&p, squares, place.vector) }
    };

    let partial_sums = static_shared![f32; WARP_SUMS * MATVEC_MAX_WARPS as usize];
    let mut slot = 0;
    let mut pair = first_pair;
    // The same number of rounds for all warps, because of the barriers.
    let mut round = div(pairs + pairs_at_once - 1, pairs_at_once);
    while round > 0 {
        let mut sums = [[0f32; 2]; N];
        if pair < pairs {
            let rows = RowPair::new::<W>(&p, pair);
            let mut tile = part;
            while tile < tiles {
                if const { matvec_depth(W::TYPE) == 3 } {
                    wait_group::<2>();
                } else {
                    wait_group::<1>();
                }
                // SAFETY: the whole warp is here. The barrier publishes every lane's pieces of this tile,
                // and ends the warp's reading of the one before, whose slot is used again. The lane's
                // unit is in the row.
                unsafe {
                    warp::sync_warp(u32::MAX);
                    tiles_to_come.copy_next();
                    let unit = 32 * tile + lane;
                    if unit < units {
                        let slot = tiles_to_come.slots.byte_add(slot);
                        let weights = [
                            read_unit::<W>(slot, rows.first, tile, lane),
                            read_unit::<W>(
                                slot.byte_add(const { W::TYPE.slot_bytes() }),
                                rows.second,
                                tile,
                                lane,
                            ),
                        ];
                        activations.add_products::<N>(&weights, unit, p.vectors, &mut sums);
                    }
                }
                slot = Tiles::<W>::after(slot);
                tile += split;
            }
        }

        // SAFETY: the whole warp is here.
        let mut sum = unsafe { lanes_sums(sums, lane) };
        if split > 1 {
            // SAFETY: each warp has its own part of the memory, each lane that leads its own place.
            unsafe {
                let mine = partial_sums.add(WARP_SUMS as u32 * warp + place.index);
                if place.leads {
                    mine.store(sum);
                }
                // Publishes the sums of the group's warps.
                thread::sync_threads();
                let mut other = 1;
                while part == 0 && other < split {
                    sum += mine.add(WARP_SUMS as u32 * other).load();
                    other += 1;
                }
            }
            // The first warps have read; the sums may be overwritten.
            thread::sync_threads();
        }
        if part == 0 && pair < pairs {
            // SAFETY: the whole warp is here; the rows are in the matrices.
            unsafe { write::<N>(&p, pair, place, sum * norm) };
        }
        pair += pairs_at_once;
        round -= 1;
    }
}

/// The tiles that a warp will multiply, in order.
struct Tiles<W> {
    params: MatvecParams,
    /// The warp's shared memory.
    slots: Shared<u32>,
    /// Bytes to the pair of slots that is next.
    slot: u32,
    lane: u32,
    pairs: u32,
    pairs_at_once: u32,
    pair: u32,
    tiles: u32,
    first_tile: u32,
    split: u32,
    tile: u32,
    rows: RowPair,
    weights: PhantomData<W>,
}

impl<W: Weights> Tiles<W> {
    /// Starts copying the next tile of both rows, and ends a group of copies also when there is none.
    ///
    /// # Safety
    /// The slots that are next are not in use.
    #[inline(always)]
    unsafe fn copy_next(&mut self) {
        if self.pair < self.pairs {
            let start = self.tile * const { W::TYPE.tile_bytes() };
            let bytes = W::TYPE.row_bytes(self.params.n_in) - start;
            let bytes = bytes.min(const { W::TYPE.tile_bytes() });
            let slot = self.slots.byte_add(self.slot);
            // SAFETY: the tile is in the rows, the rows in the matrix; the slots as the caller says.
            unsafe {
                Tile::<W>::new(slot).copy(self.lane, self.rows.first.add(start as usize), bytes);
                Tile::<W>::new(slot.byte_add(const { W::TYPE.slot_bytes() })).copy(
                    self.lane,
                    self.rows.second.add(start as usize),
                    bytes,
                );
            }
            self.tile += self.split;
            if self.tile >= self.tiles {
                self.tile = self.first_tile;
                self.pair += self.pairs_at_once;
                self.rows = RowPair::new::<W>(&self.params, self.pair);
            }
            self.slot = Self::after(self.slot);
        }
        commit();
    }

    /// The slots after these, in a ring.
    #[inline(always)]
    fn after(slot: u32) -> u32 {
        let next = slot + const { 2 * W::TYPE.slot_bytes() };
        if next == const { matvec_warp_bytes(W::TYPE) } {
            0
        } else {
            next
        }
    }
}

/// A lane's unit of the tile in a slot.
///
/// # Safety
/// The tile of this row has arrived there, and the unit is in the row.
#[inline(always)]
unsafe fn read_unit<W: Weights>(
    slot: Shared<u32>,
    row: *const u8,
    tile: u32,
    lane: u32,
) -> W::Unit {
    let low_bits = (row as usize as u32).wrapping_add(tile * const { W::TYPE.tile_bytes() });
    // SAFETY: the caller's.
    unsafe { W::unit(Tile::<W>::new(slot).bytes(low_bits), lane) }
}

/// Writes a lane's product where it belongs.
///
/// # Safety
/// The whole warp is here; the rows of the pair are in the matrices.
#[inline(always)]
unsafe fn write<const N: usize>(p: &MatvecParams, pair: u32, place: Place, mut value: f32) {
    let gated = p.epilogue >= MatvecEpilogue::Silu as u32;
    let (segment, row) = RowPair::segment_and_row(p, pair, place.row);
    let inside = place.leads && place.vector < p.vectors && row < segment.n_out;
    // SAFETY: the row is in the segment; the whole warp shuffles.
    unsafe {
        if inside && !segment.bias.is_null() {
            value += *segment.bias.ptr().add(row as usize);
        }
        if gated {
            // The lanes of the first row have the gate, those of the second the other factor.
            let up = shuffle_xor(value, const { 16 / N as u32 });
            value = if p.epilogue == MatvecEpilogue::Silu as u32 {
                Silu::apply(value) * up
            } else {
                GeluTanh::apply(value) * up
            };
        }
        if inside && !(gated && place.row == 1) {
            let at = place.vector as usize * segment.y_stride as usize + row as usize;
            let y = segment.y.mut_ptr().add(at);
            if p.epilogue == MatvecEpilogue::Add as u32 {
                value += *y;
            }
            *y = value;
        }
    }
}
