//! A random token of each row, from the likeliest ones.
//!
//! - Formula: keep the `top_k` largest logits (lower tokens first among equals); of these, the largest
//!   that together have the probability `top_p`; of these, the ones at least `min_p` times as likely as
//!   the likeliest; then draw by the softmax of the logits divided by the temperature. [`NOT_FINITE`]
//!   where a logit is NaN or infinite. Where the launch forbids, tokens of minus infinity are no error and are not
//!   there, and a row of nothing else gives [`NOTHING_ALLOWED`].
//! - Shapes: see [`SampleParams`], and [`ChoiceOutputs`](crate::abi::ChoiceOutputs) for what is written.
//! - Threads: a block a row. Nothing is sorted: the kept tokens are those above a cut, which bisection
//!   finds by counting, first over the row, then over the few candidates that fit in shared memory.
//! - Launch: grid = rows, block = [`SAMPLE_THREADS`]. Rows are aligned to 16 bytes where `stride` is a multiple of 4.
//! - Order: tokens share the random number in the order of [`sample_order`](crate::abi::sample_order).
//! - Moves: the row about six times, from the L2 cache.

use core::f32::consts::LOG2_E;

use cuda_std::prelude::*;
use cuda_std::shared::Shared;
use cuda_std::static_shared;

use super::choice::Place;
use super::{entry_points, order};
use crate::abi::{NOT_FINITE, NOTHING_ALLOWED, SAMPLE_THREADS, SampleParams, SampleSettings};
use crate::prim::grid;
use crate::prim::half::Element;
use crate::prim::math::exp2_approx;
use crate::prim::random::uniform;
use crate::prim::reduce::{warp_scan, warp_sum};

entry_points! {
    /// From f32 logits.
    SAMPLE = sample(SampleParams), max_threads = SAMPLE_THREADS, min_blocks = 1 => draw;
}

const THREADS: u32 = SAMPLE_THREADS;
const WARPS: u32 = THREADS / 32;
/// Candidates that fit in shared memory.
const CAPACITY: u32 = 4096;

/// The tokens among which the choice is: all of a row, or candidates in shared memory. Every thread
/// sees four neighbours at a time.
#[derive(Clone, Copy)]
struct Tokens {
    row: *const f32,
    /// Whether four logits are aligned to 16 bytes.
    aligned: bool,
    /// Keys and numbers of candidates.
    keys: Shared<u32>,
    numbers: Shared<u32>,
    /// Whether the candidates are in use, not the row.
    gathered: bool,
    /// Logits, or candidates.
    len: u32,
    /// Two results of each warp.
    sums: Shared<[f32; 2]>,
}

impl Tokens {
    /// Keys of tokens `i` to `i + 3`; 0 behind the end.
    ///
    /// # Safety
    /// After the barrier that publishes the candidates, where they are in use.
    #[inline(always)]
    unsafe fn keys(&self, i: u32) -> [u32; 4] {
        let mut keys = [0; 4];
        // SAFETY: indices below `len` are in the row, or among the candidates.
        unsafe {
            if !self.gathered && self.aligned && i + 4 <= self.len {
                return f32::load4(self.row.add(i as usize)).map(key);
            }
            let mut j = 0;
            while j < 4 {
                let i = i + j;
                if i < self.len {
                    keys[j as usize] = if self.gathered {
                        self.keys.add(i).load()
                    } else {
                        key(*self.row.add(i as usize))
                    };
                }
                j += 1;
            }
        }
        keys
    }

    /// The number in the vocabulary of token `i`.
    ///
    /// # Safety
    /// As for [`keys`](Self::keys), `i` being below `len`.
    #[inline(always)]
    unsafe fn number(&self, i: u32) -> u32 {
        if self.gathered {
            // SAFETY: the caller's.
            unsafe { self.numbers.add(i).load() }
        } else {
            i
        }
    }

    /// Calls `visit(i, key)` for each of this thread's tokens.
    ///
    /// # Safety
    /// As for [`keys`](Self::keys).
    #[inline(always)]
    unsafe fn each(&self, mut visit: impl FnMut(u32, u32)) {
        let mut i = 4 * thread::thread_idx_x();
        while i < self.len {
            // SAFETY: the caller's.
            let keys = unsafe { self.keys(i) };
            let mut j = 0;
            while j < 4 {
                visit(i + j, keys[j as usize]);
                j += 1;
            }
            i += 4 * THREADS;
        }
    }

