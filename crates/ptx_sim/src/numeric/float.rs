//! Single and double precision: canonical NaNs, minimum and maximum, directed rounding.

use crate::op::{FloatMode, FloatOp, Round};

/// The NaN that the device produces in single precision.
pub(crate) const NAN32: u32 = 0x7fff_ffff;

/// The bits of a result, every NaN replaced by the device's.
#[inline(always)]
pub(crate) fn canonical(value: f32) -> u32 {
    if value.is_nan() {
        NAN32
    } else {
        value.to_bits()
    }
}

/// `min.f32`: the number if one operand is a NaN; −0 is less than +0.
#[inline(always)]
pub(crate) fn min32(a: u32, b: u32) -> u32 {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    let ordered = if x < y {
        a
    } else if x == y {
        a | b
    } else {
        b
    };
    let first = if y.is_nan() { canonical(x) } else { ordered };
    if x.is_nan() { canonical(y) } else { first }
}

/// `max.f32`, like [`min32`].
#[inline(always)]
pub(crate) fn max32(a: u32, b: u32) -> u32 {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    let ordered = if x > y {
        a
    } else if x == y {
        a & b
    } else {
        b
    };
    let first = if y.is_nan() { canonical(x) } else { ordered };
    if x.is_nan() { canonical(y) } else { first }
}

/// `min.f64`.
#[inline(always)]
pub(crate) fn min64(a: u64, b: u64) -> u64 {
    let (x, y) = (f64::from_bits(a), f64::from_bits(b));
    let ordered = if x < y {
        a
    } else if x == y {
        a | b
    } else {
        b
    };
    if x.is_nan() {
        b
    } else if y.is_nan() {
        a
    } else {
        ordered
    }
}

/// `max.f64`.
#[inline(always)]
pub(crate) fn max64(a: u64, b: u64) -> u64 {
    let (x, y) = (f64::from_bits(a), f64::from_bits(b));
    let ordered = if x > y {
        a
    } else if x == y {
        a & b
    } else {
        b
    };
    if x.is_nan() {
        b
    } else if y.is_nan() {
        a
    } else {
        ordered
    }
}

/// Replaces a subnormal by zero of its sign.
#[inline(always)]
pub(crate) fn flush(bits: u32) -> u32 {
    if bits & 0x7f80_0000 == 0 {
        bits & 0x8000_0000
    } else {
        bits
    }
}

/// Clamps to `[0, 1]`; NaN becomes +0.
#[inline(always)]
pub(crate) fn saturate(value: f32) -> f32 {
    if value > 0.0 { value.min(1.0) } else { 0.0 }
}

/// Single-precision arithmetic under any modifiers.
pub(crate) fn apply(op: FloatOp, mode: FloatMode, sources: [u32; 3]) -> u32 {
    let [a, b, c] = if mode.ftz {
        sources.map(flush)
    } else {
        sources
    };
    let (x, y, z) = (f32::from_bits(a), f32::from_bits(b), f32::from_bits(c));
    let value = match op {
        FloatOp::Neg => return a ^ 0x8000_0000,
        FloatOp::Abs => return a & 0x7fff_ffff,
        FloatOp::Min | FloatOp::Max if mode.nan && (x.is_nan() || y.is_nan()) => f32::NAN,
        FloatOp::Min => f32::from_bits(min32(a, b)),
        FloatOp::Max => f32::from_bits(max32(a, b)),
        _ if mode.round == Round::Nearest => match op {
            FloatOp::Add => x + y,
            FloatOp::Sub => x - y,
            FloatOp::Mul => x * y,
            FloatOp::Fma => x.mul_add(y, z),
            FloatOp::Div => x / y,
            FloatOp::Sqrt => x.sqrt(),
            _ => 1.0 / x,
        },
        _ => directed(op, mode.round, f64::from(x), f64::from(y), f64::from(z)),
    };
    let value = if mode.sat { saturate(value) } else { value };
    let bits = canonical(value);
    if mode.ftz { flush(bits) } else { bits }
}

/// An operation in a directed rounding, from a double and the sign of what the double lacks.
fn directed(op: FloatOp, round: Round, x: f64, y: f64, z: f64) -> f32 {
    let (value, rest) = match op {
        FloatOp::Add => two_sum(x, y),
        FloatOp::Sub => two_sum(x, -y),
        // Products of singles are exact in double precision.
        FloatOp::Mul => (x * y, 0.0),
        FloatOp::Fma => two_sum(x * y, z),
        FloatOp::Div => quotient(x, y),
        FloatOp::Sqrt => {
            let root = x.sqrt();
            (root, (-root).mul_add(root, x) / (2.0 * root))
        }
        _ => quotient(1.0, x),
    };
    round_single(value, rest, round)
}

fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

fn quotient(a: f64, b: f64) -> (f64, f64) {
    let quotient = a / b;
    let rest = (-quotient).mul_add(b, a);
    (quotient, rest / b)
}

/// Rounds `value + rest`, where `rest` is too small to change `value`, to a single.
pub(crate) fn round_single(value: f64, rest: f64, round: Round) -> f32 {
    let nearest = value as f32;
    if value.is_nan() || value.is_infinite() || rest.is_nan() {
        return nearest;
    }
    let gap = (value - f64::from(nearest)) + rest;
    let below = gap < 0.0;
    let above = gap > 0.0;
    match round {
        Round::Down if below => nearest.next_down(),
        Round::Up if above => nearest.next_up(),
        Round::Zero if value > 0.0 && below => nearest.next_down(),
        Round::Zero if value < 0.0 && above => nearest.next_up(),
        _ => nearest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directed_roundings_bracket_the_exact_sum() {
        let mode = |round| FloatMode {
            round,
            ftz: false,
            sat: false,
            nan: false,
        };
        let add = |a: f32, b: f32, round| {
            f32::from_bits(apply(
                FloatOp::Add,
                mode(round),
                [a.to_bits(), b.to_bits(), 0],
            ))
        };
        let tiny = 1e-30f32;
        assert_eq!(add(1.0, tiny, Round::Down), 1.0);
        assert_eq!(add(1.0, tiny, Round::Up), 1.0f32.next_up());
        assert_eq!(add(1.0, -tiny, Round::Zero), 1.0f32.next_down());
        assert_eq!(add(-1.0, tiny, Round::Zero), (-1.0f32).next_up());
        assert_eq!(add(f32::MAX, f32::MAX, Round::Zero), f32::MAX);
        assert_eq!(add(f32::MAX, f32::MAX, Round::Up), f32::INFINITY);
    }

    #[test]
    fn minimum_orders_zeros_and_skips_nans() {
        let (plus, minus) = (0f32.to_bits(), (-0f32).to_bits());
        assert_eq!(min32(plus, minus), minus);
        assert_eq!(max32(minus, plus), plus);
        assert_eq!(min32(f32::NAN.to_bits(), 3f32.to_bits()), 3f32.to_bits());
        assert_eq!(max32(3f32.to_bits(), f32::NAN.to_bits()), 3f32.to_bits());
        assert_eq!(max32(f32::NAN.to_bits(), 0xffc0_0000), NAN32);
    }
}
