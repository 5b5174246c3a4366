//! The largest logit of each group of neighbours, so that `sample` reads only groups that have what it looks for.
//!
//! - Formula: the largest [`key`](super::order::key) of a group's logits; [`BROKEN`] where one is NaN or infinite. Where
//!   the launch forbids, minus infinity is no error.
//! - Shapes: see [`GroupMaximaParams`].
//! - Threads: a warp a group, four neighbours a lane.
//! - Launch: grid = [at least a warp for each group, rows], block = [`GROUP_THREADS`]. Rows are aligned to 16 bytes where
//!   `stride` is a multiple of 4.
//! - Moves: the logits once.

use cuda_std::prelude::*;

use super::entry_points;
use super::order::{self, BROKEN};
use crate::abi::{GROUP_LOGITS, GROUP_THREADS, GroupMaximaParams};
use crate::prim::grid;
use crate::prim::half::Element;

entry_points! {
    /// Of f32.
    GROUP_MAXIMA = group_maxima(GroupMaximaParams), max_threads = GROUP_THREADS => maxima;
}

/// The body.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn maxima(p: GroupMaximaParams) {
    grid::wait();

    let group = thread::index_1d() / 32;
    let groups = p.vocab.div_ceil(GROUP_LOGITS);
    if group >= groups {
        return;
    }
    let row = thread::block_idx_y() as usize;
    let lane = thread::thread_idx_x() % 32;
    let first = GROUP_LOGITS * group + 4 * lane;
    let forbids = p.forbids != 0;
    // SAFETY: indices below `vocab` are inside the row; the group is the warp's alone.
    unsafe {
        let logits = p.logits.ptr().add(row * p.stride as usize);
        let mut own = 0;
        if p.stride.is_multiple_of(4) && first + 4 <= p.vocab {
            let x = f32::load4(logits.add(first as usize));
            let mut j = 0;
            while j < 4 {
                own = own.max(allowed(x[j], forbids));
                j += 1;
            }
        } else {
            let mut i = first;
            while i < p.vocab && i < first + 4 {
                own = own.max(allowed(*logits.add(i as usize), forbids));
                i += 1;
            }
        }
        let largest = warp::warp_reduce_max_u32(warp::FULL_MASK, own);
        if lane == 0 {
            *p.maxima
                .mut_ptr()
                .add(row * groups as usize + group as usize) = largest;
        }
    }
}

/// The logit's key, or [`BROKEN`].
#[inline(always)]
fn allowed(x: f32, forbids: bool) -> u32 {
    if x.is_finite() || forbids && x == f32::NEG_INFINITY {
        order::token_key(x)
    } else {
        BROKEN
    }
}