    /// How many of the tokens that `select(i, key)` names there are, and their weight.
    ///
    /// # Safety
    /// All threads of the block come here, with candidates published where they are in use.
    #[inline(always)]
    unsafe fn measure(&self, max: f32, select: impl Fn(u32, u32) -> bool) -> (u32, f32) {
        let (mut count, mut mass) = (0.0f32, 0.0f32);
        // SAFETY: the caller's.
        unsafe {
            self.each(|i, key| {
                if select(i, key) {
                    count += 1.0;
                    mass += weight(key, max, 1.0);
                }
            });
            let (count, mass) = self.block_sums(count, mass);
            (count as u32, mass)
        }
    }

    /// Sums over the block; counts below 2^24 are exact.
    ///
    /// # Safety
    /// All threads of the block come here.
    #[inline(always)]
    unsafe fn block_sums(&self, a: f32, b: f32) -> (f32, f32) {
        let (warp, lane) = (thread::thread_idx_x() / 32, thread::thread_idx_x() % 32);
        // SAFETY: the barriers order the uses of `sums`.
        unsafe {
            let sums = [warp_sum(a), warp_sum(b)];
            // All warps are past the previous sums.
            thread::sync_threads();
            if lane == 0 {
                self.sums.add(warp).store(sums);
            }
            // Publishes these.
            thread::sync_threads();
            let sums = self.sums.add(lane).load();
            (warp_sum(sums[0]), warp_sum(sums[1]))
        }
    }

    /// The largest value of the block.
    ///
    /// # Safety
    /// All threads of the block come here.
    #[inline(always)]
    unsafe fn block_max(&self, value: u32) -> u32 {
        let (warp, lane) = (thread::thread_idx_x() / 32, thread::thread_idx_x() % 32);
        let warps = self.sums.cast::<u32>();
        // SAFETY: the barriers order the uses of `sums`.
        unsafe {
            let value = warp::warp_reduce_max_u32(warp::FULL_MASK, value);
            // All warps are past the previous sums.
            thread::sync_threads();
            if lane == 0 {
                warps.add(warp).store(value);
            }
            // Publishes these.
            thread::sync_threads();
            warp::warp_reduce_max_u32(warp::FULL_MASK, warps.add(lane).load())
        }
    }

    /// The sum of the values of the threads before this one, and the block's.
    ///
    /// # Safety
    /// All threads of the block come here.
    #[inline(always)]
    unsafe fn block_scan(&self, value: f32) -> (f32, f32) {
        let (warp, lane) = (thread::thread_idx_x() / 32, thread::thread_idx_x() % 32);
        // SAFETY: the barriers order the uses of `sums`.
        unsafe {
            let inclusive = warp_scan(value);
            // All warps are past the previous sums.
            thread::sync_threads();
            if lane == 31 {
                self.sums.add(warp).store([inclusive, 0.0]);
            }
            // Publishes these.
            thread::sync_threads();
            let warps = warp_scan(self.sums.add(lane).load()[0]);
            // All warps have read; lane 0 of each warp puts the sum up to its warp there.
            thread::sync_threads();
            if warp == 0 {
                self.sums.add(lane).store([warps, 0.0]);
            }
            // Publishes the sums up to each warp.
            thread::sync_threads();
            let before = if warp == 0 {
                0.0
            } else {
                self.sums.add(warp - 1).load()[0]
            };
            // What the lane below has: not `inclusive - value`, whose rounding could leave gaps.
            let below = warp::warp_shuffle_up(warp::FULL_MASK, inclusive, 1, 32).0;
            let total = self.sums.add(WARPS - 1).load()[0];
            (before + if lane == 0 { 0.0 } else { below }, total)
        }
    }

