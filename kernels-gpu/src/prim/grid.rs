//! Programmatic dependent launch: a kernel may start while the one before it in the stream still
//! runs. Every kernel calls [`launch_dependents`] first and [`wait`] before it touches anything that
//! an earlier kernel of the step writes or reads; what none writes (weights, older tokens in the cache)
//! may be loaded in between. A step begins with copies, which nothing overlaps.
//! *Every* block must wait, also one that has nothing to do: the next kernel's wait covers only
//! this kernel, and so relies on this one having waited for its own predecessors.
//!
//! Outside such a launch both do nothing; below sm_90 they are no instructions.

#[cfg(all(target_arch = "nvptx64", target_feature = "sm_90"))]
use core::arch::asm;

/// Lets the next kernel of the stream start as soon as every block has called this or ended.
#[inline(always)]
pub fn launch_dependents() {
    #[cfg(all(target_arch = "nvptx64", target_feature = "sm_90"))]
    // SAFETY: it only affects scheduling.
    unsafe {
        asm!(
            "griddepcontrol.launch_dependents;",
            options(nostack, preserves_flags)
        );
    }
}

/// Waits until the kernels before have ended and their writes are visible.
#[inline(always)]
pub fn wait() {
    #[cfg(all(target_arch = "nvptx64", target_feature = "sm_90"))]
    // SAFETY: it only waits; without `nomem` no memory access moves over it.
    unsafe {
        asm!("griddepcontrol.wait;", options(nostack, preserves_flags));
    }
}
