//! `cvt` in full generality: exact values, then one rounding into the target format.

use crate::numeric::float::{NAN32, flush, saturate};
use crate::numeric::half::{self, NAN16};
use crate::op::{Conversion, Round};
use crate::ty::Ty;

/// A binary floating-point format: bits of the significand with the hidden one, exponent range.
struct Format {
    precision: i32,
    bias: i32,
    nan: u64,
    /// Zero bits below the significand in the register.
    padding: u32,
    sign_bit: u32,
}

fn format(ty: Ty) -> Format {
    let (precision, bias, nan, padding, sign_bit) = match ty {
        Ty::F16 => (11, 15, u64::from(NAN16), 0, 15),
        Ty::Bf16 => (8, 127, u64::from(NAN16), 0, 15),
        Ty::Tf32 => (11, 127, u64::from(NAN32), 13, 31),
        Ty::F32 => (24, 127, u64::from(NAN32), 0, 31),
        _ => (53, 1023, 0x7fff_ffff_ffff_ffff, 0, 63),
    };
    Format {
        precision,
        bias,
        nan,
        padding,
        sign_bit,
    }
}

/// Whether the magnitude goes up, from the kept part's parity and what was cut off.
fn rounds_up(round: Round, negative: bool, odd: bool, rest: u128, half: u128) -> bool {
    match round {
        Round::Nearest => rest > half || rest == half && odd,
        Round::NearestAway => rest >= half,
        Round::Zero => false,
        Round::Down => negative && rest != 0,
        Round::Up => !negative && rest != 0,
    }
}

/// Rounds `±significand · 2^exponent` into a format.
fn encode(negative: bool, significand: u64, exponent: i32, to: &Format, round: Round) -> u64 {
    let sign = u64::from(negative) << to.sign_bit;
    if significand == 0 {
        return sign;
    }
    let fraction_bits = to.precision - 1;
    let top = exponent + 63 - significand.leading_zeros().cast_signed();
    let quantum = top.max(1 - to.bias) - fraction_bits;
    let shift = quantum - exponent;
    let significand = u128::from(significand);
    let kept = if shift <= 0 {
        significand << -shift
    } else if shift > 100 {
        u128::from(rounds_up(round, negative, false, 1, 2))
    } else {
        let kept = significand >> shift;
        let rest = significand & ((1 << shift) - 1);
        let half = 1 << (shift - 1);
        kept + u128::from(rounds_up(round, negative, kept & 1 == 1, rest, half))
    };
    let hidden = 1u128 << fraction_bits;
    let bits = if kept < hidden {
        kept
    } else {
        // A carry out of the significand moves into the exponent by itself.
        let field = (quantum + fraction_bits + to.bias).cast_unsigned();
        (u128::from(field) << fraction_bits) + (kept - hidden)
    };
    let infinity = (2 * to.bias.cast_unsigned() + 1) as u128 * hidden;
    let overflows_to_infinity = match round {
        Round::Nearest | Round::NearestAway => true,
        Round::Zero => false,
        Round::Down => negative,
        Round::Up => !negative,
    };
    let bits = if bits < infinity {
        bits
    } else {
        infinity - u128::from(!overflows_to_infinity)
    };
    sign | (bits as u64) << to.padding
}

/// Sign, significand and exponent of a finite double.
fn decode(value: f64) -> (bool, u64, i32) {
    let bits = value.to_bits();
    let fraction = bits & ((1 << 52) - 1);
    let field = (bits >> 52 & 0x7ff) as i32;
    let significand = if field == 0 {
        fraction
    } else {
        fraction | 1 << 52
    };
    (value.is_sign_negative(), significand, field.max(1) - 1075)
}

fn integer_range(ty: Ty) -> (i128, i128) {
    let bits = ty.bytes() * 8;
    if ty.is_signed() {
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        (0, (1 << bits) - 1)
    }
}

/// Reads the low bits of a register as an integer of the type.
fn integer(bits: u64, ty: Ty) -> i128 {
    let unused = 64 - ty.bytes() * 8;
    if ty.is_signed() {
        i128::from(bits.cast_signed() << unused >> unused)
    } else {
        i128::from(bits << unused >> unused)
    }
}

/// Converts one value; the result is sign- or zero-extended to 64 bits by its type.
pub(crate) fn apply(conversion: &Conversion, bits: u64) -> u64 {
    let Conversion {
        to, from, round, ..
    } = *conversion;
    if !from.is_float() {
        let value = integer(bits, from);
        return if to.is_float() {
            let magnitude = u64::try_from(value.unsigned_abs()).unwrap_or(u64::MAX);
            let result = encode(value < 0, magnitude, 0, &format(to), round);
            if conversion.sat {
                saturated(result, to)
            } else {
                result
            }
        } else if conversion.sat {
            let (low, high) = integer_range(to);
            value.clamp(low, high) as u64
        } else {
            integer(value as u64, to) as u64
        };
    }
    let value = match from {
        Ty::F16 => half::to_f64(bits as u32 & 0xffff, false),
        Ty::Bf16 => half::to_f64(bits as u32 & 0xffff, true),
        Ty::F32 => {
            let single = if conversion.ftz {
                flush(bits as u32)
            } else {
                bits as u32
            };
            f64::from(f32::from_bits(single))
        }
        _ => f64::from_bits(bits),
    };
    if to.is_float() {
        float_to_float(conversion, value)
    } else {
        float_to_integer(conversion, value)
    }
}

