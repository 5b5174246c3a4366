//! f32 as unsigned integers in the same order, and tokens with their logits in the order of choice.

use cuda_std::prelude::*;

use crate::abi::NOT_FINITE;

/// The key of the lowest finite number; those of minus infinity and NaN are below.
pub const LOWEST_KEY: u32 = key(f32::MIN);

/// Above the key of every number.
pub const BROKEN: u32 = u32::MAX;

/// The key of a logit: both zeros have the same one.
#[inline(always)]
pub const fn token_key(logit: f32) -> u32 {
    // -0 + 0 is 0.
    key(logit + 0.0)
}

/// An integer that is larger where the number is larger (-0 is below 0); 0 for NaN.
#[inline(always)]
pub const fn key(x: f32) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() {
        0
    } else if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    }
}

/// The number of a [`key`] that is not 0.
#[inline(always)]
pub const fn value(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 {
        key & !(1 << 31)
    } else {
        !key
    })
}

/// A token with its logit: larger where the logit is, or among equals where the token is lower. What is not finite is
/// above every logit, with the token [`NOT_FINITE`]. 0 is below every token.
#[inline(always)]
pub const fn ranked(logit: f32, token: u32) -> u64 {
    let (key, token) = if logit.is_finite() {
        (token_key(logit), token)
    } else {
        (BROKEN, NOT_FINITE)
    };
    (key as u64) << 32 | (!token) as u64
}

/// The token of a [`ranked`] one that is not 0.
#[inline(always)]
pub const fn token(ranked: u64) -> u32 {
    !(ranked as u32)
}

/// The larger one.
#[inline(always)]
pub const fn larger(a: u64, b: u64) -> u64 {
    if a > b { a } else { b }
}

/// The largest value of the warp.
///
/// # Safety
/// All 32 lanes come here together.
#[inline(always)]
pub unsafe fn warp_largest(mut value: u64) -> u64 {
    let mut distance = 16;
    while distance > 0 {
        // SAFETY: the caller's.
        let other = unsafe { warp::warp_shuffle_xor(warp::FULL_MASK, value, distance, 32) }.0;
        value = larger(value, other);
        distance /= 2;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_order_of_the_numbers() {
        let numbers = [
            f32::NEG_INFINITY,
            f32::MIN,
            -1.0,
            -1e-40,
            -0.0,
            0.0,
            1e-40,
            1.0,
            f32::MAX,
            f32::INFINITY,
        ];
        for pair in numbers.windows(2) {
            assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
        }
        for number in numbers {
            assert_eq!(value(key(number)).to_bits(), number.to_bits());
            assert_eq!(key(number) >= LOWEST_KEY, number >= f32::MIN);
            assert!(key(number) < BROKEN);
        }
        assert_eq!(token_key(-0.0), token_key(0.0));
        assert_eq!(key(f32::NAN), 0);
        assert_eq!(key(-f32::NAN), 0);
    }
}
