//! The rest: clocks, debugging.

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use crate::gpu_only;

/// Stops in a debugger.
#[gpu_only]
#[inline(always)]
pub fn breakpoint() {
    // SAFETY: without a debugger it ends the kernel with an error.
    unsafe { asm!("brkpt;", options(nostack, preserves_flags)) };
}

/// Ends the kernel with an error that the host sees.
#[gpu_only]
#[inline(always)]
pub fn trap() -> ! {
    // SAFETY: it ends the kernel.
    unsafe { asm!("trap;", options(nostack, preserves_flags)) };
    #[allow(clippy::empty_loop)]
    loop {}
}

/// The multiprocessor's cycle counter.
#[gpu_only]
#[inline(always)]
pub fn clock() -> u64 {
    let cycles: u64;
    // SAFETY: it reads a counter; not `pure`, because the value changes.
    unsafe {
        asm!("mov.u64 {0}, %clock64;", out(reg64) cycles, options(nomem, nostack, preserves_flags))
    };
    cycles
}
