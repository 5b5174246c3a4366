//! The one-level types: a block is a unit; see [`crate::quant`] for the layouts.

use super::bytes::Bytes;
use super::{Quantized, QuantizedUnit, nibbles, shared_scale};
use crate::abi::WeightType;
use crate::prim::half::f16x2_to_f32;

/// Q4_0.
pub struct Q4_0;
/// Q4_1.
pub struct Q4_1;
/// Q5_0.
pub struct Q5_0;
/// Q5_1.
pub struct Q5_1;
/// Q8_0.
pub struct Q8_0;

impl Quantized for Q4_0 {
    const TYPE: WeightType = WeightType::Q4_0;
    const CENTER: u32 = 8;

    #[inline(always)]
    unsafe fn unit(block: Bytes, _: u32) -> QuantizedUnit {
        // SAFETY: the caller's.
        unsafe {
            let q = nibbles(block.add(2).words_unaligned());
            shared_scale(q, block.f16(), 0.0)
        }
    }
}

impl Quantized for Q4_1 {
    const TYPE: WeightType = WeightType::Q4_1;
    const MINIMUM: bool = true;

    #[inline(always)]
    unsafe fn unit(block: Bytes, _: u32) -> QuantizedUnit {
        // SAFETY: the caller's.
        unsafe {
            let [d, m] = f16x2_to_f32(block.word());
            shared_scale(nibbles(block.add(4).words()), d, -m)
        }
    }
}

impl Quantized for Q5_0 {
    const TYPE: WeightType = WeightType::Q5_0;
    const CENTER: u32 = 16;

    #[inline(always)]
    unsafe fn unit(block: Bytes, _: u32) -> QuantizedUnit {
        // SAFETY: the caller's.
        unsafe {
            let [fifth_bits, a, b, c, d] = block.add(2).words_unaligned();
            let q = add_fifth_bits(nibbles([a, b, c, d]), fifth_bits);
            shared_scale(q, block.f16(), 0.0)
        }
    }
}

impl Quantized for Q5_1 {
    const TYPE: WeightType = WeightType::Q5_1;
    const MINIMUM: bool = true;

    #[inline(always)]
    unsafe fn unit(block: Bytes, _: u32) -> QuantizedUnit {
        // SAFETY: the caller's.
        let [dm, fifth_bits, q @ ..]: [u32; 6] = unsafe { block.words() };
        let [d, m] = f16x2_to_f32(dm);
        shared_scale(add_fifth_bits(nibbles(q), fifth_bits), d, -m)
    }
}

impl Quantized for Q8_0 {
    const TYPE: WeightType = WeightType::Q8_0;
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn unit(block: Bytes, _: u32) -> QuantizedUnit {
        // SAFETY: the caller's.
        unsafe { shared_scale(block.add(2).words_unaligned(), block.f16(), 0.0) }
    }
}

/// Puts bit `j` of `bits` above the nibble of element `j`.
#[inline(always)]
fn add_fifth_bits(mut q: [u32; 8], bits: u32) -> [u32; 8] {
    let mut i = 0;
    while i < 8 {
        // The product has bit `k` of the four at places `k + 4`, `k + 11`, `k + 18` and `k + 25`; the
        // mask keeps bit 4 of byte `k`.
        let four = bits >> (4 * i) & 0xf;
        q[i] |= (four * 0x0204_0810) & 0x1010_1010;
        i += 1;
    }
    q
}
