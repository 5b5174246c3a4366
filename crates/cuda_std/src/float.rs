//! Float math in the GPU's own instructions, under the names of `std`'s `f32`.
//!
//! `core` has no such math, and LLVM would call libm for most of it.

#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

use crate::gpu_only;

/// Math on the device. Errors are relative unless stated, and hold for finite results.
pub trait GpuFloat: Copy {
    /// The largest integer not above.
    fn floor(self) -> Self;
    /// The smallest integer not below.
    fn ceil(self) -> Self;
    /// The nearest integer, halves away from zero.
    fn round(self) -> Self;
    /// The integer part.
    fn trunc(self) -> Self;
    /// The absolute value.
    fn abs(self) -> Self;
    /// `self * a + b`, rounded once. rustc never fuses `x * a + b` by itself.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// The square root, rounded correctly.
    fn sqrt(self) -> Self;
    /// e to the power, within 4 ULP.
    fn exp(self) -> Self;
    /// 2 to the power, within 2 ULP.
    fn exp2(self) -> Self;
    /// The natural logarithm, within 2^-21, absolute between 0.5 and 2.
    fn ln(self) -> Self;
    /// The binary logarithm, within 2^-22, absolute between 0.5 and 2.
    fn log2(self) -> Self;
    /// `self` (positive) to the power `n`, through logarithm and exponential: within `2^-21 * (1 +
    /// |n * log2(self)|)`.
    fn powf(self, n: Self) -> Self;
    /// The sine, within 2^-22 absolute for arguments up to 100 000.
    fn sin(self) -> Self;
    /// The cosine, as [`sin`](Self::sin).
    fn cos(self) -> Self;
    /// Both, for the price of one reduction.
    fn sin_cos(self) -> (Self, Self);
    /// The hyperbolic tangent, within 2^-21 absolute.
    fn tanh(self) -> Self;
}

macro_rules! unary {
    ($name:ident, $asm:literal) => {
        #[gpu_only]
        #[inline(always)]
        fn $name(self) -> f32 {
            let result: f32;
            // SAFETY: arithmetic on registers.
            unsafe {
                asm!(
                    concat!($asm, " {0}, {1};"),
                    out(reg32) result,
                    in(reg32) self,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            result
        }
    };
}

impl GpuFloat for f32 {
    unary!(floor, "cvt.rmi.f32.f32");
    unary!(ceil, "cvt.rpi.f32.f32");
    unary!(trunc, "cvt.rzi.f32.f32");
    unary!(abs, "abs.f32");
    unary!(sqrt, "sqrt.rn.f32");
    unary!(exp2, "ex2.approx.f32");
    unary!(log2, "lg2.approx.f32");

    #[gpu_only]
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32) -> f32 {
        let result: f32;
        // SAFETY: arithmetic on registers.
        unsafe {
            asm!(
                "fma.rn.f32 {0}, {1}, {2}, {3};",
                out(reg32) result,
                in(reg32) self,
                in(reg32) a,
                in(reg32) b,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        result
    }

    #[inline(always)]
    fn round(self) -> f32 {
        let whole = GpuFloat::trunc(self);
        if GpuFloat::abs(self - whole) >= 0.5 {
            whole + 1f32.copysign(self)
        } else {
            whole
        }
    }

    #[inline(always)]
    fn exp(self) -> f32 {
        use core::f32::consts::{LN_2, LOG2_E};
        /// What `LOG2_E` lacks to the real constant.
        const LOG2_E_LOW: f32 = 1.925_963e-8;
        let power = self * LOG2_E;
        // The product's rounding error is worth up to 64 ULP of the result: put it back to first
        // order. Infinities have none (and would make NaN here).
        let error = if GpuFloat::abs(power) < 256.0 {
            self.mul_add(LOG2_E_LOW, self.mul_add(LOG2_E, -power))
        } else {
            0.0
        };
        power.exp2() * error.mul_add(LN_2, 1.0)
    }

    #[inline(always)]
    fn ln(self) -> f32 {
        self.log2() * core::f32::consts::LN_2
    }

    #[inline(always)]
    fn powf(self, n: f32) -> f32 {
        (n * self.log2()).exp2()
    }

    #[inline(always)]
    fn sin(self) -> f32 {
        self.sin_cos().0
    }

    #[inline(always)]
    fn cos(self) -> f32 {
        self.sin_cos().1
    }

    #[inline(always)]
    fn sin_cos(self) -> (f32, f32) {
        use core::f32::consts::FRAC_2_PI;
        // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
        const ROUND: f32 = 12_582_912.0;
        // pi/2 in three parts (Cody and Waite); fused products keep the remainder exact enough
        // while the quotient has at most 17 bits.
        const HALF_PI: [f32; 3] = [1.570_796_4, -4.371_139e-8, -1.715_124_5e-15];
        let shifted = self.mul_add(FRAC_2_PI, ROUND);
        let quadrant = shifted.to_bits();
        let quotient = shifted - ROUND;
        let r = (-quotient).mul_add(HALF_PI[0], self);
        let r = (-quotient).mul_add(HALF_PI[1], r);
        let r = (-quotient).mul_add(HALF_PI[2], r);

        // Minimax polynomials on [-pi/4, pi/4].
        let r2 = r * r;
        let sine = r2.mul_add(-1.951_529_6e-4, 8.332_161e-3);
        let sine = sine.mul_add(r2, -1.666_665_5e-1);
        let sine = (sine * r2).mul_add(r, r);
        let cosine = r2.mul_add(2.443_315_7e-5, -1.388_731_6e-3);
        let cosine = cosine.mul_add(r2, 4.166_664_6e-2);
        let cosine = (cosine * r2).mul_add(r2, r2.mul_add(-0.5, 1.0));

        let (sine, cosine) = if quadrant & 1 == 0 {
            (sine, cosine)
        } else {
            (cosine, sine)
        };
        let sine = if quadrant & 2 == 0 { sine } else { -sine };
        let cosine = if quadrant.wrapping_add(1) & 2 == 0 {
            cosine
        } else {
            -cosine
        };
        (sine, cosine)
    }

    #[inline(always)]
    fn tanh(self) -> f32 {
        // 1 - 2 / (e^2x + 1): the limits come out right where the exponential is 0 or infinite.
        let power = (self + self).exp();
        1.0 - 2.0 / (power + 1.0)
    }
}
