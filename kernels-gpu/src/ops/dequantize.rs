//! Weights as f16, for matrix products on tensor cores.
//!
//! - Formula: `y[i] = weights[i]`: ggml's float32 values, rounded once to f16; of plain types
//!   `y[i] = weights[i] * factor`, whose range may lie outside that of f16.
//! - Shapes: any number of elements that is whole blocks; rows do not matter.
//! - Threads: a warp a tile (1024 elements, 256 of a plain type) at a time; the tiles go round all warps
//!   of the grid. A tile's bytes come to shared memory in 16-byte pieces while the tile before is
//!   unpacked, a lane a unit.
//! - Launch: [`UnpackPlan`](crate::abi::UnpackPlan)'s. `weights` and `y` are aligned to 16 bytes.
//! - Moves: the blocks once, two bytes an element once.

use cuda_std::prelude::*;
use cuda_std::shared::dynamic;

use super::entry_points_by_type;
use super::weights::store::store_tile;
use super::weights::tile::Tile;
use super::weights::*;
use crate::abi::{DequantizeParams, UNPACK_THREADS, UNPACK_WARPS, unpack_warp_bytes};
use crate::prim::async_copy::{commit, wait_group};
use crate::prim::grid;
use crate::prim::half::F16;
use crate::weight_types;

weight_types!(entry_points_by_type dequantize, DequantizeParams, UNPACK_THREADS);

/// The body.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn dequantize<W: Weights>(p: DequantizeParams) {
    let lane = thread::thread_idx_x() % 32;
    let warp = thread::thread_idx_x() / 32;
    let tile_elements = const { W::TYPE.tile_elements() };
    let slot_bytes = const { W::TYPE.slot_bytes() };
    let shared = dynamic::<u32>()
        .byte_add(warp * const { unpack_warp_bytes(W::TYPE, size_of::<F16>() as u32) });
    let scratch = shared.byte_add(2 * slot_bytes);

    let tiles = p.n.div_ceil(tile_elements as u64) as u32;
    let tiles_at_once = thread::grid_dim_x() * UNPACK_WARPS;
    let elements = |tile: u32| {
        let left = p.n - tile as u64 * tile_elements as u64;
        left.min(tile_elements as u64) as u32
    };
    let copy = |slot: u32, tile: u32| {
        if tile < tiles {
            let start = tile as usize * const { W::TYPE.tile_bytes() } as usize;
            // SAFETY: the tile is in the matrix; the slot is this warp's and not in use.
            unsafe {
                Tile::<W>::new(shared.byte_add(slot)).copy(
                    lane,
                    p.weights.ptr().add(start),
                    W::TYPE.row_bytes(elements(tile)),
                );
            }
        }
        commit();
    };

    let mut tile = thread::block_idx_x() * UNPACK_WARPS + warp;
    let mut slot = 0;
    copy(slot, tile);
    grid::wait();
    while tile < tiles {
        let next = tile + tiles_at_once;
        copy(slot ^ slot_bytes, next);
        wait_group::<1>();
        // Publishes every lane's pieces of this tile to the warp.
        // SAFETY: the whole warp is here.
        unsafe { warp::sync_warp(u32::MAX) };

        let count = elements(tile);
        // SAFETY: the tile has arrived, and the lane's unit is in it; y has its elements. `store_tile`
        // ends with the warp's barrier, behind which the slot may be overwritten.
        unsafe {
            let low_bits = tile * const { W::TYPE.tile_bytes() };
            let bytes = Tile::<W>::new(shared.byte_add(slot)).bytes(low_bits);
            let unit = if lane * W::TYPE.unit() < count {
                Some(W::unit(bytes, lane))
            } else {
                None
            };
            let y = p.y.cast::<F16>().mut_ptr();
            let y = y.add(tile as usize * tile_elements as usize);
            let factor = if W::TYPE.is_quantized() {
                1.0
            } else {
                p.factor
            };
            store_tile::<W, F16>(unit, factor, lane, scratch, y, count);
        }
        slot ^= slot_bytes;
        tile = next;
    }
}
