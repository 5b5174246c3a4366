//! A random token of each row, from the likeliest ones.
//!
//! - Formula: keep the `top_k` largest logits (lower tokens first among equals); of these, the largest
//!   that together have the probability `top_p`; of these, the ones at least `min_p` times as likely as
//!   the likeliest; then draw by the softmax of the logits divided by the temperature. [`NOT_FINITE`]
//!   where `group_maxima` says so. Tokens of minus infinity are not there, and a row of nothing else gives
//!   [`NOTHING_ALLOWED`].
//! - Shapes: see [`SampleParams`], and [`ChoiceOutputs`](crate::abi::ChoiceOutputs) for what is written.
//! - Threads: a block a row. Where the `top_k` are few, the groups' largest logits tell which tokens may be among them,
//!   and these are compared with each other. Otherwise the kept tokens are those above a cut, which bisection finds by counting, first over
//!   the groups of the row that reach so high, then over the candidates that fit in shared memory.
//! - Launch: grid = rows, block = [`SAMPLE_THREADS`]. Rows are aligned to 16 bytes where `stride` is a multiple of 4.
//! - Order: tokens share the random number in the order of [`sample_order`](crate::abi::sample_order).
//! - Moves: of the row what reaches the cut, a few times; without `top_k` and `min_p` all of it, from the L2 cache.

use cuda_std::prelude::*;
use cuda_std::static_shared;

use super::choice::Place;
use super::sample_few::{FEW, choose};
use super::sample_kept::Kept;
use super::sample_tokens::{Tokens, weight};
use super::{entry_points, order};
use crate::abi::{
    GROUP_LOGITS, NOT_FINITE, NOTHING_ALLOWED, SAMPLE_THREADS, SampleParams, SampleSettings,
};
use crate::prim::grid;
use crate::prim::random::uniform;

entry_points! {
    /// From f32 logits.
    SAMPLE = sample(SampleParams), max_threads = SAMPLE_THREADS, min_blocks = 1 => draw;
}

const THREADS: u32 = SAMPLE_THREADS;

/// The body.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn draw(p: SampleParams) {
    grid::wait();

    let row = thread::block_idx_x() as usize;
    // SAFETY: the launch has settings and logits for every row; all threads take each branch.
    unsafe {
        let mut settings = *p.settings.ptr().add(row);
        if settings.temperature <= 0.0 {
            (settings.temperature, settings.top_k) = (1.0, 1);
        }
        let row_logits = p.logits.ptr().add(row * p.stride as usize);
        let groups = p.vocab.div_ceil(GROUP_LOGITS) as usize;
        let maxima = p.maxima.ptr().add(row * groups);
        let mut tokens = Tokens::of_row(row_logits, maxima, p.stride.is_multiple_of(4), p.vocab);
        // Under way while the largest key is found.
        let place = Place::of(&p.outputs, row, true);
        let max_key = tokens.largest();
        if max_key < order::LOWEST_KEY || max_key == order::BROKEN {
            if thread::thread_idx_x() == 0 {
                let error = if max_key == order::BROKEN {
                    NOT_FINITE
                } else {
                    NOTHING_ALLOWED
                };
                place.put(&p.outputs, error);
            }
            return;
        }
        let max = order::value(max_key);
        if settings.top_k > 0 {
            let least = tokens
                .reached_by(settings.top_k, max)
                .max(order::LOWEST_KEY);
            if tokens.gather(least, FEW) {
                if let Some(token) = choose(&tokens, max, &settings, place.position) {
                    place.put(&p.outputs, token);
                }
                return;
            }
        }

        // In full, so that no setting can be forgotten here.
        let SampleSettings {
            temperature,
            top_k,
            top_p,
            min_p,
            seed,
        } = settings;
        let kept = Kept::of(&mut tokens, max, p.vocab, (top_k, top_p, min_p));
        let number = static_shared![f32; 1];
        if thread::thread_idx_x() == 0 {
            number.store(uniform(
                seed[0] as u64 | (seed[1] as u64) << 32,
                place.position,
            ));
        }
        let inverse_temperature = 1.0 / temperature;
        let mut own = 0.0f32;
        tokens.each(kept.cut, |i, key| {
            if kept.has(&tokens, i, key) {
                own += weight(key, max, inverse_temperature);
            }
        });
        // Its barriers publish the random number too.
        let (before, total) = tokens.block_scan(own);
        let goal = number.load() * total;
        // The first thread whose share reaches over the goal; where rounding leaves none, the last
        // that has a share.
        let thread = thread::thread_idx_x();
        let rank = if own == 0.0 {
            u32::MAX
        } else if goal < before + own {
            thread
        } else {
            2 * THREADS - thread
        };
        let is_first = !tokens.block_max(!rank) == rank && own > 0.0;
        // The whole warp, whose threads go through groups together.
        if warp::warp_vote_any(warp::FULL_MASK, is_first) {
            let (mut sum, mut chosen, mut reached) = (before, 0, false);
            tokens.each(kept.cut, |i, key| {
                if !reached && kept.has(&tokens, i, key) {
                    sum += weight(key, max, inverse_temperature);
                    chosen = i;
                    reached = goal < sum;
                }
            });
            if is_first {
                place.put(&p.outputs, tokens.number(chosen));
            }
        }
    }
}