    /// Goes on with the tokens whose keys are at least `least`, of which there are `count` (up to
    /// [`CAPACITY`]).
    ///
    /// # Safety
    /// All threads of the block come here; the row is in use.
    #[inline(always)]
    unsafe fn gather(&mut self, least: u32, count: u32) {
        let mut own = 0.0f32;
        // SAFETY: the places are below `count`, each taken by one thread.
        unsafe {
            self.each(|_, key| {
                if key >= least {
                    own += 1.0;
                }
            });
            let mut place = self.block_scan(own).0 as u32;
            self.each(|i, key| {
                if key >= least {
                    self.keys.add(place).store(key);
                    self.numbers.add(place).store(i);
                    place += 1;
                }
            });
            self.gathered = true;
            self.len = count;
            // Publishes the candidates.
            thread::sync_threads();
        }
    }

    /// The largest key for which `enough(count, weight)` of the selected tokens with at least that
    /// key holds; `least` where it holds for no larger one. May gather candidates.
    ///
    /// # Safety
    /// All threads of the block come here.
    #[inline(always)]
    unsafe fn cut(
        &mut self,
        least: u32,
        max: f32,
        select: impl Fn(&Self, u32, u32) -> bool,
        enough: impl Fn(u32, f32) -> bool,
    ) -> u32 {
        let (mut low, mut high) = (least, order::key(max) + 1);
        let mut low_count = u32::MAX;
        // SAFETY: the caller's; all threads have the same results.
        unsafe {
            // The cut is usually near the maximum: find how near before bisection.
            let mut distance = 4.0;
            loop {
                let middle = order::key(max - distance);
                if middle <= low {
                    break;
                }
                let (count, mass) =
                    self.measure(max, |i, key| key >= middle && select(self, i, key));
                if enough(count, mass) {
                    (low, low_count) = (middle, count);
                    break;
                }
                high = middle;
                distance *= 2.0;
            }
            while high - low > 1 {
                if !self.gathered && low_count <= CAPACITY {
                    self.gather(low, low_count);
                }
                let middle = low + (high - low) / 2;
                let (count, mass) =
                    self.measure(max, |i, key| key >= middle && select(self, i, key));
                if enough(count, mass) {
                    (low, low_count) = (middle, count);
                } else {
                    high = middle;
                }
            }
        }
        low
    }
}

/// The key of a logit; both zeros have the same one, as for argmax.
#[inline(always)]
fn key(logit: f32) -> u32 {
    order::key(logit + 0.0)
}

/// The unscaled probability of a token.
#[inline(always)]
fn weight(key: u32, max: f32, inverse_temperature: f32) -> f32 {
    exp2_approx((order::value(key) - max) * inverse_temperature * LOG2_E)
}

/// What is kept: keys above `cut`, and of those at it the tokens up to a number.
#[derive(Clone, Copy)]
struct Kept {
    cut: u32,
    last_equal: u32,
}

impl Kept {
    /// # Safety
    /// As for [`Tokens::number`].
    #[inline(always)]
    unsafe fn has(&self, tokens: &Tokens, i: u32, key: u32) -> bool {
        // SAFETY: the caller's.
        key > self.cut || (key == self.cut && unsafe { tokens.number(i) } <= self.last_equal)
    }

    /// What the filters keep of tokens the largest of whose logits is `max`.
    ///
    /// # Safety
    /// All threads of the block come here.
    #[inline(always)]
    unsafe fn of(
        tokens: &mut Tokens,
        max: f32,
        vocab: u32,
        (top_k, top_p, min_p): (u32, f32, f32),
    ) -> Kept {
        let mut kept = Kept {
            cut: order::LOWEST_KEY,
            last_equal: u32::MAX,
        };
        // SAFETY: all threads have the same results and take each branch.
        unsafe {
            if top_k > 0 && top_k < vocab {
                kept.cut = tokens.cut(kept.cut, max, |_, _, _| true, |count, _| count >= top_k);
                let above = tokens.measure(max, |_, key| key > kept.cut).0;
                kept.keep_equals(tokens, max, vocab, top_k - above.min(top_k));
            }
            if top_p < 1.0 {
                let all = tokens.measure(max, |i, key| kept.has(tokens, i, key)).1;
                let goal = top_p * all;
                let before = kept;
                kept.cut = tokens.cut(
                    kept.cut,
                    max,
                    |tokens, i, key| before.has(tokens, i, key),
                    |count, mass| mass >= goal && count > 0,
                );
                let above = tokens.measure(max, |_, key| key > kept.cut).1;
                let equals = ((goal - above) / weight(kept.cut, max, 1.0))
                    .ceil()
                    .max(1.0);
                if kept.cut > before.cut {
                    kept.last_equal = u32::MAX;
                }
                kept.keep_equals(tokens, max, vocab, equals as u32);
            }
        }
        if min_p > 0.0 {
            let least = order::key(max + min_p.ln());
            if least > kept.cut {
                kept = Kept {
                    cut: least,
                    last_equal: u32::MAX,
                };
            }
        }
        kept
    }

