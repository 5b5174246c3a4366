//! Copies from global to shared memory that bypass the registers (`cp.async`).

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use cuda_std::gpu_only;
use cuda_std::shared::Shared;

/// Starts a copy of 16 bytes, past the L1 cache. The data is there after [`commit`] and
/// [`wait_group`], for other threads after a barrier too.
///
/// # Safety
/// 16 readable bytes of global memory, 16 bytes of shared memory that nothing accesses meanwhile,
/// both at multiples of 16.
#[gpu_only]
#[inline(always)]
pub unsafe fn copy16<T>(to: Shared<T>, from: *const u32) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "cp.async.cg.shared.global.L2::128B [{0}], [{1}], 16;",
            in(reg32) to.address(),
            in(reg64) from,
            options(nostack, preserves_flags)
        );
    }
}

/// [`copy16`] of the first `bytes` (0 to 16), the rest being zeros.
///
/// # Safety
/// As for [`copy16`], only `bytes` being read.
#[gpu_only]
#[inline(always)]
pub unsafe fn copy16_zero_fill<T>(to: Shared<T>, from: *const u32, bytes: u32) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "cp.async.cg.shared.global.L2::128B [{0}], [{1}], 16, {2};",
            in(reg32) to.address(),
            in(reg64) from,
            in(reg32) bytes,
            options(nostack, preserves_flags)
        );
    }
}

/// Ends a group of the copies that this thread started.
#[gpu_only]
#[inline(always)]
pub fn commit() {
    // SAFETY: it only numbers the copies.
    unsafe { asm!("cp.async.commit_group;", options(nostack, preserves_flags)) };
}

/// Waits until at most the `PENDING` last groups of this thread are under way.
#[gpu_only]
#[inline(always)]
pub fn wait_group<const PENDING: u32>() {
    // SAFETY: it only waits; without `nomem` no memory access moves over it.
    unsafe {
        asm!(
            "cp.async.wait_group {pending};",
            pending = const PENDING,
            options(nostack, preserves_flags)
        );
    }
}
