//! Approximate and fused float instructions.

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use cuda_std::gpu_only;

macro_rules! unary {
    ($(#[$doc:meta])* $name:ident, $asm:literal) => {
        $(#[$doc])*
        #[gpu_only]
        #[inline(always)]
        pub fn $name(x: f32) -> f32 {
            let result: f32;
            // SAFETY: arithmetic on registers.
            unsafe {
                asm!(
                    concat!($asm, " {0}, {1};"),
                    out(reg32) result,
                    in(reg32) x,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            result
        }
    };
}

unary!(
    /// `2^x` within 2 ULP; minus infinity gives 0.
    exp2_approx, "ex2.approx.f32"
);
unary!(
    /// `1 / x` within 1 ULP.
    recip_approx, "rcp.approx.f32"
);
unary!(
    /// `1 / sqrt(x)` within a relative error of 2^-22.9.
    rsqrt_approx, "rsqrt.approx.f32"
);

/// `a * b + c`, rounded once.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    cuda_std::GpuFloat::mul_add(a, b, c)
}

/// Rounded to the 10 bits of fraction that tensor cores take of an f32, halves away from zero. A NaN stays one.
#[inline(always)]
pub fn to_tf32(x: f32) -> f32 {
    const HALF: u32 = 1 << 12;
    const DROPPED: u32 = 2 * HALF - 1;
    const INFINITE: u32 = 0x7f80_0000;
    let bits = x.to_bits();
    match bits & INFINITE {
        INFINITE => x,
        _ => f32::from_bits((bits + HALF) & !DROPPED),
    }
}
