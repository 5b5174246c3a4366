//! The index of each row's largest element, and the position of the step that follows.
//!
//! - Formula: the first `i` with `x[i] >= x[j]` for all `j`; [`NOT_FINITE`](crate::abi::NOT_FINITE) where an element is
//!   NaN or infinite. Where the launch forbids, minus infinity is no error and no element, and a row of nothing else
//!   gives [`NOTHING_ALLOWED`].
//! - Shapes: see [`ArgmaxParams`], and [`ChoiceOutputs`](crate::abi::ChoiceOutputs) for what is written.
//! - Threads: several blocks a row, each thread four elements at a time; their best meet in one atomic
//!   maximum a block, and the last block to come writes the result.
//! - Launch: grid = [blocks for a row, rows], block = [`ARGMAX_THREADS`]. Rows are aligned to 16 bytes where `stride`
//!   is a multiple of 4.
//! - Moves: the logits once.

use cuda_std::atomic::{atomic_fetch_add_acqrel_u32_device, atomic_fetch_max_relaxed_u64_device};
use cuda_std::prelude::*;
use cuda_std::static_shared;

use super::choice::Place;
use super::entry_points;
use super::order::{self, larger, ranked, warp_largest};
use crate::abi::{ARGMAX_THREADS, ArgmaxParams, NOTHING_ALLOWED};
use crate::prim::grid;
use crate::prim::half::Element;

entry_points! {
    /// Of f32.
    ARGMAX = argmax(ArgmaxParams), max_threads = ARGMAX_THREADS => largest;
}

const THREADS: u32 = ARGMAX_THREADS;

/// As [`ranked`]; 0 for what `forbids` minus infinity.
#[inline(always)]
fn allowed(x: f32, index: u32, forbids: bool) -> u64 {
    if forbids && x == f32::NEG_INFINITY {
        0
    } else {
        ranked(x, index)
    }
}

/// The body.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn largest(p: ArgmaxParams) {
    grid::wait();

    let row = thread::block_idx_y() as usize;
    let threads = thread::grid_dim_x() * THREADS;
    let whole = if p.stride.is_multiple_of(4) {
        p.vocab / 4
    } else {
        0
    };
    let thread = thread::thread_idx_x();
    let forbids = p.forbids != 0;
    let mut best = 0;

    // SAFETY: rows and indices are inside the logits; the scratch memory is the row's.
    unsafe {
        let logits = p.logits.ptr().add(row * p.stride as usize);
        let mut i = thread::index_1d();
        while i < whole {
            let x = f32::load4(logits.add(4 * i as usize));
            let mut j = 0;
            while j < 4 {
                best = larger(best, allowed(x[j as usize], 4 * i + j, forbids));
                j += 1;
            }
            i += threads;
        }
        let mut i = 4 * whole + thread::index_1d();
        while i < p.vocab {
            best = larger(best, allowed(*logits.add(i as usize), i, forbids));
            i += threads;
        }

        let warps = static_shared![u64; 8];
        let best = warp_largest(best);
        if thread.is_multiple_of(32) {
            warps.add(thread / 32).store(best);
        }
        // Publishes the warps' best.
        thread::sync_threads();
        if thread != 0 {
            return;
        }
        let mut best = best;
        let mut warp = 1;
        while warp < THREADS / 32 {
            best = larger(best, warps.add(warp).load());
            warp += 1;
        }
        // Under way while the atomics are; the block that writes comes after all that read.
        let place = Place::of(&p.outputs, row, false);
        let (row_best, arrived) = (p.best.mut_ptr().add(row), p.arrived.mut_ptr().add(row));
        atomic_fetch_max_relaxed_u64_device(row_best, best);
        if atomic_fetch_add_acqrel_u32_device(arrived, 1) == thread::grid_dim_x() - 1 {
            // All blocks have been here: an atomic access reads what theirs left.
            let best = atomic_fetch_max_relaxed_u64_device(row_best, 0);
            let token = if best == 0 {
                NOTHING_ALLOWED
            } else {
                order::token(best)
            };
            place.put(&p.outputs, token);
            *row_best = 0;
            *arrived = 0;
        }
    }
}
