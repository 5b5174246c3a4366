//! The experts that each token takes, and how much each counts.
//!
//! - Formula: see [`ChooseExpertsParams`]. A score that is no number is below all others, so that there are always `used`
//!   experts, and makes every weight of its token no number.
//! - Shapes: up to [`MAX_EXPERTS`] experts.
//! - Threads: a warp a token, whose lanes keep every 32nd score. For each rank they agree on the largest score that is
//!   left, and on the lowest expert that has it.
//! - Launch: grid = tokens, block = [`CHOOSE_EXPERTS_THREADS`].
//! - Moves: the scores and the results once.

use cuda_std::prelude::*;

use super::entry_points;
use super::order::token_key;
use crate::abi::{CHOOSE_EXPERTS_THREADS, ChooseExpertsParams, MAX_EXPERTS};
use crate::prim::grid;
use crate::prim::math::exp2_approx;
use crate::prim::reduce::warp_sum;

entry_points! {
    /// By scores in f32.
    CHOOSE_EXPERTS = choose_experts(ChooseExpertsParams), max_threads = CHOOSE_EXPERTS_THREADS => choose;
}

/// Below the [`rank_key`] of every score: that of an expert that is taken, or that there is not.
const TAKEN: u32 = 0;

/// An integer that is larger where the score is; that of no number is below all others.
#[inline(always)]
fn rank_key(score: f32) -> u32 {
    // The largest key is that of infinity, far below the largest integer.
    token_key(score) + 1
}

/// The body.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn choose(p: ChooseExpertsParams) {
    grid::wait();

    // SAFETY: the caller's; each has room for the launch's experts.
    unsafe {
        match p.experts {
            ..=128 => choose_among::<4>(&p),
            129..=256 => choose_among::<8>(&p),
            _ => choose_among::<{ MAX_EXPERTS as usize / 32 }>(&p),
        }
    }
}

/// The choice among up to `32 * N` experts.
///
/// # Safety
/// As [`choose`]'s; all lanes come here.
#[inline(always)]
unsafe fn choose_among<const N: usize>(p: &ChooseExpertsParams) {
    let token = thread::block_idx_x() as usize;
    let lane = thread::thread_idx_x();
    // SAFETY: the token's scores and results are in the buffers; the whole warp is here.
    unsafe {
        let all_scores = p.scores.ptr().add(token * p.experts as usize);
        let ids = p.ids.mut_ptr().add(token * p.used as usize);
        let weights = p.weights.mut_ptr().add(token * p.used as usize);

        // Those of experts `lane`, `lane + 32`, and so on.
        let (mut scores, mut keys) = ([f32::NEG_INFINITY; N], [TAKEN; N]);
        let mut i = 0;
        while i < N {
            let expert = lane + 32 * i as u32;
            if expert < p.experts {
                scores[i] = *all_scores.add(expert as usize);
                keys[i] = rank_key(scores[i]);
            }
            i += 1;
        }

        let (mut largest, mut all, mut chosen_sum) = (0.0, 0.0, 0.0);
        let mut rank = 0;
        while rank < p.used {
            let expert = take_best(&mut keys, lane);
            // From L1.
            let score = *all_scores.add(expert as usize);
            if rank == 0 {
                largest = score;
                all = exponentials(&scores, lane, p.experts, largest);
            }
            let weight = exponential(score - largest) / all;
            chosen_sum += weight;
            if lane == 0 {
                *ids.add(rank as usize) = expert;
                *weights.add(rank as usize) = weight;
            }
            rank += 1;
        }
        if p.normalizes == 0 {
            return;
        }
        // A comparison that a NaN does not pass: it stays.
        let sum = if chosen_sum < p.least_sum {
            p.least_sum
        } else {
            chosen_sum
        };
        // Publishes the first lane's weights to the others.
        warp::sync_warp(warp::FULL_MASK);
        let mut rank = lane;
        while rank < p.used {
            *weights.add(rank as usize) /= sum;
            rank += 32;
        }
    }
}

/// The expert with the largest key, and among equals the lowest one, whose key becomes [`TAKEN`].
///
/// # Safety
/// The whole warp comes here; an expert is left.
#[inline(always)]
unsafe fn take_best<const N: usize>(keys: &mut [u32; N], lane: u32) -> u32 {
    let mut best = TAKEN;
    let mut i = 0;
    while i < N {
        best = best.max(keys[i]);
        i += 1;
    }
    // SAFETY: the caller's.
    let best = unsafe { warp::warp_reduce_max_u32(warp::FULL_MASK, best) };
    let mut expert = u32::MAX;
    while i > 0 {
        i -= 1;
        if keys[i] == best {
            expert = lane + 32 * i as u32;
        }
    }
    // SAFETY: the caller's.
    let expert = unsafe { warp::warp_reduce_min_u32(warp::FULL_MASK, expert) };
    while i < N {
        if expert == lane + 32 * i as u32 {
            keys[i] = TAKEN;
        }
        i += 1;
    }
    expert
}

/// The sum of `e^(score - largest)` over all scores.
///
/// # Safety
/// The whole warp comes here.
#[inline(always)]
unsafe fn exponentials<const N: usize>(
    scores: &[f32; N],
    lane: u32,
    experts: u32,
    largest: f32,
) -> f32 {
    let mut sum = 0.0;
    let mut i = 0;
    while i < N {
        if lane + 32 * (i as u32) < experts {
            sum += exponential(scores[i] - largest);
        }
        i += 1;
    }
    // SAFETY: the caller's.
    unsafe { warp_sum(sum) }
}

#[inline(always)]
fn exponential(x: f32) -> f32 {
    exp2_approx(x * core::f32::consts::LOG2_E)
}
