//! Reductions over the lanes of a warp and the warps of a block.
//!
//! Butterflies: every lane ends with the same bits, and the order of additions is fixed, so that a
//! kernel's result does not depend on scheduling.

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use cuda_std::shared::Shared;
use cuda_std::{gpu_only, thread, warp};

/// The value of the lane whose number differs in the bits of `lanes`: `warp_shuffle_xor` of the whole
/// warp, without the predicate that nobody needs here.
///
/// # Safety
/// All 32 lanes of the warp come here together.
#[gpu_only]
#[inline(always)]
pub unsafe fn shuffle_xor(value: f32, lanes: u32) -> f32 {
    let result: f32;
    // SAFETY: the caller's. Not `pure`: the result depends on the other lanes.
    unsafe {
        asm!(
            "shfl.sync.bfly.b32 {0}, {1}, {2}, 31, 0xffffffff;",
            out(reg32) result,
            in(reg32) value,
            in(reg32) lanes,
            options(nostack, preserves_flags)
        );
    }
    result
}

/// The sum over each group of `LANES` neighbours (a power of two up to 32).
///
/// # Safety
/// All 32 lanes of the warp come here together.
#[inline(always)]
pub unsafe fn lanes_sum<const LANES: u32>(mut value: f32) -> f32 {
    let mut distance = LANES / 2;
    while distance > 0 {
        // SAFETY: the caller's.
        value += unsafe { shuffle_xor(value, distance) };
        distance /= 2;
    }
    value
}

/// The largest value of each group of `LANES` neighbours (a power of two up to 32). A NaN loses
/// against any number.
///
/// # Safety
/// All 32 lanes of the warp come here together.
#[inline(always)]
pub unsafe fn lanes_max<const LANES: u32>(mut value: f32) -> f32 {
    let mut distance = LANES / 2;
    while distance > 0 {
        // SAFETY: the caller's.
        value = value.max(unsafe { shuffle_xor(value, distance) });
        distance /= 2;
    }
    value
}

/// The sums of `2 * N` values (`N` a power of two up to 16) over the warp: lane `l` gets that of value
/// `values[i / 2][i % 2]`, `i = l / (16 / N)`. Each step halves the number of values that a lane has,
/// so that this takes about as many shuffles as there are values, not five for each.
///
/// # Safety
/// All 32 lanes of the warp come here together; `lane` is the lane's number.
#[inline(always)]
pub unsafe fn lanes_sums<const N: usize>(mut values: [[f32; 2]; N], lane: u32) -> f32 {
    let mut distance = 16;
    let mut count = N / 2;
    while count > 0 {
        let mut i = 0;
        while i < count {
            // SAFETY: the caller's.
            unsafe {
                values[i] = [
                    halve([values[i][0], values[i + count][0]], lane, distance),
                    halve([values[i][1], values[i + count][1]], lane, distance),
                ];
            }
            i += 1;
        }
        count /= 2;
        distance /= 2;
    }
    // SAFETY: the caller's.
    let mut sum = unsafe { halve(values[0], lane, distance) };
    distance /= 2;
    while distance > 0 {
        // SAFETY: the caller's.
        sum += unsafe { shuffle_xor(sum, distance) };
        distance /= 2;
    }
    sum
}

/// Adds the value of the lane `distance` away: of the first value for the lower lane of the two, of the
/// second for the upper one.
///
/// # Safety
/// All 32 lanes of the warp come here together.
#[inline(always)]
unsafe fn halve([first, second]: [f32; 2], lane: u32, distance: u32) -> f32 {
    let upper = lane & distance != 0;
    let (keep, give) = if upper {
        (second, first)
    } else {
        (first, second)
    };
    // SAFETY: the caller's.
    keep + unsafe { shuffle_xor(give, distance) }
}

/// The sum over the warp.
///
/// # Safety
/// All 32 lanes of the warp come here together.
#[inline(always)]
pub unsafe fn warp_sum(value: f32) -> f32 {
    // SAFETY: the caller's.
    unsafe { lanes_sum::<32>(value) }
}

/// The largest value of the warp.
///
/// # Safety
/// All 32 lanes of the warp come here together.
#[inline(always)]
pub unsafe fn warp_max(value: f32) -> f32 {
    // SAFETY: the caller's.
    unsafe { lanes_max::<32>(value) }
}

/// Sums up to and with each lane.
///
/// # Safety
/// All 32 lanes come here together.
#[inline(always)]
pub unsafe fn warp_scan(mut value: f32) -> f32 {
    let mut distance = 1;
    while distance < 32 {
        // SAFETY: the caller's.
        let (below, inside) =
            unsafe { warp::warp_shuffle_up(warp::FULL_MASK, value, distance, 32) };
        if inside {
            value += below;
        }
        distance *= 2;
    }
    value
}

macro_rules! block_reduce {
    ($(#[$doc:meta])* $name:ident, $warp_reduce:ident, $neutral:expr) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// All threads of the block come here together; the block has one dimension, a multiple of
        /// 32. `scratch` is 32 f32 of shared memory that nothing else uses from the last barrier
        /// before this call to the first barrier after it.
        #[inline(always)]
        pub unsafe fn $name(value: f32, scratch: Shared<f32>) -> f32 {
            // SAFETY: whole warps are here; the scratch is this function's between the barriers.
            unsafe {
                let value = $warp_reduce(value);
                let warps = thread::block_dim_x() / 32;
                if warps == 1 {
                    return value;
                }
                let lane = thread::thread_idx_x() % 32;
                if lane == 0 {
                    scratch.add(thread::thread_idx_x() / 32).store(value);
                }
                // Publishes each warp's value to all warps.
                thread::sync_threads();
                let value = if lane < warps { scratch.add(lane).load() } else { $neutral };
                $warp_reduce(value)
            }
        }
    };
}

block_reduce!(
    /// The sum over the block.
    block_sum, warp_sum, 0.0
);
block_reduce!(
    /// The largest value of the block.
    block_max, warp_max, f32::NEG_INFINITY
);
