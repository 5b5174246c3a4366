//! Operations over the 32 threads of a warp.
//!
//! Every function with a `mask` must be reached by all threads that the mask names, with the same
//! mask, and by the calling thread's own bit set: that is the safety condition of each.

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use crate::gpu_only;

/// The mask that names every lane of a warp.
pub const FULL_MASK: u32 = 0xffff_ffff;

/// The thread's lane in its warp, 0 to 31.
#[gpu_only]
#[inline(always)]
pub fn lane_id() -> u32 {
    let lane: u32;
    // SAFETY: reading a special register has no effect, and the value never changes.
    unsafe {
        asm!("mov.u32 {0}, %laneid;", out(reg32) lane, options(pure, nomem, nostack, preserves_flags));
    }
    // SAFETY: a warp has 32 lanes.
    unsafe { core::hint::assert_unchecked(lane < 32) };
    lane
}

/// The lanes that execute this together right now.
#[gpu_only]
#[inline(always)]
pub fn activemask() -> u32 {
    let mask: u32;
    // SAFETY: it reads state; not `pure`, because the value depends on where it is executed.
    unsafe { asm!("activemask.b32 {0};", out(reg32) mask, options(nostack, preserves_flags)) };
    mask
}

/// Waits for the lanes in `mask` and makes their memory accesses visible to each other.
///
/// # Safety
/// See the [module](self).
#[gpu_only]
#[inline(always)]
pub unsafe fn sync_warp(mask: u32) {
    // SAFETY: the caller's.
    unsafe { asm!("bar.warp.sync {0};", in(reg32) mask, options(nostack, preserves_flags)) };
}

/// A value that a shuffle carries: 32 or 64 bits.
pub trait WarpShuffleValue: Copy {
    /// The value as 32-bit halves, low one first; 32-bit values leave the second 0.
    fn to_words(self) -> [u32; 2];
    /// The inverse of [`to_words`](Self::to_words).
    fn from_words(words: [u32; 2]) -> Self;
    /// Whether the second word carries anything.
    const WIDE: bool;
}

macro_rules! shuffle_value {
    ($($ty:ty: $wide:literal, $to:expr, $from:expr;)*) => {$(
        impl WarpShuffleValue for $ty {
            const WIDE: bool = $wide;
            #[inline(always)]
            fn to_words(self) -> [u32; 2] {
                ($to)(self)
            }
            #[inline(always)]
            fn from_words(words: [u32; 2]) -> Self {
                ($from)(words)
            }
        }
    )*};
}

shuffle_value! {
    u32: false, |v| [v, 0], |w: [u32; 2]| w[0];
    i32: false, |v: i32| [v as u32, 0], |w: [u32; 2]| w[0] as i32;
    f32: false, |v: f32| [v.to_bits(), 0], |w: [u32; 2]| f32::from_bits(w[0]);
    u64: true, |v: u64| [v as u32, (v >> 32) as u32], |w: [u32; 2]| w[0] as u64 | (w[1] as u64) << 32;
    i64: true, |v: i64| [v as u32, (v >> 32) as u32], |w: [u32; 2]| (w[0] as u64 | (w[1] as u64) << 32) as i64;
}

