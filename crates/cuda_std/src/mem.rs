//! How much shared memory the launch gave.

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use crate::gpu_only;

macro_rules! size_register {
    ($(#[$doc:meta])* $name:ident, $register:literal) => {
        $(#[$doc])*
        #[gpu_only]
        #[inline(always)]
        pub fn $name() -> u32 {
            let size: u32;
            // SAFETY: reading a special register has no effect, and the value never changes.
            unsafe {
                asm!(
                    concat!("mov.u32 {0}, %", $register, ";"),
                    out(reg32) size,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            size
        }
    };
}

size_register!(
    /// Bytes of dynamic shared memory of a block.
    dynamic_smem_size, "dynamic_smem_size"
);
size_register!(
    /// Bytes of shared memory of a block, static and dynamic, rounded up to the hardware's unit.
    total_smem_size, "total_smem_size"
);
