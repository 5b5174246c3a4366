//! The tokens of a row that a block of the sampling kernel chooses from: counted, weighed, and gathered in shared memory.

use core::f32::consts::LOG2_E;

use cuda_std::prelude::*;
use cuda_std::shared::Shared;
use cuda_std::static_shared;

use super::order::{self, token_key};
use crate::abi::{GROUP_LOGITS, SAMPLE_THREADS as THREADS};
use crate::prim::half::Element;
use crate::prim::math::exp2_approx;

pub(super) const WARPS: u32 = THREADS / 32;
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
    /// A result of each warp.
    pub(super) scratch: Shared<f32>,
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
            scratch: static_shared![f32; WARPS as usize],
        }
    }

    /// Keys of the row's tokens `i` to `i + 3`; 0 behind the end.
    ///
    /// # Safety
    /// The row is in use.
    #[inline(always)]
    unsafe fn keys_of_row(&self, i: u32) -> [u32; 4] {
        let mut keys = [0; 4];
        // SAFETY: indices below `len` are in the row.
        unsafe {
            if self.aligned && i + 4 <= self.len {
                return f32::load4(self.row.add(i as usize)).map(token_key);
            }
            let mut j = 0;
            while j < 4 {
                if i + j < self.len {
                    keys[j as usize] = token_key(*self.row.add((i + j) as usize));
                }
                j += 1;
            }
        }
        keys
    }

    /// Key and number of candidate `i`.
    ///
    /// # Safety
    /// `i` is below `len`, candidates are in use and published.
    #[inline(always)]
    pub unsafe fn candidate(&self, i: u32) -> [u32; 2] {
        // SAFETY: the caller's.
        unsafe { [self.keys.add(i).load(), self.numbers.add(i).load()] }
    }

    /// How many there are.
    #[inline(always)]
    pub fn count(&self) -> u32 {
        self.len
    }

    /// The number in the vocabulary of token `i`.
    ///
    /// # Safety
    /// As for [`each`](Self::each), `i` being below `len`.
    #[inline(always)]
    pub unsafe fn number(&self, i: u32) -> u32 {
        if self.gathered {
            // SAFETY: the caller's.
            unsafe { self.numbers.add(i).load() }
        } else {
            i
        }
    }

    /// Calls `visit(i, key)` for each of this thread's tokens with at least the key `least`, and for others beside them;
    /// the key is 0 behind the end.
    ///
    /// # Safety
    /// After the barrier that publishes the candidates, where they are in use; all threads of the warp come here.
    #[inline(always)]
    pub unsafe fn each(&self, least: u32, mut visit: impl FnMut(u32, u32)) {
        if !self.gathered {
            // SAFETY: the caller's.
            return unsafe { self.each_of_row(least, visit) };
        }
        let mut i = 4 * thread::thread_idx_x();
        while i < self.len {
            let mut j = i;
            while j < i + 4 {
                let key = if j < self.len {
                    // SAFETY: the caller's; below `len`.
                    unsafe { self.keys.add(j).load() }
                } else {
                    0
                };
                visit(j, key);
                j += 1;
            }
            i += 4 * THREADS;
        }
    }

    /// The same of the row, a warp taking groups that have such a token.
    ///
    /// # Safety
    /// All threads of the warp come here; the row is in use.
    #[inline(always)]
    unsafe fn each_of_row(&self, least: u32, mut visit: impl FnMut(u32, u32)) {
        let (warp, lane) = (thread::thread_idx_x() / 32, thread::thread_idx_x() % 32);
        let groups = self.len.div_ceil(GROUP_LOGITS);
        let mut first = warp;
        while first < groups {
            let group = first + WARPS * lane;
            // SAFETY: the row has so many groups; otherwise the caller's.
            let mut rounds = unsafe {
                let has = group < groups && *self.maxima.add(group as usize) >= least;
                warp::warp_vote_ballot(warp::FULL_MASK, has)
            };
            while rounds != 0 {
                let group = first + WARPS * rounds.trailing_zeros();
                let i = GROUP_LOGITS * group + 4 * lane;
                // SAFETY: the row is in use.
                let keys = unsafe { self.keys_of_row(i) };
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
        let groups_within = |distance: f32| {
            let least = order::key(max - distance);
            let mut own = 0;
            // SAFETY: the caller's; all threads have the same results.
            unsafe {
                self.each_group(|key| own += u32::from(key >= least));
                self.block_count(own)
            }
        };
        let (mut far, mut near) = (32.0f32, 0.0f32);
        let mut reached = groups_within(far);
        if reached < count {
            return 0;
        }
        // A few groups more than `count` do no harm; where many are equal it ends too.
        let mut step = 0;
        while reached > count + count / 2 + 8 && step < 24 {
            let middle = 0.5 * (far + near);
            let within = groups_within(middle);
            if within >= count {
                (far, reached) = (middle, within);
            } else {
                near = middle;
            }
            step += 1;
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
        let (mut count, mut mass) = (0, 0.0f32);
        // SAFETY: the caller's.
        unsafe {
            self.each(least, |i, key| {
                if key >= least && select(i, key) {
                    count += 1;
                    mass += weight(key, max, 1.0);
                }
            });
            (self.block_count(count), self.block_sum(mass))
        }
    }

    /// Goes on with the tokens whose keys are at least `least`, if these are no more than `most` (up to [`CAPACITY`]):
    /// whether they are.
    ///
    /// # Safety
    /// All threads of the block come here; the row is in use.
    #[inline(always)]
    pub unsafe fn gather(&mut self, least: u32, most: u32) -> bool {
        let mut own = 0;
        // SAFETY: the places are below `most`, each taken by one thread.
        unsafe {
            self.each_of_row(least, |_, key| own += u32::from(key >= least));
            // Counts below 2^24 are exact.
            let (before, all) = self.block_scan(own as f32);
            if all > most as f32 {
                return false;
            }
            let mut place = before as u32;
            self.each_of_row(least, |i, key| {
                if key >= least {
                    self.keys.add(place).store(key);
                    self.numbers.add(place).store(i);
                    place += 1;
                }
            });
            self.gathered = true;
            self.len = all as u32;
            // Publishes the candidates.
            thread::sync_threads();
            true
        }
    }

    /// The largest key for which `enough(count, weight)` of the selected tokens with at least that
    /// key holds, or a lower one that the same tokens have; `least` where it holds for no larger one. May gather
    /// candidates.
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
        let (mut low_count, mut high_count) = (u32::MAX, 0);
        // SAFETY: the caller's; all threads have the same results.
        unsafe {
            // The cut is usually near the maximum: find how near before bisection.
            let mut distance = 4.0;
            while low_count == u32::MAX {
                let middle = order::key(max - distance);
                if middle <= low {
                    break;
                }
                let (count, mass) = self.measure(middle, max, |i, key| select(self, i, key));
                if enough(count, mass) {
                    (low, low_count) = (middle, count);
                } else {
                    (high, high_count) = (middle, count);
                }
                distance *= 2.0;
            }
            // Where one token lies between, it is the last one.
            while high - low > 1 && low_count - high_count > 1 {
                if !self.gathered && low_count <= CAPACITY {
                    self.gather(low, CAPACITY);
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
