//! The tokens of a row that a block of the sampling kernel chooses from: counted, weighed, and gathered in shared memory.

use core::f32::consts::LOG2_E;

use cuda_std::prelude::*;
use cuda_std::shared::Shared;
use cuda_std::static_shared;

use super::order::{self, token_key};
use crate::abi::{GROUP_LOGITS, SAMPLE_THREADS as THREADS};
use crate::prim::half::Element;
use crate::prim::math::exp2_approx;
use crate::prim::reduce::{warp_scan, warp_sum};

const WARPS: u32 = THREADS / 32;
/// Candidates that fit in shared memory.
const CAPACITY: u32 = 4096;

/// The tokens among which the choice is: all of a row, or candidates in shared memory. Every warp sees a group at a
/// time, of which every thread has four neighbours.
#[derive(Clone, Copy)]
pub struct Tokens {
    row: *const f32,
    /// The largest key of each group of the row.
    maxima: *const u32,
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
    /// All of a row of `len` logits, which is aligned to 16 bytes or not, with the largest keys of its groups.
    ///
    /// # Safety
    /// A block has one of them: its shared memory is the block's.
    #[inline(always)]
    pub unsafe fn of_row(row: *const f32, maxima: *const u32, aligned: bool, len: u32) -> Tokens {
        Tokens {
            row,
            maxima,
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
                return f32::load4(self.row.add(i as usize)).map(token_key);
            }
            let mut j = 0;
            while j < 4 {
                let i = i + j;
                if i < self.len {
                    keys[j as usize] = if self.gathered {
                        self.keys.add(i).load()
                    } else {
                        token_key(*self.row.add(i as usize))
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

    /// Calls `visit(i, key)` for each of this thread's tokens with at least the key `least`, and for others in their
    /// groups; the key is 0 behind the end.
    ///
    /// # Safety
    /// As for [`keys`](Self::keys), and all threads of the warp come here.
    #[inline(always)]
    pub unsafe fn each(&self, least: u32, mut visit: impl FnMut(u32, u32)) {
        let (warp, lane) = (thread::thread_idx_x() / 32, thread::thread_idx_x() % 32);
        let groups = self.len.div_ceil(GROUP_LOGITS);
        let mut first = warp;
        while first < groups {
            let group = first + WARPS * lane;
            // SAFETY: the row has so many groups; otherwise the caller's.
            let mut rounds = unsafe {
                let has =
                    group < groups && (self.gathered || *self.maxima.add(group as usize) >= least);
                warp::warp_vote_ballot(warp::FULL_MASK, has)
            };
            while rounds != 0 {
                let group = first + WARPS * rounds.trailing_zeros();
                let i = GROUP_LOGITS * group + 4 * lane;
                // SAFETY: the caller's.
                let keys = unsafe { self.keys(i) };
                let mut j = 0;
                while j < 4 {
                    visit(i + j, keys[j as usize]);
                    j += 1;
                }
                rounds &= rounds - 1;
            }
            first += 32 * WARPS;
        }
    }

    /// The largest key of the row.
    ///
    /// # Safety
    /// All threads of the block come here.
    #[inline(always)]
    pub unsafe fn largest(&self) -> u32 {
        let mut own = 0;
        // SAFETY: the caller's.
        unsafe {
            self.each_group(|key| own = key.max(own));
            self.block_max(own)
        }
    }

    /// A key that at least `count` tokens of the row have, because so many groups have one with it; 0 where that does not
    /// tell.
    ///
    /// # Safety
    /// All threads of the block come here, the row's largest logit being `max`.
    #[inline(always)]
    pub unsafe fn reached_by(&self, count: u32, max: f32) -> u32 {
        let reach = |distance: f32| {
            let least = order::key(max - distance);
            let mut own = 0.0f32;
            // SAFETY: the caller's; all threads have the same results.
            unsafe {
                self.each_group(|key| {
                    if key >= least {
                        own += 1.0;
                    }
                });
                self.block_sums(own, 0.0).0 >= count as f32
            }
        };
        let (mut far, mut near) = (32.0f32, 0.0f32);
        if !reach(far) {
            return 0;
        }
        // Down to a hundredth: a few more than `count` do no harm.
        while far - near > 0.01 {
            let middle = 0.5 * (far + near);
            if reach(middle) {
                far = middle;
            } else {
                near = middle;
            }
        }
        order::key(max - far)
    }

    /// Calls `visit(key)` for the largest key of each of this thread's groups of the row.
    ///
    /// # Safety
    /// Candidates are not in use.
    #[inline(always)]
    unsafe fn each_group(&self, mut visit: impl FnMut(u32)) {
        let mut group = thread::thread_idx_x();
        while group < self.len.div_ceil(GROUP_LOGITS) {
            // SAFETY: the row has so many groups.
            visit(unsafe { *self.maxima.add(group as usize) });
            group += THREADS;
        }
    }

    /// How many of the tokens with at least the key `least` that `select(i, key)` names there are, and their weight.
    ///
    /// # Safety
    /// All threads of the block come here, with candidates published where they are in use.
    #[inline(always)]
    pub unsafe fn measure(
        &self,
        least: u32,
        max: f32,
        select: impl Fn(u32, u32) -> bool,
    ) -> (u32, f32) {
        let (mut count, mut mass) = (0.0f32, 0.0f32);
        // SAFETY: the caller's.
        unsafe {
            self.each(least, |i, key| {
                if key >= least && select(i, key) {
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
            self.each(least, |_, key| {
                if key >= least {
                    own += 1.0;
                }
            });
            let mut place = self.block_scan(own).0 as u32;
            self.each(least, |i, key| {
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
    /// key holds, or a lower one that the same tokens have; `least` where it holds for no larger one. It is known to hold
    /// for `known` where that is larger. May gather candidates.
    ///
    /// # Safety
    /// All threads of the block come here.
    #[inline(always)]
    pub unsafe fn cut(
        &mut self,
        (least, known): (u32, u32),
        max: f32,
        select: impl Fn(&Self, u32, u32) -> bool,
        enough: impl Fn(u32, f32) -> bool,
    ) -> u32 {
        let (mut low, mut high) = (least, order::key(max) + 1);
        let (mut low_count, mut high_count) = (u32::MAX, 0);
        // SAFETY: the caller's; all threads have the same results.
        unsafe {
            // Otherwise find how near to the maximum the cut is before bisection: usually very.
            let mut distance = 4.0;
            while low_count == u32::MAX {
                let middle = if known > least {
                    known
                } else {
                    order::key(max - distance)
                };
                if middle <= low {
                    break;
                }
                let (count, mass) = self.measure(middle, max, |i, key| select(self, i, key));
                if middle == known || enough(count, mass) {
                    (low, low_count) = (middle, count);
                } else {
                    (high, high_count) = (middle, count);
                }
                distance *= 2.0;
            }
            // Where one token lies between, it is the last one.
            while high - low > 1 && low_count - high_count > 1 {
                if !self.gathered && low_count <= CAPACITY {
                    self.gather(low, low_count);
                }
                let middle = low + (high - low) / 2;
                let (count, mass) = self.measure(middle, max, |i, key| select(self, i, key));
                if enough(count, mass) {
                    (low, low_count) = (middle, count);
                } else {
                    (high, high_count) = (middle, count);
                }
            }
        }
        low
    }
}

/// The unscaled probability of a token.
#[inline(always)]
pub fn weight(key: u32, max: f32, inverse_temperature: f32) -> f32 {
    exp2_approx((order::value(key) - max) * inverse_temperature * LOG2_E)
}