fn to_integral(value: f64, round: Round) -> f64 {
    match round {
        Round::Nearest | Round::NearestAway => value.round_ties_even(),
        Round::Zero => value.trunc(),
        Round::Down => value.floor(),
        Round::Up => value.ceil(),
    }
}

fn float_to_integer(conversion: &Conversion, value: f64) -> u64 {
    let Conversion {
        to, from, round, ..
    } = *conversion;
    if value.is_nan() {
        // PTX ISA: zero, except that 64-bit sources or targets give the sign bit.
        let wide = from == Ty::F64 || to.bytes() == 8;
        let bits = to.bytes() * 8;
        return if !wide {
            0
        } else if to.is_signed() {
            u64::MAX << (bits - 1)
        } else {
            1 << (bits - 1)
        };
    }
    let (low, high) = integer_range(to);
    (to_integral(value, round) as i128).clamp(low, high) as u64
}

fn float_to_float(conversion: &Conversion, value: f64) -> u64 {
    let Conversion {
        to,
        round,
        integral,
        ..
    } = *conversion;
    let target = format(to);
    let value = if integral {
        to_integral(value, round)
    } else {
        value
    };
    let result = if value.is_nan() {
        target.nan
    } else if value.is_infinite() {
        let infinity = u64::from(2 * target.bias.cast_unsigned() + 1) << (target.precision - 1);
        u64::from(value < 0.0) << target.sign_bit | infinity << target.padding
    } else {
        let (negative, significand, exponent) = decode(value);
        encode(negative, significand, exponent, &target, round)
    };
    let result = if conversion.ftz && to == Ty::F32 {
        u64::from(flush(result as u32))
    } else {
        result
    };
    if conversion.sat {
        saturated(result, to)
    } else if conversion.relu && !value.is_nan() && result >> target.sign_bit != 0 {
        0
    } else {
        result
    }
}

/// `.sat` on a float: clamps to `[0, 1]`.
fn saturated(bits: u64, ty: Ty) -> u64 {
    match ty {
        Ty::F32 => u64::from(saturate(f32::from_bits(bits as u32)).to_bits()),
        Ty::F64 => {
            let value = f64::from_bits(bits);
            if value > 0.0 {
                value.min(1.0).to_bits()
            } else {
                0
            }
        }
        Ty::F16 | Ty::Bf16 => {
            let bf16 = ty == Ty::Bf16;
            let value = half::to_f64(bits as u32, bf16);
            let clamped = if value > 0.0 { value.min(1.0) } else { 0.0 };
            u64::from(half::f64_to_half(clamped, bf16))
        }
        _ => bits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(to: Ty, from: Ty, round: Round) -> Conversion {
        Conversion {
            to,
            from,
            round,
            integral: false,
            ftz: false,
            sat: false,
            relu: false,
        }
    }

    #[test]
    fn nearest_agrees_with_rust_casts() {
        let values = (0..200_000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for bits in values {
            let double = f64::from_bits(bits);
            if !double.is_nan() {
                let ours = apply(&plain(Ty::F32, Ty::F64, Round::Nearest), bits);
                assert_eq!(ours as u32, (double as f32).to_bits(), "{double:e}");
                let mut rz = plain(Ty::S32, Ty::F64, Round::Zero);
                rz.integral = true;
                assert_eq!(apply(&rz, bits) as i32, double as i32);
            }
            let ours = apply(&plain(Ty::F32, Ty::U64, Round::Nearest), bits);
            assert_eq!(ours as u32, (bits as f32).to_bits());
            let ours = apply(&plain(Ty::F64, Ty::S64, Round::Nearest), bits);
            assert_eq!(ours, (bits.cast_signed() as f64).to_bits());
            let single = f32::from_bits(bits as u32);
            if !single.is_nan() {
                let ours = apply(
                    &plain(Ty::F16, Ty::F32, Round::Nearest),
                    u64::from(bits as u32),
                );
                assert_eq!(ours as u32, half::f32_to_f16(bits as u32), "{single:e}");
                let ours = apply(
                    &plain(Ty::Bf16, Ty::F32, Round::Nearest),
                    u64::from(bits as u32),
                );
                assert_eq!(ours as u32, half::f32_to_bf16(bits as u32), "{single:e}");
            }
        }
    }

    #[test]
    fn directed_roundings_bracket() {
        for i in 1..10_000u32 {
            let single = f64::from(i).sqrt() as f32;
            let to_half = |round| {
                let bits = apply(&plain(Ty::F16, Ty::F32, round), u64::from(single.to_bits()));
                half::to_f64(bits as u32, false)
            };
            let (down, up) = (to_half(Round::Down), to_half(Round::Up));
            assert!(down <= f64::from(single) && f64::from(single) <= up);
            assert_eq!(to_half(Round::Zero), down);
        }
        let overflow = u64::from(1e6f32.to_bits());
        assert_eq!(
            apply(&plain(Ty::F16, Ty::F32, Round::Zero), overflow),
            0x7bff
        );
        assert_eq!(
            apply(&plain(Ty::F16, Ty::F32, Round::Nearest), overflow),
            0x7c00
        );
    }

    #[test]
    fn nan_becomes_the_documented_integer() {
        let mut conversion = plain(Ty::S32, Ty::F32, Round::Zero);
        conversion.integral = true;
        assert_eq!(apply(&conversion, u64::from(f32::NAN.to_bits())), 0);
        conversion.to = Ty::S64;
        assert_eq!(apply(&conversion, u64::from(f32::NAN.to_bits())), 1 << 63);
        conversion.to = Ty::U64;
        assert_eq!(apply(&conversion, u64::from(f32::NAN.to_bits())), 1 << 63);
    }
}