macro_rules! shuffle {
    ($(#[$doc:meta])* $name:ident, $mode:literal, $clamp:literal) => {
        $(#[$doc])*
        ///
        /// `width`, a power of two up to 32, splits the warp into groups that shuffle separately.
        /// The second result says whether the source lane was inside the group; where it was not,
        /// the first is the thread's own value.
        ///
        /// # Safety
        /// See the [module](self).
        #[inline(always)]
        pub unsafe fn $name<T: WarpShuffleValue>(
            mask: u32,
            value: T,
            delta: u32,
            width: u32,
        ) -> (T, bool) {
            #[gpu_only]
            #[inline(always)]
            unsafe fn word(mask: u32, value: u32, delta: u32, control: u32) -> (u32, bool) {
                let (result, inside): (u32, u32);
                // SAFETY: the caller's. Not `pure`: the result depends on the other lanes.
                unsafe {
                    asm!(
                        concat!(
                            "{{ .reg .pred p; shfl.sync.", $mode,
                            ".b32 {0}|p, {2}, {3}, {4}, {5}; selp.u32 {1}, 1, 0, p; }}"
                        ),
                        out(reg32) result,
                        out(reg32) inside,
                        in(reg32) value,
                        in(reg32) delta,
                        in(reg32) control,
                        in(reg32) mask,
                        options(nostack, preserves_flags)
                    );
                }
                (result, inside != 0)
            }
            let control = (32 - width) << 8 | $clamp;
            let words = value.to_words();
            // SAFETY: the caller's.
            let (low, inside) = unsafe { word(mask, words[0], delta, control) };
            let high = if T::WIDE {
                // SAFETY: the caller's; the branch is the same for all lanes.
                unsafe { word(mask, words[1], delta, control) }.0
            } else {
                0
            };
            (T::from_words([low, high]), inside)
        }
    };
}

shuffle!(
    /// The value of the lane whose number differs in the bits of `delta`.
    warp_shuffle_xor, "bfly", 31
);
shuffle!(
    /// The value of lane `delta` of the group.
    warp_shuffle_idx, "idx", 31
);
shuffle!(
    /// The value of the lane `delta` below.
    warp_shuffle_up, "up", 0
);
shuffle!(
    /// The value of the lane `delta` above.
    warp_shuffle_down, "down", 31
);

macro_rules! vote {
    ($(#[$doc:meta])* $name:ident, $asm:literal, $result:ty, $convert:expr) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// See the [module](self).
        #[gpu_only]
        #[inline(always)]
        pub unsafe fn $name(mask: u32, predicate: bool) -> $result {
            let result: u32;
            // SAFETY: the caller's. Not `pure`: the result depends on the other lanes.
            unsafe {
                asm!(
                    $asm,
                    result = out(reg32) result,
                    predicate = in(reg32) predicate as u32,
                    mask = in(reg32) mask,
                    options(nostack, preserves_flags)
                );
            }
            ($convert)(result)
        }
    };
}

vote!(
    /// Whether the predicate holds in every lane of `mask`.
    warp_vote_all,
    "{{ .reg .pred p, q; setp.ne.u32 p, {predicate}, 0; vote.sync.all.pred q, p, {mask}; selp.u32 {result}, 1, 0, q; }}",
    bool,
    |result| result != 0
);
vote!(
    /// Whether the predicate holds in some lane of `mask`.
    warp_vote_any,
    "{{ .reg .pred p, q; setp.ne.u32 p, {predicate}, 0; vote.sync.any.pred q, p, {mask}; selp.u32 {result}, 1, 0, q; }}",
    bool,
    |result| result != 0
);
vote!(
    /// The lanes of `mask` in which the predicate holds.
    warp_vote_ballot,
    "{{ .reg .pred p; setp.ne.u32 p, {predicate}, 0; vote.sync.ballot.b32 {result}, p, {mask}; }}",
    u32,
    |result| result
);

macro_rules! reduce {
    ($(#[$doc:meta])* $name:ident, $op:literal, $ty:ty) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// See the [module](self).
        #[gpu_only]
        #[inline(always)]
        pub unsafe fn $name(mask: u32, value: $ty) -> $ty {
            let result: $ty;
            // SAFETY: the caller's. Not `pure`: the result depends on the other lanes.
            unsafe {
                asm!(
                    concat!("redux.sync.", $op, " {0}, {1}, {2};"),
                    out(reg32) result,
                    in(reg32) value,
                    in(reg32) mask,
                    options(nostack, preserves_flags)
                );
            }
            result
        }
    };
}

reduce!(
    /// The wrapping sum over the lanes of `mask`.
    warp_reduce_add_i32, "add.s32", i32
);
reduce!(
    /// The largest value among the lanes of `mask`.
    warp_reduce_max_i32, "max.s32", i32
);
reduce!(
    /// The largest value among the lanes of `mask`.
    warp_reduce_max_u32, "max.u32", u32
);
reduce!(
    /// The smallest value among the lanes of `mask`.
    warp_reduce_min_u32, "min.u32", u32
);
