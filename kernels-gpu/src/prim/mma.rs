//! Tensor core products of a warp (`mma.sync`) and the loads that feed them (`ldmatrix`).
//!
//! With `g = lane / 4` and `t = lane % 4`, a lane holds of a 16x8 result `d`: `d[0], d[1]` = row
//! `g`, columns `2t, 2t + 1`, and `d[2], d[3]` the same of row `g + 8`. Of 16-bit `a` (16x16): words
//! for (row `g`, columns `2t..`), (`g + 8`, `2t..`), (`g`, `2t + 8..`), (`g + 8`, `2t + 8..`); of `b`
//! (16x8, column-major): (rows `2t..`, column `g`), (`2t + 8..`, `g`). Bytes are the same with four in a word: `4t..` and
//! `4t + 16..` of 32; of the shorter product of 16 there are only the first words. Of 32-bit `a` (16x4) a lane holds (`g`,
//! `t`) and (`g + 8`, `t`), and of `b` (`t`, `g`).
//!
//! All 32 lanes execute these together: that is the safety condition of each.

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use cuda_std::gpu_only;
use cuda_std::shared::Shared;

/// `d += a * b` of halves in f32: 16x16 by 16x8.
///
/// # Safety
/// See the [module](self).
#[gpu_only]
#[inline(always)]
pub unsafe fn mma_f16(d: &mut [f32; 4], a: [u32; 4], b: [u32; 2]) {
    // SAFETY: the caller's. Not `pure`: the result depends on the other lanes.
    unsafe {
        asm!(
            concat!(
                "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
                " {{{d0}, {d1}, {d2}, {d3}}}, {{{a0}, {a1}, {a2}, {a3}}}, {{{b0}, {b1}}}, {{{d0}, {d1}, {d2}, {d3}}};"
            ),
            d0 = inout(reg32) d[0],
            d1 = inout(reg32) d[1],
            d2 = inout(reg32) d[2],
            d3 = inout(reg32) d[3],
            a0 = in(reg32) a[0],
            a1 = in(reg32) a[1],
            a2 = in(reg32) a[2],
            a3 = in(reg32) a[3],
            b0 = in(reg32) b[0],
            b1 = in(reg32) b[1],
            options(nomem, nostack, preserves_flags)
        );
    }
}

macro_rules! mma_bytes {
    ($(#[$doc:meta])* $name:ident, $shape:literal, $a:literal, $b:literal, $a_list:literal, $b_list:literal, [$($i:ident),*], [$($j:ident),*]) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// See the [module](self).
        #[gpu_only]
        #[inline(always)]
        pub unsafe fn $name(c: u32, a: [u32; $a], b: [u32; $b]) -> [u32; 4] {
            let ([$($i),*], [$($j),*]) = (a, b);
            let (d0, d1, d2, d3): (u32, u32, u32, u32);
            // SAFETY: the caller's. Not `pure`: the result depends on the other lanes.
            unsafe {
                asm!(
                    concat!(
                        "mma.sync.aligned.", $shape,
                        " {{{d0}, {d1}, {d2}, {d3}}}, ", $a_list, ", ", $b_list, ", {{{c}, {c}, {c}, {c}}};"
                    ),
                    d0 = out(reg32) d0,
                    d1 = out(reg32) d1,
                    d2 = out(reg32) d2,
                    d3 = out(reg32) d3,
                    $($i = in(reg32) $i,)*
                    $($j = in(reg32) $j,)*
                    c = in(reg32) c,
                    options(nomem, nostack, preserves_flags)
                );
            }
            [d0, d1, d2, d3]
        }
    };
}

mma_bytes!(
    /// `c + a * b` of unsigned (`a`) and signed bytes (`b`), 16x32 by 32x8, all elements of `c` being equal.
    mma_u8, "m16n8k32.row.col.s32.u8.s8.s32", 4, 2,
    "{{{a0}, {a1}, {a2}, {a3}}}", "{{{b0}, {b1}}}", [a0, a1, a2, a3], [b0, b1]
);
mma_bytes!(
    /// `c + a * b` of signed bytes, 16x32 by 32x8, all elements of `c` being equal.
    mma_s8, "m16n8k32.row.col.s32.s8.s8.s32", 4, 2,
    "{{{a0}, {a1}, {a2}, {a3}}}", "{{{b0}, {b1}}}", [a0, a1, a2, a3], [b0, b1]
);
mma_bytes!(
    /// `c + a * b` of signed bytes, 16x16 by 16x8, all elements of `c` being equal.
    mma_s8_short, "m16n8k16.row.col.s32.s8.s8.s32", 2, 1,
    "{{{a0}, {a1}}}", "{{{b0}}}", [a0, a1], [b0]
);

/// `d += a * b` of numbers whose fractions are cut to 10 bits, in f32: 16x4 by 4x8.
///
/// # Safety
/// See the [module](self).
#[gpu_only]
#[inline(always)]
pub unsafe fn mma_tf32(d: &mut [f32; 4], a: [f32; 2], b: f32) {
    // SAFETY: the caller's. Not `pure`: the result depends on the other lanes.
    unsafe {
        asm!(
            concat!(
                "mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32",
                " {{{d0}, {d1}, {d2}, {d3}}}, {{{a0}, {a1}}}, {{{b0}}}, {{{d0}, {d1}, {d2}, {d3}}};"
            ),
            d0 = inout(reg32) d[0],
            d1 = inout(reg32) d[1],
            d2 = inout(reg32) d[2],
            d3 = inout(reg32) d[3],
            a0 = in(reg32) a[0],
            a1 = in(reg32) a[1],
            b0 = in(reg32) b,
            options(nomem, nostack, preserves_flags)
        );
    }
}

macro_rules! ldmatrix {
    ($(#[$doc:meta])* $name:ident, $size:literal, $asm:literal, $list:literal, [$($word:ident),*]) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// See the [module](self); the rows are 16 bytes of shared memory each, at multiples of 16,
        /// written before.
        #[gpu_only]
        #[inline(always)]
        pub unsafe fn $name<T>(row: Shared<T>) -> [u32; $size] {
            $(let $word: u32;)*
            // SAFETY: the caller's. Not `pure`: the result depends on the other lanes.
            unsafe {
                asm!(
                    concat!($asm, " ", $list, ", [{row}];"),
                    $($word = out(reg32) $word,)*
                    row = in(reg32) row.address(),
                    options(readonly, nostack, preserves_flags)
                );
            }
            [$($word),*]
        }
    };
}

ldmatrix!(
    /// Four 8x8 matrices of 16-bit elements; lanes `8 i ..` give the rows of matrix `i`.
    ldmatrix_x4, 4, "ldmatrix.sync.aligned.m8n8.x4.shared.b16", "{{{a}, {b}, {c}, {d}}}", [a, b, c, d]
);
ldmatrix!(
    /// [`ldmatrix_x4`], each matrix transposed.
    ldmatrix_x4_trans, 4, "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16", "{{{a}, {b}, {c}, {d}}}", [a, b, c, d]
);
