//! Pairs of tokens and experts, put together by experts.
//!
//! - Formula, shapes: see [`GroupPairsParams`]. No pair is left out, however many an expert has.
//! - Threads: a block an expert. It counts the pairs of the experts before and its own, each warp in a range of pairs, and
//!   then puts its own one after the other.
//! - Launch: grid = experts, block = [`GROUP_PAIRS_THREADS`].
//! - Moves: the ids twice a block (from L2), every result once.

use cuda_std::prelude::*;
use cuda_std::static_shared;

use super::entry_points;
use crate::abi::{GROUP_PAIRS_THREADS, GroupPairsParams};
use crate::prim::grid;

entry_points! {
    /// Of u32.
    GROUP_PAIRS = group_pairs(GroupPairsParams), max_threads = GROUP_PAIRS_THREADS => group;
}

const WARPS: u32 = GROUP_PAIRS_THREADS / 32;

/// The body.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn group(p: GroupPairsParams) {
    grid::wait();

    let expert = thread::block_idx_x();
    let (warp, lane) = (thread::thread_idx_x() / 32, thread::thread_idx_x() % 32);
    let of_warp = p.pairs.div_ceil(const { WARPS * 32 }) * 32;
    let first = warp * of_warp;
    let end = (first + of_warp).min(p.pairs);
    let counts = static_shared![u32; WARPS as usize];
    let before = static_shared![u32; WARPS as usize];
    // SAFETY: pairs below the end are in the buffers; each warp has its own place in shared memory.
    unsafe {
        let (mut own, mut lower) = (0, 0);
        let mut pair = first + lane;
        while pair < end {
            let id = *p.ids.ptr().add(pair as usize);
            own += (id == expert) as i32;
            lower += (id < expert) as i32;
            pair += 32;
        }
        let own = warp::warp_reduce_add_i32(warp::FULL_MASK, own);
        let lower = warp::warp_reduce_add_i32(warp::FULL_MASK, lower);
        if lane == 0 {
            counts.add(warp).store(own as u32);
            before.add(warp).store(lower as u32);
        }
        // Publishes the warps' counts.
        thread::sync_threads();
        let (mut start, mut place) = (0, 0);
        let mut other = 0;
        while other < WARPS {
            start += before.add(other).load();
            if other < warp {
                place += counts.add(other).load();
            }
            other += 1;
        }
        place += start;
        if thread::thread_idx_x() == 0 {
            *p.starts.mut_ptr().add(expert as usize) = start;
            if expert + 1 == p.experts {
                *p.starts.mut_ptr().add(p.experts as usize) = p.pairs;
            }
        }

        // Whole warps go round, for the vote.
        let mut base = first;
        while base < end {
            let pair = base + lane;
            let is_own = pair < end && *p.ids.ptr().add(pair as usize) == expert;
            let all = warp::warp_vote_ballot(warp::FULL_MASK, is_own);
            if is_own {
                let at = place + (all & ((1 << lane) - 1)).count_ones();
                *p.order.mut_ptr().add(at as usize) = pair;
                *p.places.mut_ptr().add(pair as usize) = at;
            }
            place += all.count_ones();
            base += 32;
        }
    }
}
