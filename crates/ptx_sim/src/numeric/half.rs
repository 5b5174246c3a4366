//! Halves: conversions without branches, so that loops over lanes vectorize, and arithmetic.
//!
//! Sums and products are formed in double precision, rounded to odd in single precision and then to
//! nearest in half precision: rounding to odd keeps what the last rounding needs, so the result is
//! that of one correct rounding.

use crate::op::{HalfFormat, HalfMode, HalfOp};

/// The NaN that the device produces in half precision.
pub(crate) const NAN16: u32 = 0x7fff;

/// `f16` bits to the bits of a single; exact.
#[inline(always)]
pub(crate) fn f16_to_f32(half: u32) -> u32 {
    let sign = (half & 0x8000) << 16;
    let magnitude = (half & 0x7fff) << 13;
    // Scaling by 2^112 rebiases the exponent and normalizes subnormals in one exact product.
    let scaled = (f32::from_bits(magnitude) * f32::from_bits(0x7780_0000)).to_bits();
    let special = if half & 0x7fff > 0x7c00 {
        0x7fff_ffff
    } else {
        0x7f80_0000
    };
    let finite = half & 0x7c00 != 0x7c00;
    if finite {
        scaled | sign
    } else {
        special | if special == 0x7f80_0000 { sign } else { 0 }
    }
}

/// The bits of a single to `f16` bits, to nearest even.
#[inline(always)]
pub(crate) fn f32_to_f16(bits: u32) -> u32 {
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let normal = magnitude
        .wrapping_add(0xc800_0fff)
        .wrapping_add((magnitude >> 13) & 1)
        >> 13;
    // Adding 0.5 aligns a subnormal's last place with the single's, whose adder then rounds.
    let aligned = (f32::from_bits(magnitude) + 0.5).to_bits();
    let subnormal = aligned.wrapping_sub(0x3f00_0000);
    let finite = if magnitude < 0x3880_0000 {
        subnormal
    } else {
        normal
    };
    let bounded = if magnitude >= 0x477f_f000 {
        0x7c00
    } else {
        finite
    };
    if magnitude > 0x7f80_0000 {
        NAN16
    } else {
        bounded | sign
    }
}

/// `bf16` bits to the bits of a single.
#[inline(always)]
pub(crate) fn bf16_to_f32(half: u32) -> u32 {
    if half & 0x7fff > 0x7f80 {
        0x7fff_ffff
    } else {
        half << 16
    }
}

/// The bits of a single to `bf16` bits, to nearest even.
#[inline(always)]
pub(crate) fn f32_to_bf16(bits: u32) -> u32 {
    let rounded = (bits.wrapping_add(0x7fff).wrapping_add((bits >> 16) & 1)) >> 16;
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        NAN16
    } else {
        rounded & 0xffff
    }
}

/// A double rounded to a single whose last bit is set wherever the rounding was inexact.
#[inline(always)]
pub(crate) fn to_odd_f32(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    let inexact = back != value && !value.is_nan();
    // Step back to the truncated neighbour before setting the bit.
    let away = back.abs() > value.abs();
    let truncated = nearest.to_bits() - u32::from(inexact && away);
    f32::from_bits(truncated | u32::from(inexact))
}

/// A double to the bits of a half, correctly rounded to nearest even.
#[inline(always)]
pub(crate) fn f64_to_half(value: f64, bf16: bool) -> u32 {
    let odd = to_odd_f32(value).to_bits();
    if bf16 {
        f32_to_bf16(odd)
    } else {
        f32_to_f16(odd)
    }
}

/// The value of a half.
#[inline(always)]
pub(crate) fn to_f64(half: u32, bf16: bool) -> f64 {
    let single = if bf16 {
        bf16_to_f32(half)
    } else {
        f16_to_f32(half)
    };
    f64::from(f32::from_bits(single))
}

/// `add.f16x2`: a sum of halves rounded to single precision rounds to the right half, because single
/// precision has more than twice the digits.
#[inline(always)]
pub(crate) fn add_pair(a: u32, b: u32) -> u32 {
    let one = |a, b| {
        let sum = f32::from_bits(f16_to_f32(a)) + f32::from_bits(f16_to_f32(b));
        f32_to_f16(sum.to_bits())
    };
    one(a & 0xffff, b & 0xffff) | one(a >> 16, b >> 16) << 16
}

