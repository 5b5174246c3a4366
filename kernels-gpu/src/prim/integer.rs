//! Integer instructions.

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use cuda_std::gpu_only;

macro_rules! ternary {
    ($(#[$doc:meta])* $name:ident($a:ty, $b:ty, $c:ty) -> $result:ty, $asm:literal) => {
        $(#[$doc])*
        #[gpu_only]
        #[inline(always)]
        pub fn $name(a: $a, b: $b, c: $c) -> $result {
            let result: $result;
            // SAFETY: arithmetic on registers.
            unsafe {
                asm!(
                    concat!($asm, " {0}, {1}, {2}, {3};"),
                    out(reg32) result,
                    in(reg32) a,
                    in(reg32) b,
                    in(reg32) c,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            result
        }
    };
}

ternary!(
    /// `c` plus the dot product of four signed bytes with four signed bytes.
    dp4a(u32, u32, i32) -> i32, "dp4a.s32.s32"
);
ternary!(
    /// `c` plus the dot product of four unsigned bytes (`a`) with four signed bytes (`b`).
    dp4a_us(u32, u32, i32) -> i32, "dp4a.u32.s32"
);
ternary!(
    /// The four bytes that the nibbles of `c` choose among the bytes of `a` (0 to 3) and `b` (4 to
    /// 7): a table look-up. Bit 3 of a nibble repeats the byte's sign instead.
    byte_permute(u32, u32, u32) -> u32, "prmt.b32"
);
ternary!(
    /// The low word of `(b:a) >> c`, `c` taken modulo 32: 32 bits at any bit offset of 64.
    funnel_shift_right(u32, u32, u32) -> u32, "shf.r.wrap.b32"
);

macro_rules! divide {
    ($(#[$doc:meta])* $name:ident, $asm:literal) => {
        $(#[$doc])*
        #[gpu_only]
        #[inline(always)]
        pub fn $name(a: u32, b: u32) -> u32 {
            let result: u32;
            // SAFETY: arithmetic on registers.
            unsafe {
                asm!(
                    concat!($asm, " {0}, {1}, {2};"),
                    out(reg32) result,
                    in(reg32) a,
                    in(reg32) b,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            result
        }
    };
}

divide!(
    /// `a / b` without Rust's panic for `b = 0`, where the result is unspecified.
    div, "div.u32"
);
divide!(
    /// `a % b` without Rust's panic for `b = 0`, where the result is unspecified.
    rem, "rem.u32"
);

/// Packs the low bytes of four words, the first into the low byte.
#[inline(always)]
pub fn pack_bytes(v: [u32; 4]) -> u32 {
    let low = byte_permute(v[0], v[1], 0x0040);
    let high = byte_permute(v[2], v[3], 0x0040);
    byte_permute(low, high, 0x5410)
}

/// The same value, about which the compiler knows nothing, computed where it stands: a loop with this
/// bound is not unrolled, and what follows from it is not kept in registers over a loop.
#[gpu_only]
#[inline(always)]
pub fn opaque(value: u32) -> u32 {
    let result: u32;
    // SAFETY: a copy of a register. Not `pure`, so that it stays in its place.
    unsafe {
        asm!(
            "mov.u32 {0}, {1};",
            out(reg32) result,
            in(reg32) value,
            options(nomem, nostack, preserves_flags)
        );
    }
    result
}
