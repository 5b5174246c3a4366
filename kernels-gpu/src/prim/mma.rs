//! Tensor core products of a warp (`mma.sync`) and the loads that feed them (`ldmatrix`).
//!
//! With `g = lane / 4` and `t = lane % 4`, a lane holds of a 16x8 result `d`: `d[0], d[1]` = row
//! `g`, columns `2t, 2t + 1`, and `d[2], d[3]` the same of row `g + 8`. Of 16-bit `a` (16x16): words
//! for (row `g`, columns `2t..`), (`g + 8`, `2t..`), (`g`, `2t + 8..`), (`g + 8`, `2t + 8..`); of `b`
//! (16x8, column-major): (rows `2t..`, column `g`), (`2t + 8..`, `g`).
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
