//! The tokens of a row that a block of the sampling kernel chooses from: counted, weighed, and gathered in shared memory.

use core::f32::consts::LOG2_E;

use cuda_std::prelude::*;
use cuda_std::shared::Shared;
use cuda_std::static_shared;

use super::order;
use crate::abi::SAMPLE_THREADS as THREADS;
use crate::prim::half::Element;
use crate::prim::math::exp2_approx;
use crate::prim::reduce::{warp_scan, warp_sum};

const WARPS: u32 = THREADS / 32;
/// Candidates that fit in shared memory.
const CAPACITY: u32 = 4096;

/// The tokens among which the choice is: all of a row, or candidates in shared memory. Every thread
/// sees four neighbours at a time.
#[derive(Clone, Copy)]
pub struct Tokens {
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
    /// All of a row of `len` logits, which is aligned to 16 bytes or not.
    ///
    /// # Safety
    /// A block has one of them: its shared memory is the block's.
    #[inline(always)]
    pub unsafe fn of_row(row: *const f32, aligned: bool, len: u32) -> Tokens {
        Tokens {
            row,
            aligned,
            keys: static_shared![u32; CAPACITY as usize],
            numbers: static_shared![u32; CAPACITY as usize],
            gathered: false,
            len,
            sums: static_shared![[f32; 2]; WARPS as usize],
        }
    }

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
    pub unsafe fn number(&self, i: u32) -> u32 {
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
    pub unsafe fn each(&self, mut visit: impl FnMut(u32, u32)) {
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
    pub unsafe fn measure(&self, max: f32, select: impl Fn(u32, u32) -> bool) -> (u32, f32) {
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
    pub unsafe fn block_max(&self, value: u32) -> u32 {
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
    pub unsafe fn block_scan(&self, value: f32) -> (f32, f32) {
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
    pub unsafe fn cut(
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
pub fn weight(key: u32, max: f32, inverse_temperature: f32) -> f32 {
    exp2_approx((order::value(key) - max) * inverse_temperature * LOG2_E)
}