/// `mul.f16x2`: products of halves are exact in single precision.
#[inline(always)]
pub(crate) fn mul_pair(a: u32, b: u32) -> u32 {
    let one = |a, b| {
        let product = f32::from_bits(f16_to_f32(a)) * f32::from_bits(f16_to_f32(b));
        f32_to_f16(product.to_bits())
    };
    one(a & 0xffff, b & 0xffff) | one(a >> 16, b >> 16) << 16
}

/// `fma.f16x2`: the exact product plus `c`, rounded to odd by the error of the sum.
#[inline(always)]
pub(crate) fn fma_pair(a: u32, b: u32, c: u32) -> u32 {
    let one = |a, b, c| {
        let product = f32::from_bits(f16_to_f32(a)) * f32::from_bits(f16_to_f32(b));
        let c = f32::from_bits(f16_to_f32(c));
        let sum = product + c;
        let c_part = sum - product;
        let error = (product - (sum - c_part)) + (c - c_part);
        let (bits, error) = (sum.to_bits(), error.to_bits());
        // Neither zero nor, after an overflow, infinite or NaN.
        let inexact = u32::from((error & 0x7fff_ffff).wrapping_sub(1) < 0x7f7f_ffff);
        // An odd sum already tells that it is not a tie; an even one steps towards the exact value.
        let step = inexact & !bits & 1;
        let inward = ((error ^ bits) >> 31) & step;
        f32_to_f16(bits.wrapping_add(step).wrapping_sub(2 * inward))
    };
    one(a & 0xffff, b & 0xffff, c & 0xffff) | one(a >> 16, b >> 16, c >> 16) << 16
}

/// `x + y` rounded to odd: rounded again to fewer digits it is as if rounded once.
#[inline(always)]
fn add_to_odd(x: f64, y: f64) -> f64 {
    let sum = x + y;
    let y_part = sum - x;
    let error = (x - (sum - y_part)) + (y - y_part);
    let bits = sum.to_bits();
    // An odd sum already tells that it is no tie; after an overflow the error is no number.
    if error == 0.0 || !error.is_finite() || bits & 1 == 1 {
        return sum;
    }
    let outward = (error > 0.0) == (sum > 0.0);
    f64::from_bits(if outward { bits + 1 } else { bits - 1 })
}

/// Applies an operation to one or both halves of the operands.
#[inline(always)]
pub(crate) fn apply(op: HalfOp, mode: HalfMode, a: u32, b: u32, c: u32) -> u32 {
    let bf16 = matches!(mode.format, HalfFormat::Bf16 | HalfFormat::Bf16x2);
    let low = one(op, mode, bf16, a & 0xffff, b & 0xffff, c & 0xffff);
    match mode.format {
        HalfFormat::F16 | HalfFormat::Bf16 => low,
        HalfFormat::F16x2 | HalfFormat::Bf16x2 => {
            low | one(op, mode, bf16, a >> 16, b >> 16, c >> 16) << 16
        }
    }
}

