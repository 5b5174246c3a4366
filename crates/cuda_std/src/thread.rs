//! Where a thread is in its block and grid, and the block's barriers.

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use crate::gpu_only;

macro_rules! special_register {
    ($(#[$doc:meta])* $name:ident, $register:literal, $range:expr) => {
        $(#[$doc])*
        #[gpu_only]
        #[inline(always)]
        pub fn $name() -> u32 {
            let value: u32;
            // SAFETY: reading a special register has no effect, and the value never changes.
            unsafe {
                asm!(
                    concat!("mov.u32 {0}, %", $register, ";"),
                    out(reg32) value,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            // SAFETY: the hardware's limits on launches; knowing them lets LLVM fold index checks.
            unsafe { core::hint::assert_unchecked($range.contains(&value)) };
            value
        }
    };
}

special_register!(
    /// The thread's index in its block.
    thread_idx_x, "tid.x", (0..1024)
);
special_register!(
    /// The thread's index in its block, second dimension.
    thread_idx_y, "tid.y", (0..1024)
);
special_register!(
    /// The thread's index in its block, third dimension.
    thread_idx_z, "tid.z", (0..64)
);
special_register!(
    /// The block's index in the grid.
    block_idx_x, "ctaid.x", (0..0x7fff_ffff)
);
special_register!(
    /// The block's index in the grid, second dimension.
    block_idx_y, "ctaid.y", (0..65535)
);
special_register!(
    /// The block's index in the grid, third dimension.
    block_idx_z, "ctaid.z", (0..65535)
);
special_register!(
    /// Threads in a block.
    block_dim_x, "ntid.x", (1..=1024)
);
special_register!(
    /// Threads in a block, second dimension.
    block_dim_y, "ntid.y", (1..=1024)
);
special_register!(
    /// Threads in a block, third dimension.
    block_dim_z, "ntid.z", (1..=64)
);
special_register!(
    /// Blocks in the grid.
    grid_dim_x, "nctaid.x", (1..=0x7fff_ffff)
);
special_register!(
    /// Blocks in the grid, second dimension.
    grid_dim_y, "nctaid.y", (1..=65535)
);
special_register!(
    /// Blocks in the grid, third dimension.
    grid_dim_z, "nctaid.z", (1..=65535)
);

/// Threads in a warp: 32 on every GPU so far.
#[inline(always)]
pub fn warp_size() -> u32 {
    32
}

/// The thread's index in a one-dimensional grid.
#[inline(always)]
pub fn index_1d() -> u32 {
    thread_idx_x() + block_idx_x() * block_dim_x()
}

/// Waits for all threads of the block, and makes their memory accesses visible to each other.
///
/// All threads of the block that have not exited must come here.
#[gpu_only]
#[inline(always)]
pub fn sync_threads() {
    // SAFETY: a barrier; without `nomem`, LLVM moves no memory access over it.
    unsafe { asm!("bar.sync 0;", options(nostack, preserves_flags)) };
}

macro_rules! sync_threads_reduce {
    ($(#[$doc:meta])* $name:ident, $asm:literal) => {
        $(#[$doc])*
        #[gpu_only]
        #[inline(always)]
        pub fn $name(predicate: u32) -> u32 {
            let result: u32;
            // SAFETY: a barrier; without `nomem`, LLVM moves no memory access over it.
            unsafe {
                asm!(
                    $asm,
                    result = out(reg32) result,
                    predicate = in(reg32) predicate,
                    options(nostack, preserves_flags)
                );
            }
            result
        }
    };
}

sync_threads_reduce!(
    /// [`sync_threads`] that gives the number of threads whose predicate is not zero.
    sync_threads_count,
    "{{ .reg .pred p; setp.ne.u32 p, {predicate}, 0; bar.red.popc.u32 {result}, 0, p; }}"
);
sync_threads_reduce!(
    /// [`sync_threads`] that gives 1 when every thread's predicate is not zero, else 0.
    sync_threads_and,
    "{{ .reg .pred p, q; setp.ne.u32 p, {predicate}, 0; bar.red.and.pred q, 0, p; selp.u32 {result}, 1, 0, q; }}"
);
sync_threads_reduce!(
    /// [`sync_threads`] that gives 1 when some thread's predicate is not zero, else 0.
    sync_threads_or,
    "{{ .reg .pred p, q; setp.ne.u32 p, {predicate}, 0; bar.red.or.pred q, 0, p; selp.u32 {result}, 1, 0, q; }}"
);

/// A memory fence for the threads of the block; it waits for nobody.
#[gpu_only]
#[inline(always)]
pub fn block_fence() {
    // SAFETY: a fence.
    unsafe { asm!("membar.cta;", options(nostack, preserves_flags)) };
}

/// A memory fence for all threads of the device; it waits for nobody.
#[gpu_only]
#[inline(always)]
pub fn device_fence() {
    // SAFETY: a fence.
    unsafe { asm!("membar.gl;", options(nostack, preserves_flags)) };
}

/// A memory fence for the device, its host and its peers; it waits for nobody.
#[gpu_only]
#[inline(always)]
pub fn system_fence() {
    // SAFETY: a fence.
    unsafe { asm!("membar.sys;", options(nostack, preserves_flags)) };
}

/// Sleeps for about `nanos` nanoseconds, for polling loops.
#[gpu_only]
#[inline(always)]
pub fn nanosleep(nanos: u32) {
    // SAFETY: it only delays.
    unsafe { asm!("nanosleep.u32 {0};", in(reg32) nanos, options(nostack, preserves_flags)) };
}
