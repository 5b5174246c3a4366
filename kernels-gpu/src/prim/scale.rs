//! Powers of two that bring numbers into f16's range. To divide by one and to multiply by it again is exact, so
//! that a scale of 1 and any other give the same product, but for what falls below f16's smallest number.

/// The largest finite f16.
pub const F16_MAX: f32 = 65_504.0;

/// The largest magnitude of two factors whose product is never above [`F16_MAX`].
pub const FACTOR_MAX: f32 = 255.0;

const EXPONENT: u32 = 0x7f80_0000;
/// The exponent of 2^14: what the largest number's becomes. Twice that is still below [`F16_MAX`].
const LARGEST_EXPONENT: u32 = 14 << 23;
/// Of 2^127 (an infinity's is brought down to it), and of the smallest normal number.
const EXPONENTS: [u32; 2] = [254 << 23, 1 << 23];

/// What to divide numbers of magnitudes up to `largest` by: 1 where f16 holds them, otherwise a power of two
/// that brings the largest between 2^14 and 2^15. Infinities stay infinite. A NaN counts as small.
#[inline(always)]
pub fn scale_of(largest: f32) -> f32 {
    if largest > F16_MAX {
        scale_to_range(largest)
    } else {
        1.0
    }
}

/// The power of two that `largest`, a positive number, is to be divided by to be between 2^14 and 2^15.
#[inline(always)]
pub fn scale_to_range(largest: f32) -> f32 {
    let exponent = (largest.to_bits() & EXPONENT).min(EXPONENTS[0]);
    // From 2^-126 to 2^113: both it and its inverse are normal numbers.
    let above = exponent.max(EXPONENTS[1] + LARGEST_EXPONENT) - LARGEST_EXPONENT;
    f32::from_bits(above)
}

/// What to divide the products of two factors of magnitudes up to `largest` by, as for [`scale_of`].
#[inline(always)]
pub fn scale_of_products(largest: f32) -> f32 {
    if largest > FACTOR_MAX {
        // The factors are below twice this, so that products are below twice what is brought into range.
        let power = f32::from_bits(largest.to_bits() & EXPONENT);
        scale_to_range(2.0 * power * power)
    } else {
        1.0
    }
}

/// `1 / scale` of a scale by the functions above.
#[inline(always)]
pub fn inverse(scale: f32) -> f32 {
    f32::from_bits((254 << 23) - scale.to_bits())
}

/// The nearest number to `value` that f16 holds without becoming infinite; a NaN stays one.
#[inline(always)]
pub fn saturate(value: f32) -> f32 {
    const SIGN: u32 = 0x8000_0000;
    if f32::from_bits(value.to_bits() & !SIGN) > F16_MAX {
        f32::from_bits(F16_MAX.to_bits() | value.to_bits() & SIGN)
    } else {
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: [f32; 9] = [
        1e-38,
        1.0,
        255.0,
        65_504.0,
        65_505.0,
        65_536.0,
        1e6,
        3e38,
        f32::INFINITY,
    ];

    #[test]
    fn scaled_numbers_fit_and_ordinary_ones_stay() {
        for largest in LARGEST {
            let scale = scale_of(largest);
            let within = largest <= F16_MAX;
            assert_eq!(scale == 1.0, within, "{largest}");
            assert_eq!(scale * inverse(scale), 1.0);
            if !within && largest.is_finite() {
                let scaled = largest / scale;
                assert!(
                    (16_384.0..32_768.0).contains(&scaled),
                    "{largest}: {scaled}"
                );
            }
        }
        assert_eq!(scale_of(f32::NAN), 1.0);
    }

    #[test]
    fn scales_reach_small_numbers() {
        for largest in [1e-20f32, 3e-7, 1e-3, 0.5] {
            let scale = scale_to_range(largest);
            assert!(
                (16_384.0..32_768.0).contains(&(largest / scale)),
                "{largest}"
            );
            assert_eq!(scale * inverse(scale), 1.0);
        }
        let subnormal = scale_to_range(1e-44);
        assert_eq!(subnormal * inverse(subnormal), 1.0);
    }

    #[test]
    fn scaled_products_fit() {
        for largest in [0.0, 1.0, 255.0] {
            assert_eq!(scale_of_products(largest), 1.0, "{largest}");
        }
        for largest in [255.5f32, 256.0, 300.0, 1e4, 1.8e19] {
            let scale = scale_of_products(largest);
            let product = f64::from(largest) * f64::from(largest) / f64::from(scale);
            assert!((1.0..=65_504.0).contains(&product), "{largest}: {product}");
            assert_eq!(scale * inverse(scale), 1.0);
        }
        for largest in [1e30, f32::INFINITY] {
            let scale = scale_of_products(largest);
            assert!(scale.is_finite() && f32::MAX / scale <= F16_MAX);
        }
        assert_eq!(scale_of_products(f32::NAN), 1.0);
    }

    #[test]
    fn saturated_numbers_are_finite_halves() {
        for (value, expected) in [
            (1.5, 1.5),
            (-65_504.0, -65_504.0),
            (65_505.0, 65_504.0),
            (-1e9, -65_504.0),
            (f32::INFINITY, 65_504.0),
            (f32::NEG_INFINITY, -65_504.0),
        ] {
            assert_eq!(saturate(value), expected);
        }
        assert!(saturate(f32::NAN).is_nan());
    }
}
