//! Reductions over the block of the sampling kernel.

use cuda_std::prelude::*;
use cuda_std::shared::SharedValue;

use super::sample_tokens::{Tokens, WARPS};
use crate::prim::reduce::{warp_scan, warp_sum};

impl Tokens {
    /// The sum over the block.
    ///
    /// # Safety
    /// All threads of the block come here.
    #[inline(always)]
    pub unsafe fn block_sum(&self, value: f32) -> f32 {
        // SAFETY: the caller's.
        unsafe { self.block_combined(value, |value| warp_sum(value)) }
    }

    /// The sum over the block.
    ///
    /// # Safety
    /// All threads of the block come here.
    #[inline(always)]
    pub unsafe fn block_count(&self, value: u32) -> u32 {
        // SAFETY: the caller's.
        let add = |value| unsafe { warp::warp_reduce_add_i32(warp::FULL_MASK, value as i32) };
        // SAFETY: the caller's.
        unsafe { self.block_combined(value, |value| add(value) as u32) }
    }

    /// The largest value of the block.
    ///
    /// # Safety
    /// All threads of the block come here.
    #[inline(always)]
    pub unsafe fn block_max(&self, value: u32) -> u32 {
        // SAFETY: the caller's.
        let max = |value| unsafe { warp::warp_reduce_max_u32(warp::FULL_MASK, value) };
        // SAFETY: the caller's.
        unsafe { self.block_combined(value, max) }
    }

    /// The values of the block in one: those of each warp, and then the warps', by `combine`.
    ///
    /// # Safety
    /// All threads of the block come here.
    #[inline(always)]
    unsafe fn block_combined<T: SharedValue>(&self, value: T, combine: impl Fn(T) -> T) -> T {
        let (warp, lane) = (thread::thread_idx_x() / 32, thread::thread_idx_x() % 32);
        let warps = self.scratch.cast::<T>();
        let value = combine(value);
        // SAFETY: the barriers order the uses of the scratch memory.
        unsafe {
            // All warps are past its previous use.
            thread::sync_threads();
            if lane == 0 {
                warps.add(warp).store(value);
            }
            // Publishes these.
            thread::sync_threads();
            combine(warps.add(lane).load())
        }
    }

    /// The sum of the values of the threads before this one, and the block's.
    ///
    /// # Safety
    /// All threads of the block come here.
    #[inline(always)]
    pub unsafe fn block_scan(&self, value: f32) -> (f32, f32) {
        let (warp, lane) = (thread::thread_idx_x() / 32, thread::thread_idx_x() % 32);
        // SAFETY: the barriers order the uses of the scratch memory.
        unsafe {
            let inclusive = warp_scan(value);
            // All warps are past its previous use.
            thread::sync_threads();
            if lane == 31 {
                self.scratch.add(warp).store(inclusive);
            }
            // Publishes these.
            thread::sync_threads();
            let warps = warp_scan(self.scratch.add(lane).load());
            // All warps have read; lane 0 of each warp puts the sum up to its warp there.
            thread::sync_threads();
            if warp == 0 {
                self.scratch.add(lane).store(warps);
            }
            // Publishes the sums up to each warp.
            thread::sync_threads();
            let before = if warp == 0 {
                0.0
            } else {
                self.scratch.add(warp - 1).load()
            };
            // What the lane below has: not `inclusive - value`, whose rounding could leave gaps.
            let below = warp::warp_shuffle_up(warp::FULL_MASK, inclusive, 1, 32).0;
            let total = self.scratch.add(WARPS - 1).load();
            (before + if lane == 0 { 0.0 } else { below }, total)
        }
    }
}
