//! Atomic operations on global memory and the fences that order them, under the names of Rust-CUDA's
//! `atomic::intrinsics`. All are device-scoped: one GPU's threads see them.
//!
//! The safety condition of each: the pointer is valid, aligned, in global memory, and accessed by
//! other threads only atomically meanwhile.

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use crate::gpu_only;

macro_rules! fetch {
    ($(#[$doc:meta])* $name:ident, $asm:literal, $ty:ty) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// See the [module](self).
        #[gpu_only]
        #[inline(always)]
        pub unsafe fn $name(ptr: *mut $ty, val: $ty) -> $ty {
            let previous: $ty;
            // SAFETY: the caller's.
            unsafe {
                asm!(
                    concat!($asm, " {0}, [{1}], {2};"),
                    out(reg32) previous,
                    in(reg64) ptr,
                    in(reg32) val,
                    options(nostack, preserves_flags)
                );
            }
            previous
        }
    };
}

fetch!(
    /// Adds without ordering other accesses; gives the previous value.
    atomic_fetch_add_relaxed_u32_device, "atom.relaxed.gpu.global.add.u32", u32
);
fetch!(
    /// Adds, publishes what this thread wrote before and sees what others published; gives the
    /// previous value.
    atomic_fetch_add_acqrel_u32_device, "atom.acq_rel.gpu.global.add.u32", u32
);
fetch!(
    /// Adds without ordering other accesses; gives the previous value.
    atomic_fetch_add_relaxed_f32_device, "atom.relaxed.gpu.global.add.f32", f32
);
fetch!(
    /// Keeps the larger value, without ordering other accesses; gives the previous one.
    atomic_fetch_max_relaxed_u32_device, "atom.relaxed.gpu.global.max.u32", u32
);

/// Keeps the larger value, without ordering other accesses; gives the previous one.
///
/// # Safety
/// See the [module](self).
#[gpu_only]
#[inline(always)]
pub unsafe fn atomic_fetch_max_relaxed_u64_device(ptr: *mut u64, val: u64) -> u64 {
    let previous: u64;
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "atom.relaxed.gpu.global.max.u64 {0}, [{1}], {2};",
            out(reg64) previous,
            in(reg64) ptr,
            in(reg64) val,
            options(nostack, preserves_flags)
        );
    }
    previous
}

/// Reads and sees what the writer published before it.
///
/// # Safety
/// See the [module](self).
#[gpu_only]
#[inline(always)]
pub unsafe fn atomic_load_acquire_32_device(ptr: *const u32) -> u32 {
    let value: u32;
    // SAFETY: the caller's. Not `pure`: another thread may write between two reads.
    unsafe {
        asm!(
            "ld.acquire.gpu.global.u32 {0}, [{1}];",
            out(reg32) value,
            in(reg64) ptr,
            options(nostack, preserves_flags)
        );
    }
    value
}

/// Writes and publishes what this thread wrote before.
///
/// # Safety
/// See the [module](self).
#[gpu_only]
#[inline(always)]
pub unsafe fn atomic_store_release_32_device(ptr: *mut u32, val: u32) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "st.release.gpu.global.u32 [{0}], {1};",
            in(reg64) ptr,
            in(reg32) val,
            options(nostack, preserves_flags)
        );
    }
}

/// A fence that orders this thread's accesses for the device, acquire and release.
///
/// # Safety
/// None beyond Rust-CUDA's signature.
#[gpu_only]
#[inline(always)]
pub unsafe fn fence_acqrel_device() {
    // SAFETY: a fence.
    unsafe { asm!("fence.acq_rel.gpu;", options(nostack, preserves_flags)) };
}
