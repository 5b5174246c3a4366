//! Log-probabilities: those of the likeliest tokens of a row, and that of the chosen one.
//!
//! - Formula: `logprob[i] = (x[i] - m) - s`, `m` being the largest `x` and `s = ln(sum of exp(x[j] - m))`, so that large
//!   logits cost no precision; NaN where a logit is not finite.
//! - Shapes: see [`LogprobsParams`] and [`ChosenLogprobParams`]. `logprobs` runs before the logits are adjusted and
//!   `chosen_logprob` after the choice: it takes a logit that the row's list changed from there, and a mask changes
//!   none that is chosen.
//! - Threads: a block a row. Each thread knows the likeliest of its tokens; the likeliest of these is the next one to
//!   report, and its thread looks for another, with the help of its warp.
//! - Launch: grid = rows, block = [`LOGPROBS_THREADS`] or [`CHOSEN_LOGPROB_THREADS`]. Rows are aligned to 16 bytes
//!   where `stride` is a multiple of 4.
//! - Moves: the row twice, and 1/32 of it for each likeliest token, mostly from the L2 cache. Rows that want nothing
//!   move 4 bytes.

use cuda_std::prelude::*;
use cuda_std::shared::Shared;
use cuda_std::static_shared;

use super::entry_points;
use super::order::{self, larger, ranked, warp_largest};
use crate::abi::{
    CHOSEN_LOGPROB_THREADS, ChosenLogprobParams, LOGPROBS_THREADS, LogprobsParams, MAX_LOGPROBS,
    NOT_FINITE, POSTED_ROWS, PostedLogprobs,
};
use crate::prim::grid;
use crate::prim::half::Element;
use crate::prim::math::fma;
use crate::prim::reduce::{block_max, block_sum};

entry_points! {
    /// The likeliest tokens of each row.
    LOGPROBS = logprobs(LogprobsParams), max_threads = LOGPROBS_THREADS => likeliest;
    /// The chosen token of each row.
    CHOSEN_LOGPROB = chosen_logprob(ChosenLogprobParams), max_threads = CHOSEN_LOGPROB_THREADS => chosen;
}

const THREADS: u32 = LOGPROBS_THREADS;

/// A row of logits, of which thread `t` has four neighbours from `4 * t` on, and again after `4 * THREADS`.
#[derive(Clone, Copy)]
struct Row {
    logits: *const f32,
    vocab: u32,
    /// Whether four logits are aligned to 16 bytes.
    aligned: bool,
}

impl Row {
    /// Tokens `i` to `i + 3`, [`ranked`]; 0 behind the end.
    ///
    /// # Safety
    /// The row has `vocab` logits; `i` is a multiple of 4.
    #[inline(always)]
    unsafe fn four(&self, i: u32) -> [u64; 4] {
        let mut four = [0; 4];
        // SAFETY: indices below `vocab` are in the row.
        unsafe {
            if self.aligned && i + 4 <= self.vocab {
                let x = f32::load4(self.logits.add(i as usize));
                let mut j = 0;
                while j < 4 {
                    four[j as usize] = ranked(x[j as usize], i + j);
                    j += 1;
                }
                return four;
            }
            let mut j = 0;
            while j < 4 {
                if i + j < self.vocab {
                    four[j as usize] = ranked(*self.logits.add((i + j) as usize), i + j);
                }
                j += 1;
            }
        }
        four
    }

    /// Calls `visit` for the tokens of thread `thread`, `every` fours from number `first` of them on.
    ///
    /// # Safety
    /// As for [`four`](Self::four).
    #[inline(always)]
    unsafe fn each(&self, thread: u32, first: u32, every: u32, mut visit: impl FnMut([u64; 4])) {
        let mut i = 4 * (thread + THREADS * first);
        while i < self.vocab {
            // SAFETY: the caller's.
            visit(unsafe { self.four(i) });
            i += 4 * THREADS * every;
        }
    }
}

