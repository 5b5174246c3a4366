//! The rows of tokens, once for each of their experts, in the order of experts.
//!
//! - Formula, shapes: see [`GatherRowsParams`].
//! - Threads: eight neighbouring elements each, a block a row.
//! - Launch: grid = pairs, block = a multiple of 32 up to [`GATHER_ROWS_THREADS`].
//! - Moves: every row of the result once, and once what it is a copy of (from L2).

use cuda_std::prelude::*;

use super::entry_points;
use crate::abi::{GATHER_ROWS_THREADS, GatherRowsParams};
use crate::prim::grid;
use crate::prim::integer::div;
use crate::prim::load::{global_v4, store_global_v4};

entry_points! {
    /// Of f16.
    GATHER_ROWS = gather_rows(GatherRowsParams), max_threads = GATHER_ROWS_THREADS => gather;
}

/// The body.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn gather(p: GatherRowsParams) {
    grid::wait();

    let place = thread::block_idx_x() as usize;
    let width = p.width as usize;
    // SAFETY: the place is one of the pairs', whose token has a row; rows are aligned and of whole pieces.
    unsafe {
        let token = div(*p.order.ptr().add(place), p.used) as usize;
        let (from, to) = (
            p.x.ptr().add(token * width),
            p.y.mut_ptr().add(place * width),
        );
        let mut element = 8 * thread::thread_idx_x() as usize;
        while element < width {
            let eight = global_v4(from.add(element).cast());
            store_global_v4(to.add(element).cast(), eight);
            element += 8 * thread::block_dim_x() as usize;
        }
    }
}
