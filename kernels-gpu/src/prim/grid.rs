//! Programmatic dependent launch: a kernel may start while the one before it in the stream still
//! runs. Every kernel calls [`wait`] before it touches anything that an earlier kernel of the step
//! writes or reads; what none writes (weights, older tokens in the cache) may be loaded before. A step
//! begins with copies, which nothing overlaps.
//!
//! *Every* block must wait, also one that has nothing to do: the next kernel's wait covers only
//! this kernel, and so relies on this one having waited for its own predecessors.
//!
//! Outside such a launch it does nothing; below sm_90 it is no instruction.

#[cfg(all(target_arch = "nvptx64", target_feature = "sm_90"))]
use core::arch::asm;

/// Lets the next kernel of the stream start as soon as every block has come here or ended. To call it before
/// [`wait`] is for kernels whose launches leave room for the next one's blocks, one a multiprocessor: where
/// the blocks of two kernels ahead find room too, they take it from the nearer one.
#[inline(always)]
pub fn launch_dependents() {
    #[cfg(all(target_arch = "nvptx64", target_feature = "sm_90"))]
    // SAFETY: it only affects scheduling; without `nomem` no memory access moves over it.
    unsafe {
        asm!(
            "griddepcontrol.launch_dependents;",
            options(nostack, preserves_flags)
        );
    }
}

/// Waits until the kernels before have ended and their writes are visible; then lets the next kernel
/// start, if it has not been let.
#[inline(always)]
pub fn wait() {
    #[cfg(all(target_arch = "nvptx64", target_feature = "sm_90"))]
    // SAFETY: it only waits; without `nomem` no memory access moves over it.
    unsafe {
        asm!("griddepcontrol.wait;", options(nostack, preserves_flags));
    }
    launch_dependents();
}