/// The body of `logprobs`.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn likeliest(p: LogprobsParams) {
    grid::wait();
    let index = thread::block_idx_x() as usize;
    let thread = thread::thread_idx_x();
    // SAFETY: the launch has logits and results for every row; all threads take each branch, but for what thread 0
    // writes and what a warp does together.
    unsafe {
        let wanted = *p.wanted.ptr().add(index);
        if wanted == 0 {
            return;
        }
        let count = (wanted - 1).min(MAX_LOGPROBS);
        let turn = if p.turns.is_null() {
            0
        } else {
            *p.turns.ptr().add(index)
        };
        let row = Row {
            logits: p.logits.ptr().add(index * p.stride as usize),
            vocab: p.vocab,
            aligned: p.stride.is_multiple_of(4),
        };
        let (warps, sums) = (static_shared![u64; 32], static_shared![f32; 32]);
        let mut own = 0;
        row.each(thread, 0, 1, |four| {
            own = four.into_iter().fold(own, larger)
        });
        let mut next = block_largest(own, warps);
        let is_broken = order::token(next) == NOT_FINITE;
        let max = order::value((next >> 32) as u32);

        let mut sum = 0.0;
        if !is_broken {
            row.each(thread, 0, 1, |four| sum += exponentials(four, max));
        }
        let log_sum = ln(block_sum(sum, sums));
        let broken = |x: f32| if is_broken { f32::NAN } else { x };
        let posted = posted(p.posted.mut_ptr(), turn, index);
        if thread == 0 {
            *p.sums.mut_ptr().add(index) = [broken(max), broken(log_sum)];
            (*posted).log_sum_exp = broken(max + log_sum);
        }
        let mut rank = 0;
        while rank < count {
            let has_one = next != 0 && !is_broken;
            let token = if has_one {
                order::token(next)
            } else {
                NOT_FINITE
            };
            if thread == 0 {
                let logprob = if has_one {
                    order::value((next >> 32) as u32) - max - log_sum
                } else {
                    broken(f32::NEG_INFINITY)
                };
                (&raw mut (*posted).tokens)
                    .cast::<u32>()
                    .add(rank as usize)
                    .write(token);
                (&raw mut (*posted).logprobs)
                    .cast::<f32>()
                    .add(rank as usize)
                    .write(logprob);
            }
            rank += 1;
            if has_one && rank < count {
                let winner = token / 4 % THREADS;
                if thread / 32 == winner / 32 {
                    let mut best = 0;
                    row.each(winner, thread % 32, 32, |four| {
                        let below = four.map(|ranked| if ranked < next { ranked } else { 0 });
                        best = below.into_iter().fold(best, larger);
                    });
                    let best = warp_largest(best);
                    if thread == winner {
                        own = best;
                    }
                }
                next = block_largest(own, warps);
            }
        }
    }
}

/// The sum of `exp(x - max)`; those that are 0 are none.
#[inline(always)]
fn exponentials(four: [u64; 4], max: f32) -> f32 {
    let [a, b, c, d] = four.map(|ranked| {
        if ranked == 0 {
            0.0
        } else {
            (order::value((ranked >> 32) as u32) - max).exp()
        }
    });
    // In pairs: of 64 such sums a row of 262,144 logits has, each rounds less than one after the other would.
    (a + b) + (c + d)
}

/// The natural logarithm of a finite number from 1 on, within 1e-6.
#[inline(always)]
fn ln(x: f32) -> f32 {
    // The instruction's error grows with the result: it gets the mantissa alone.
    let exponent = (x.to_bits() >> 23) as i32 - 127;
    let mantissa = f32::from_bits(x.to_bits() & 0x007f_ffff | 1f32.to_bits());
    fma(
        exponent as f32,
        core::f32::consts::LN_2,
        GpuFloat::ln(mantissa),
    )
}

/// The largest value of the block.
///
/// # Safety
/// All threads of the block come here; `warps` is 32 u64 that nothing else uses.
#[inline(always)]
unsafe fn block_largest(value: u64, warps: Shared<u64>) -> u64 {
    let (warp, lane) = (thread::thread_idx_x() / 32, thread::thread_idx_x() % 32);
    // SAFETY: the barriers order the uses of `warps`.
    unsafe {
        let value = warp_largest(value);
        // All warps have read the values before.
        thread::sync_threads();
        if lane == 0 {
            warps.add(warp).store(value);
        }
        // Publishes these.
        thread::sync_threads();
        warp_largest(warps.add(lane).load())
    }
}

/// Where the host finds a row's results.
///
/// # Safety
/// The row is below [`POSTED_ROWS`], and `posted` has two halves of these.
#[inline(always)]
unsafe fn posted(posted: *mut PostedLogprobs, turn: u32, row: usize) -> *mut PostedLogprobs {
    // SAFETY: the caller's.
    unsafe { posted.add((POSTED_ROWS * turn) as usize + row) }
}

/// The body of `chosen_logprob`.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn chosen(p: ChosenLogprobParams) {
    grid::wait();
    let index = thread::block_idx_x() as usize;
    let thread = thread::thread_idx_x();
    // SAFETY: the launch has tokens and results for every row; all threads take each branch, but for what thread 0
    // writes.
    unsafe {
        if *p.wanted.ptr().add(index) == 0 {
            return;
        }
        // The choice has changed it.
        let turn = if p.turns.is_null() {
            0
        } else {
            *p.turns.ptr().add(index) ^ 1
        };
        let token = *p.tokens.ptr().add(index);
        let [max, log_sum] = *p.sums.ptr().add(index);
        let mut listed = f32::NEG_INFINITY;
        if !p.rows.is_null() {
            let row = &*p.rows.ptr().add(index);
            let (mut at, end) = (row.begin + thread, row.end);
            while at < end {
                let entry = p.entries.ptr().add(at as usize);
                if (*entry).token == token {
                    listed = (*entry).original;
                }
                at += CHOSEN_LOGPROB_THREADS;
            }
            listed = block_max(listed, static_shared![f32; 32]);
        }
        if thread == 0 {
            let logit = if token >= p.vocab {
                f32::NAN
            } else if listed > f32::NEG_INFINITY {
                listed
            } else {
                *p.logits
                    .ptr()
                    .add(index * p.stride as usize + token as usize)
            };
            (*posted(p.posted.mut_ptr(), turn, index)).chosen = logit - max - log_sum;
        }
    }
}
