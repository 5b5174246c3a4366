//! Rows of the embedding table.
//!
//! - Formula: `y[t][i] = table[tokens[t]][i] * scale`, in ggml's float32 values; zeros for a token
//!   outside of the table.
//! - Shapes: any number of tokens; `width` a multiple of the block's elements.
//! - Threads: a warp a tile (1024 elements, 256 of a plain type) of a token.
//! - Launch: [`UnpackPlan`](crate::abi::UnpackPlan)'s. `table` and `y` are aligned to 16 bytes.
//! - Moves: the tokens' rows once, four bytes an element once.

use cuda_std::prelude::*;
use cuda_std::shared::dynamic;

use super::entry_points_by_type;
use super::weights::store::store_tile;
use super::weights::tile::Tile;
use super::weights::*;
use crate::abi::{EmbedParams, UNPACK_THREADS, UNPACK_WARPS, unpack_warp_bytes};
use crate::prim::async_copy::{commit, wait_group};
use crate::prim::grid;
use crate::weight_types;

weight_types!(entry_points_by_type embed, EmbedParams, UNPACK_THREADS);

/// The body.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn embed<W: Weights>(p: EmbedParams) {
    grid::wait();
    let lane = thread::thread_idx_x() % 32;
    let warp = thread::thread_idx_x() / 32;
    let tile = thread::block_idx_y() * UNPACK_WARPS + warp;
    let first = tile * const { W::TYPE.tile_elements() };
    if first >= p.width {
        return;
    }
    let count = (p.width - first).min(const { W::TYPE.tile_elements() });
    let shared = dynamic::<u32>()
        .byte_add(warp * const { unpack_warp_bytes(W::TYPE, size_of::<f32>() as u32) });
    let scratch = shared.byte_add(const { 2 * W::TYPE.slot_bytes() });

    // SAFETY: the row is in the table, the tile in the row; the whole warp is here, and the shared
    // memory is its own.
    unsafe {
        let slot = Tile::<W>::new(shared);
        let token = thread::block_idx_x() as usize;
        let row = *p.tokens.ptr().add(token);
        let known = row < p.rows;
        let row = if known { row as usize } else { 0 };
        let start = p
            .table
            .ptr()
            .add(row * W::TYPE.row_bytes(p.width) as usize)
            .add(tile as usize * const { W::TYPE.tile_bytes() } as usize);
        slot.copy(lane, start, W::TYPE.row_bytes(count));
        commit();
        wait_group::<0>();
        // Publishes every lane's pieces to the warp.
        warp::sync_warp(u32::MAX);

        let unit = if lane * W::TYPE.unit() < count {
            Some(W::unit(slot.bytes(start as usize as u32), lane))
        } else {
            None
        };
        let scale = if known { p.scale } else { 0.0 };
        let y = p.y.mut_ptr().add(token * p.width as usize + first as usize);
        store_tile::<W, f32>(unit, scale, lane, scratch, y, count);
    }
}
