//! Half-precision conversions that vectorize.
//!
//! The usual routines branch on subnormals or look for CPU features at each call, which keeps a
//! loop over them scalar.

/// The value of an IEEE half-precision number given by its bits. NaN stays NaN.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let sign = (bits & 0x8000) << 16;
    // Exponent and mantissa in a float's places are 2^112 too small (the exponents' biases are 15
    // and 127); the product is exact and makes subnormals normal.
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    // The largest finite half is 65504: what is above was infinite or NaN.
    let special = if magnitude >= 65536.0 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | sign)
}

/// The value of a bfloat16 number given by its bits.
#[inline(always)]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_has_its_value() {
        for bits in 0..=u16::MAX {
            let (got, want) = (f16_to_f32(bits), ::half::f16::from_bits(bits).to_f32());
            if want.is_nan() {
                assert!(got.is_nan(), "{bits:#06x}");
            } else {
                assert_eq!(got.to_bits(), want.to_bits(), "{bits:#06x}");
            }
            let (got, want) = (bf16_to_f32(bits), ::half::bf16::from_bits(bits).to_f32());
            assert!(got.to_bits() == want.to_bits() || want.is_nan() && got.is_nan());
        }
    }
}
