//! Wide accesses to global memory, and a fetch into the L2 cache.

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use cuda_std::gpu_only;

macro_rules! vector_load {
    ($(#[$doc:meta])* $name:ident, $size:literal, $asm:literal, $list:literal, [$($word:ident),*]) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The words are readable global memory, and `ptr` is aligned to all of them.
        #[gpu_only]
        #[inline(always)]
        pub unsafe fn $name(ptr: *const u32) -> [u32; $size] {
            $(let $word: u32;)*
            // SAFETY: the caller's.
            unsafe {
                asm!(
                    concat!($asm, " ", $list, ", [{ptr}];"),
                    $($word = out(reg32) $word,)*
                    ptr = in(reg64) ptr,
                    options(pure, readonly, nostack, preserves_flags)
                );
            }
            [$($word),*]
        }
    };
}

vector_load!(
    /// 8 bytes.
    global_v2, 2, "ld.global.v2.u32", "{{{a}, {b}}}", [a, b]
);
vector_load!(
    /// 16 bytes.
    global_v4, 4, "ld.global.v4.u32", "{{{a}, {b}, {c}, {d}}}", [a, b, c, d]
);

/// 4 bytes as they are in the L2 cache: the multiprocessor's own cache may have older ones.
///
/// # Safety
/// Readable global memory at a multiple of 4.
#[gpu_only]
#[inline(always)]
pub unsafe fn global_from_l2(ptr: *const u32) -> u32 {
    let word: u32;
    // SAFETY: the caller's. Not `pure`: another launch may have written there since it was read last.
    unsafe {
        asm!(
            "ld.relaxed.gpu.global.u32 {0}, [{1}];",
            out(reg32) word,
            in(reg64) ptr,
            options(readonly, nostack, preserves_flags)
        );
    }
    word
}

/// Fetches the line of an address in global memory into the L2 cache.
#[gpu_only]
#[inline(always)]
pub fn prefetch<T>(ptr: *const T) {
    // SAFETY: it reads nothing into registers and does not fault.
    unsafe {
        asm!(
            "prefetch.global.L2 [{0}];",
            in(reg64) ptr,
            options(nostack, preserves_flags)
        );
    }
}

/// Writes 8 bytes.
///
/// # Safety
/// Writable global memory at a multiple of 8.
#[gpu_only]
#[inline(always)]
pub unsafe fn store_global_v2(ptr: *mut u32, [a, b]: [u32; 2]) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "st.global.v2.u32 [{ptr}], {{{a}, {b}}};",
            ptr = in(reg64) ptr,
            a = in(reg32) a,
            b = in(reg32) b,
            options(nostack, preserves_flags)
        );
    }
}

/// Writes 16 bytes.
///
/// # Safety
/// Writable global memory at a multiple of 16.
#[gpu_only]
#[inline(always)]
pub unsafe fn store_global_v4(ptr: *mut u32, [a, b, c, d]: [u32; 4]) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "st.global.v4.u32 [{ptr}], {{{a}, {b}, {c}, {d}}};",
            ptr = in(reg64) ptr,
            a = in(reg32) a,
            b = in(reg32) b,
            c = in(reg32) c,
            d = in(reg32) d,
            options(nostack, preserves_flags)
        );
    }
}
