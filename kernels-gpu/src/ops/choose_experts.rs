//! The experts that each token takes, and how much each counts.
//!
//! - Formula: see [`ChooseExpertsParams`]. A score that is no number is below all others, so that there are always `used`
//!   experts, and makes every weight of its token no number.
//! - Shapes: up to [`MAX_EXPERTS`](crate::abi::MAX_EXPERTS) experts.
//! - Threads: a warp a token. For each rank the lanes look through all scores for the largest one behind that of the rank
//!   before: in order of score and index no two are equal, so that nothing has to be marked.
//! - Launch: grid = tokens, block = [`CHOOSE_EXPERTS_THREADS`].
//! - Moves: the scores once for each rank (all but the first from L1).

use cuda_std::prelude::*;

use super::entry_points;
use super::order::{token_key, warp_largest};
use crate::abi::{CHOOSE_EXPERTS_THREADS, ChooseExpertsParams};
use crate::prim::grid;
use crate::prim::math::exp2_approx;
use crate::prim::reduce::warp_sum;

entry_points! {
    /// By scores in f32.
    CHOOSE_EXPERTS = choose_experts(ChooseExpertsParams), max_threads = CHOOSE_EXPERTS_THREADS => choose;
}

/// A score and its expert: larger where the score is, or among equals where the index is lower.
#[inline(always)]
fn ranked(score: f32, expert: u32) -> u64 {
    (token_key(score) as u64) << 32 | (!expert) as u64
}

/// The body.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn choose(p: ChooseExpertsParams) {
    grid::wait();

    let token = thread::block_idx_x() as usize;
    let lane = thread::thread_idx_x();
    // SAFETY: the token's scores and results are in the buffers; the whole warp is here.
    unsafe {
        let scores = p.scores.ptr().add(token * p.experts as usize);
        let ids = p.ids.mut_ptr().add(token * p.used as usize);
        let weights = p.weights.mut_ptr().add(token * p.used as usize);

        // Of the rank before; above all of the first one.
        let mut last = u64::MAX;
        let (mut largest, mut all, mut chosen_sum) = (0.0, 0.0, 0.0);
        let mut rank = 0;
        while rank < p.used {
            let mut best = 0;
            let mut expert = lane;
            while expert < p.experts {
                let this = ranked(*scores.add(expert as usize), expert);
                if this < last && this > best {
                    best = this;
                }
                expert += 32;
            }
            last = warp_largest(best);
            let expert = !(last as u32);
            let score = *scores.add(expert as usize);
            if rank == 0 {
                largest = score;
                all = exponentials(scores, p.experts, lane, largest);
            }
            let weight = exponential(score - largest) / all;
            chosen_sum += weight;
            if lane == 0 {
                *ids.add(rank as usize) = expert;
                *weights.add(rank as usize) = weight;
            }
            rank += 1;
        }
        if p.normalizes != 0 && lane == 0 {
            // A comparison that a NaN does not pass: it stays.
            let sum = if chosen_sum < p.least_sum {
                p.least_sum
            } else {
                chosen_sum
            };
            let mut rank = 0;
            while rank < p.used {
                *weights.add(rank as usize) /= sum;
                rank += 1;
            }
        }
    }
}

/// The sum of `e^(score - largest)` over all scores.
///
/// # Safety
/// The whole warp comes here; there are as many scores.
#[inline(always)]
unsafe fn exponentials(scores: *const f32, count: u32, lane: u32, largest: f32) -> f32 {
    let mut sum = 0.0;
    let mut expert = lane;
    while expert < count {
        // SAFETY: the caller's.
        sum += exponential(unsafe { *scores.add(expert as usize) } - largest);
        expert += 32;
    }
    // SAFETY: the caller's.
    unsafe { warp_sum(sum) }
}

#[inline(always)]
fn exponential(x: f32) -> f32 {
    exp2_approx(x * core::f32::consts::LOG2_E)
}
