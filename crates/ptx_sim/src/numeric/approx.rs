//! The approximate functions, evaluated in double precision and rounded once.
//!
//! The device's own errors (PTX ISA): `ex2` 2 ulp, `lg2` 2^-22 absolute near one and relative
//! elsewhere, `rsqrt` 2^-22.9 relative, `rcp` and `sqrt` 1 ulp, `sin` and `cos` 2^-20.9 absolute in
//! `[-pi, pi]`, `tanh` 2^-11 relative. Results here are within half an ulp of the exact value, so the
//! two differ by at most the device's error plus half an ulp.

use crate::numeric::float::{canonical, flush};
use crate::numeric::half;
use crate::op::{Approx, HalfFormat};

/// One lane of an approximate instruction.
pub(crate) fn apply(op: Approx, ftz: bool, bits: u32) -> u32 {
    let (format, function): (HalfFormat, fn(f64) -> f64) = match op {
        Approx::Exp2Half(format) => (format, f64::exp2),
        Approx::TanhHalf(format) => (format, f64::tanh),
        _ => return single(op, ftz, bits),
    };
    let bf16 = matches!(format, HalfFormat::Bf16 | HalfFormat::Bf16x2);
    let one = |bits: u32| half::f64_to_half(function(half::to_f64(bits, bf16)), bf16);
    match format {
        HalfFormat::F16 | HalfFormat::Bf16 => one(bits & 0xffff),
        HalfFormat::F16x2 | HalfFormat::Bf16x2 => one(bits & 0xffff) | one(bits >> 16) << 16,
    }
}

fn single(op: Approx, ftz: bool, bits: u32) -> u32 {
    let x = f64::from(f32::from_bits(if ftz { flush(bits) } else { bits }));
    let value = match op {
        Approx::Exp2 => x.exp2(),
        Approx::Log2 => x.log2(),
        Approx::Rsqrt => 1.0 / x.sqrt(),
        Approx::Rcp => 1.0 / x,
        Approx::Sqrt => x.sqrt(),
        Approx::Sin => x.sin(),
        Approx::Cos => x.cos(),
        _ => x.tanh(),
    };
    let result = canonical(value as f32);
    if ftz { flush(result) } else { result }
}