    /// Keeps only the first `equals` of the tokens at the cut.
    ///
    /// # Safety
    /// All threads of the block come here.
    #[inline(always)]
    unsafe fn keep_equals(&mut self, tokens: &Tokens, max: f32, vocab: u32, equals: u32) {
        let (mut low, mut high) = (0, vocab - 1);
        // SAFETY: all threads have the same results.
        unsafe {
            if tokens.measure(max, |_, key| key == self.cut).0 <= equals {
                return;
            }
            while low < high {
                let middle = low + (high - low) / 2;
                let up_to = Self {
                    cut: self.cut,
                    last_equal: middle,
                };
                let select = |i, key| key == self.cut && up_to.has(tokens, i, key);
                if tokens.measure(max, select).0 >= equals {
                    high = middle;
                } else {
                    low = middle + 1;
                }
            }
        }
        self.last_equal = self.last_equal.min(low);
    }
}

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
        // In full, so that no setting can be forgotten here.
        let SampleSettings {
            temperature,
            top_k,
            top_p,
            min_p,
            seed,
        } = *p.settings.ptr().add(row);
        let mut tokens = Tokens {
            row: p.logits.ptr().add(row * p.stride as usize),
            aligned: p.stride.is_multiple_of(4),
            keys: static_shared![u32; CAPACITY as usize],
            numbers: static_shared![u32; CAPACITY as usize],
            gathered: false,
            len: p.vocab,
            sums: static_shared![[f32; 2]; WARPS as usize],
        };
        let forbids = p.forbids != 0;
        let mut own = 0;
        tokens.each(|i, key| {
            // Behind the end keys are 0, as NaN's.
            let is_forbidden = forbids && key == order::FORBIDDEN_KEY;
            let is_broken = i < p.vocab && !order::is_finite(key) && !is_forbidden;
            own = if is_broken { u32::MAX } else { key.max(own) };
        });
        // Under way while the largest key is found.
        let place = Place::of(&p.outputs, row, true);
        let max_key = tokens.block_max(own);
        if !order::is_finite(max_key) {
            if thread::thread_idx_x() == 0 {
                let is_forbidden = max_key == order::FORBIDDEN_KEY;
                let error = if is_forbidden {
                    NOTHING_ALLOWED
                } else {
                    NOT_FINITE
                };
                place.put(&p.outputs, error);
            }
            return;
        }
        let max = order::value(max_key);
        let greedy = temperature <= 0.0;
        let top_k = if greedy { 1 } else { top_k };
        let kept = Kept::of(&mut tokens, max, p.vocab, (top_k, top_p, min_p));

        let number = static_shared![f32; 1];
        if thread::thread_idx_x() == 0 {
            number.store(uniform(
                seed[0] as u64 | (seed[1] as u64) << 32,
                place.position,
            ));
        }
        let inverse_temperature = if greedy { 1.0 } else { 1.0 / temperature };
        let mut own = 0.0f32;
        tokens.each(|i, key| {
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
        if !tokens.block_max(!rank) == rank && own > 0.0 {
            let (mut sum, mut chosen, mut reached) = (before, 0, false);
            tokens.each(|i, key| {
                if !reached && kept.has(&tokens, i, key) {
                    sum += weight(key, max, inverse_temperature);
                    chosen = i;
                    reached = goal < sum;
                }
            });
            place.put(&p.outputs, tokens.number(chosen));
        }
    }
}