#[inline(always)]
fn one(op: HalfOp, mode: HalfMode, bf16: bool, a: u32, b: u32, c: u32) -> u32 {
    let flush = |half: u32| {
        if mode.ftz && !bf16 && half & 0x7c00 == 0 {
            half & 0x8000
        } else {
            half
        }
    };
    let (a, b, c) = (flush(a), flush(b), flush(c));
    let (x, y, z) = (to_f64(a, bf16), to_f64(b, bf16), to_f64(c, bf16));
    let result = match op {
        HalfOp::Add => f64_to_half(x + y, bf16),
        HalfOp::Sub => f64_to_half(x - y, bf16),
        HalfOp::Mul => f64_to_half(x * y, bf16),
        // The product of halves is exact in double precision, the sum need not be.
        HalfOp::Fma => f64_to_half(add_to_odd(x * y, z), bf16),
        HalfOp::Min | HalfOp::Max => {
            let first = if op == HalfOp::Min {
                x < y || x == y && a & 0x8000 != 0
            } else {
                x > y || x == y && a & 0x8000 == 0
            };
            match (x.is_nan(), y.is_nan()) {
                (true, true) => NAN16,
                (true, false) => {
                    if mode.nan {
                        NAN16
                    } else {
                        b
                    }
                }
                (false, true) => {
                    if mode.nan {
                        NAN16
                    } else {
                        a
                    }
                }
                (false, false) => {
                    if first {
                        a
                    } else {
                        b
                    }
                }
            }
        }
    };
    let result = flush(result);
    let is_nan = result & 0x7fff > if bf16 { 0x7f80 } else { 0x7c00 };
    let one = if bf16 { 0x3f80 } else { 0x3c00 };
    if mode.sat {
        if is_nan || result & 0x8000 != 0 {
            0
        } else {
            result.min(one)
        }
    } else if mode.relu && !is_nan && result & 0x8000 != 0 {
        0
    } else {
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_converts_as_the_half_crate_does() {
        for bits in 0..=u16::MAX {
            let f16 = ::half::f16::from_bits(bits);
            let ours = f32::from_bits(f16_to_f32(bits.into()));
            assert!(
                ours == f16.to_f32() || ours.is_nan() && f16.is_nan(),
                "{bits:#x}"
            );
            if !f16.is_nan() {
                assert_eq!(ours.is_sign_negative(), f16.is_sign_negative());
                assert_eq!(f32_to_f16(ours.to_bits()), bits.into());
            }
            let bf16 = ::half::bf16::from_bits(bits);
            let ours = f32::from_bits(bf16_to_f32(bits.into()));
            assert!(
                ours == bf16.to_f32() || ours.is_nan() && bf16.is_nan(),
                "{bits:#x}"
            );
        }
    }

    #[test]
    fn singles_round_as_the_half_crate_does() {
        // A stride coprime to the word visits every exponent with varied fractions; the second
        // family sits on and beside the ties.
        let scattered = (0..2_000_000u32).map(|i| i.wrapping_mul(2_654_435_761));
        let ties = (0..=0xffffu32).flat_map(|h| {
            let base = f16_to_f32(h & 0x7fff);
            [0xfffu32, 0x1000, 0x1001, 0x1fff].map(|low| base.wrapping_add(low))
        });
        for bits in scattered
            .chain(ties)
            .chain([0x7f80_0000, 0xff80_0000, 0x3300_0000, 1])
        {
            let value = f32::from_bits(bits);
            if value.is_nan() {
                assert_eq!(f32_to_f16(bits), NAN16);
                assert_eq!(f32_to_bf16(bits), NAN16);
                continue;
            }
            let f16 = u32::from(::half::f16::from_f32(value).to_bits());
            assert_eq!(f32_to_f16(bits), f16, "{bits:#x}");
            let bf16 = u32::from(::half::bf16::from_f32(value).to_bits());
            assert_eq!(f32_to_bf16(bits), bf16, "{bits:#x}");
        }
    }

    #[test]
    fn pairs_agree_with_the_general_form() {
        let mode = HalfMode {
            format: HalfFormat::F16x2,
            ftz: false,
            sat: false,
            relu: false,
            nan: false,
        };
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state ^ state >> 15
        };
        for _ in 0..2_000_000 {
            let (a, b, c) = (random(), random(), random());
            assert_eq!(
                add_pair(a, b),
                apply(HalfOp::Add, mode, a, b, c),
                "{a:#x} {b:#x}"
            );
            assert_eq!(
                mul_pair(a, b),
                apply(HalfOp::Mul, mode, a, b, c),
                "{a:#x} {b:#x}"
            );
            assert_eq!(
                fma_pair(a, b, c),
                apply(HalfOp::Fma, mode, a, b, c),
                "{a:#x} {b:#x} {c:#x}"
            );
        }
    }

    #[test]
    fn doubles_round_once() {
        // Halfway between two halves plus a bit that single precision cannot hold.
        let tie = 1.0 + 2f64.powi(-11);
        assert_eq!(f64_to_half(tie, false), 0x3c00);
        assert_eq!(f64_to_half(tie + 2f64.powi(-40), false), 0x3c01);
        assert_eq!(f64_to_half(-(tie + 2f64.powi(-40)), false), 0xbc01);
        assert_eq!(f64_to_half(tie - 2f64.powi(-40), false), 0x3c00);
        assert_eq!(f64_to_half(65519.999, false), 0x7bff);
        assert_eq!(f64_to_half(65520.0, false), 0x7c00);
    }
}
