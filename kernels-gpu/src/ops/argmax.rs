//! The index of each row's largest element, and the position of the step that follows.
//!
//! - Formula: the first `i` with `x[i] >= x[j]` for all `j`; [`NOT_FINITE`] where an element is NaN or
//!   infinite.
//! - Shapes: see [`ArgmaxParams`].
//! - Threads: several blocks a row, each thread four elements at a time; their best meet in one atomic
//!   maximum a block, and the last block to come writes the result.
//! - Launch: grid = [blocks for a row, rows], block = [`ARGMAX_THREADS`]. Rows are aligned to 16 bytes where `stride`
//!   is a multiple of 4.
//! - Moves: the logits once.

use cuda_std::atomic::{atomic_fetch_add_acqrel_u32_device, atomic_fetch_max_relaxed_u64_device};
use cuda_std::prelude::*;
use cuda_std::static_shared;

use super::{entry_points, order};
use crate::abi::{ARGMAX_THREADS, ArgmaxParams, NOT_FINITE, POSTED_ROWS};
use crate::prim::grid;
use crate::prim::half::Element;

entry_points! {
    /// Of f32.
    ARGMAX = argmax(ArgmaxParams), max_threads = ARGMAX_THREADS => largest;
}

const THREADS: u32 = ARGMAX_THREADS;

/// An element with its index: larger where the element is, or among equals where the index is lower.
/// What is not finite is above every element, with the index [`NOT_FINITE`]. 0 is below every element.
#[inline(always)]
fn packed(x: f32, index: u32) -> u64 {
    let (key, index) = if x.is_finite() {
        // -0 + 0 is 0: both zeros are equal.
        (order::key(x + 0.0), index)
    } else {
        (u32::MAX, NOT_FINITE)
    };
    (key as u64) << 32 | (!index) as u64
}

#[inline(always)]
const fn larger(a: u64, b: u64) -> u64 {
    if a > b { a } else { b }
}

/// The largest value of the warp.
///
/// # Safety
/// All 32 lanes come here together.
#[inline(always)]
unsafe fn warp_largest(mut value: u64) -> u64 {
    let mut distance = 16;
    while distance > 0 {
        // SAFETY: the caller's.
        let other = unsafe { warp::warp_shuffle_xor(warp::FULL_MASK, value, distance, 32) }.0;
        value = larger(value, other);
        distance /= 2;
    }
    value
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
    let mut best = 0;

    // SAFETY: rows and indices are inside the logits; the scratch memory is the row's.
    unsafe {
        let logits = p.logits.ptr().add(row * p.stride as usize);
        let mut i = thread::index_1d();
        while i < whole {
            let x = f32::load4(logits.add(4 * i as usize));
            let mut j = 0;
            while j < 4 {
                best = larger(best, packed(x[j as usize], 4 * i + j));
                j += 1;
            }
            i += threads;
        }
        let mut i = 4 * whole + thread::index_1d();
        while i < p.vocab {
            best = larger(best, packed(*logits.add(i as usize), i));
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
        let (row_best, arrived) = (p.best.mut_ptr().add(row), p.arrived.mut_ptr().add(row));
        atomic_fetch_max_relaxed_u64_device(row_best, best);
        if atomic_fetch_add_acqrel_u32_device(arrived, 1) == thread::grid_dim_x() - 1 {
            // All blocks have been here: an atomic access reads what theirs left.
            let best = atomic_fetch_max_relaxed_u64_device(row_best, 0);
            let token = !(best as u32);
            *p.tokens.mut_ptr().add(row) = token;
            if !p.next_positions.is_null() {
                // The step that follows may be on its way already, and must find a row of the embeddings.
                let next = if token == NOT_FINITE { 0 } else { token };
                *p.next_tokens.mut_ptr().add(row) = next;
                let position = p.next_positions.mut_ptr().add(row);
                let half = POSTED_ROWS as usize * (*position % 2) as usize;
                *p.posted.mut_ptr().add(half + row) = token;
                *position += 1;
            }
            *row_best = 0;
            *arrived = 0;
        }
    }
}
