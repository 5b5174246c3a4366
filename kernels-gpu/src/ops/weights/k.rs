//! The K types: eight units a block; see [`crate::quant`] for the layouts.

use super::bytes::Bytes;
use super::{Quantized, QuantizedUnit, byte_to_f32, shared_scale};
use crate::abi::WeightType;
use crate::prim::half::f16x2_to_f32;

/// Q2_K.
pub struct Q2K;
/// Q3_K.
pub struct Q3K;
/// Q4_K.
pub struct Q4K;
/// Q5_K.
pub struct Q5K;
/// Q6_K.
pub struct Q6K;

impl Quantized for Q2K {
    const TYPE: WeightType = WeightType::Q2K;
    const HALVES: bool = true;
    const MINIMUM: bool = true;

    #[inline(always)]
    unsafe fn unit(block: Bytes, index: u32) -> QuantizedUnit {
        // SAFETY: the caller's.
        let (packed, scales, d) = unsafe {
            (
                block.add(16 + index / 4 * 32).words::<8>(),
                block.add(2 * index).u16(),
                block.add(80).word(),
            )
        };
        let [d, dmin] = f16x2_to_f32(d);
        let nibble = |i: u32| (scales >> (4 * i) & 0xf) as f32;
        QuantizedUnit {
            q: packed.map(|word| word >> (index % 4 * 2) & 0x0303_0303),
            scale: [d * nibble(0), d * nibble(2)],
            minimum: [dmin * nibble(1), dmin * nibble(3)],
        }
    }
}

impl Quantized for Q3K {
    const TYPE: WeightType = WeightType::Q3K;
    const CENTER: u32 = 4;
    const HALVES: bool = true;

    #[inline(always)]
    unsafe fn unit(block: Bytes, index: u32) -> QuantizedUnit {
        // SAFETY: the caller's. The scales of a unit are neighbours in each of their two places.
        let (third_bits, low_bits, low_scales, high_scales, d) = unsafe {
            (
                block.words_unaligned::<8>(),
                block.add(32 + index / 4 * 32).words_unaligned::<8>(),
                block.add(96 + 2 * index % 8).u16() >> (index / 4 * 4),
                block.add(104 + 2 * index % 4).u16() >> (index / 2 * 2),
                block.add(108).f16(),
            )
        };
        let mut q = [0; 8];
        let mut i = 0;
        while i < 8 {
            q[i] = low_bits[i] >> (index % 4 * 2) & 0x0303_0303
                | (third_bits[i] >> index & 0x0101_0101) << 2;
            i += 1;
        }
        let scales = low_scales & 0x0f0f | (high_scales & 0x0303) << 4;
        let scale = |i: u32| d * ((scales >> (8 * i) & 0xff) as i32 - 32) as f32;
        QuantizedUnit {
            q,
            scale: [scale(0), scale(1)],
            minimum: [0.0; 2],
        }
    }
}

impl Quantized for Q4K {
    const TYPE: WeightType = WeightType::Q4K;
    const MINIMUM: bool = true;
    const DISTANCE: u32 = 1;

    #[inline(always)]
    unsafe fn two_units(block: Bytes, index: u32) -> [QuantizedUnit; 2] {
        // SAFETY: the caller's.
        let (header, words): ([u32; 4], [u32; 8]) = unsafe {
            let nibbles = block.add(16 + index / 2 * 32);
            (block.words_aligned(), nibbles.words_aligned())
        };
        let [(low_scale, low_minimum), (high_scale, high_minimum)] =
            two_scales_and_minimums(header, index);
        // High nibbles stay where they are, as sixteen times the integer.
        let low = words.map(|word| word & 0x0f0f_0f0f);
        let high = words.map(|word| word & 0xf0f0_f0f0);
        [
            shared_scale(low, low_scale, low_minimum),
            shared_scale(high, high_scale * (1.0 / 16.0), high_minimum),
        ]
    }

    #[inline(always)]
    unsafe fn unit(block: Bytes, index: u32) -> QuantizedUnit {
        // SAFETY: the caller's.
        unsafe {
            let (scale, minimum) = scale_and_minimum(block.words_aligned(), index);
            shared_scale(nibbles_of_group(block.add(16), index), scale, minimum)
        }
    }
}

impl Quantized for Q5K {
    const TYPE: WeightType = WeightType::Q5K;
    const MINIMUM: bool = true;
    const DISTANCE: u32 = 1;

    #[inline(always)]
    unsafe fn two_units(block: Bytes, index: u32) -> [QuantizedUnit; 2] {
        // SAFETY: the caller's.
        let (header, fifth_bits, words): ([u32; 4], [u32; 8], [u32; 8]) = unsafe {
            let nibbles = block.add(48 + index / 2 * 32);
            (
                block.words_aligned(),
                block.add(16).words_aligned(),
                nibbles.words_aligned(),
            )
        };
        let [(low_scale, low_minimum), (high_scale, high_minimum)] =
            two_scales_and_minimums(header, index);
        let (mut low, mut high) = ([0; 8], [0; 8]);
        let mut i = 0;
        while i < 8 {
            let fifth = fifth_bits[i] >> index;
            low[i] = words[i] & 0x0f0f_0f0f | (fifth & 0x0101_0101) << 4;
            high[i] = words[i] >> 4 & 0x0f0f_0f0f | (fifth & 0x0202_0202) << 3;
            i += 1;
        }
        [
            shared_scale(low, low_scale, low_minimum),
            shared_scale(high, high_scale, high_minimum),
        ]
    }

    #[inline(always)]
    unsafe fn unit(block: Bytes, index: u32) -> QuantizedUnit {
        // SAFETY: the caller's.
        unsafe {
            let (scale, minimum) = scale_and_minimum(block.words_aligned(), index);
            let fifth_bits: [u32; 8] = block.add(16).words_aligned();
            let mut q = nibbles_of_group(block.add(48), index);
            let mut i = 0;
            while i < 8 {
                q[i] |= (fifth_bits[i] >> index & 0x0101_0101) << 4;
                i += 1;
            }
            shared_scale(q, scale, minimum)
        }
    }
}

impl Quantized for Q6K {
    const TYPE: WeightType = WeightType::Q6K;
    const CENTER: u32 = 32;
    const HALVES: bool = true;
    const DISTANCE: u32 = 2;

    #[inline(always)]
    unsafe fn two_units(block: Bytes, index: u32) -> [QuantizedUnit; 2] {
        let (half, step) = (index / 4, index % 4);
        // SAFETY: the caller's.
        let (low_bits, high_bits, scales, d) = unsafe {
            (
                block.add(64 * half + 32 * step).words_unaligned::<8>(),
                block.add(128 + 32 * half).words_unaligned::<8>(),
                [
                    block.add(192 + 2 * index).u16(),
                    block.add(196 + 2 * index).u16(),
                ],
                block.add(208).f16(),
            )
        };
        let (mut low, mut high) = ([0; 8], [0; 8]);
        let mut i = 0;
        while i < 8 {
            let bits = high_bits[i] >> (2 * step);
            low[i] = low_bits[i] & 0x0f0f_0f0f | (bits & 0x0303_0303) << 4;
            high[i] = low_bits[i] >> 4 & 0x0f0f_0f0f | bits & 0x3030_3030;
            i += 1;
        }
        let unit = |q: [u32; 8], scales: u32| QuantizedUnit {
            q,
            scale: [
                d * (scales as u8 as i8) as f32,
                d * ((scales >> 8) as u8 as i8) as f32,
            ],
            minimum: [0.0; 2],
        };
        [unit(low, scales[0]), unit(high, scales[1])]
    }

    #[inline(always)]
    unsafe fn unit(block: Bytes, index: u32) -> QuantizedUnit {
        let (half, step) = (index / 4, index % 4);
        // SAFETY: the caller's.
        let (low_bits, high_bits, scales, d) = unsafe {
            (
                block
                    .add(64 * half + 32 * (step % 2))
                    .words_unaligned::<8>(),
                block.add(128 + 32 * half).words_unaligned::<8>(),
                block.add(192 + 2 * index).u16(),
                block.add(208).f16(),
            )
        };
        let mut q = [0; 8];
        let mut i = 0;
        while i < 8 {
            q[i] = low_bits[i] >> (step / 2 * 4) & 0x0f0f_0f0f
                | (high_bits[i] >> (step * 2) & 0x0303_0303) << 4;
            i += 1;
        }
        QuantizedUnit {
            q,
            scale: [
                d * (scales as u8 as i8) as f32,
                d * ((scales >> 8) as u8 as i8) as f32,
            ],
            minimum: [0.0; 2],
        }
    }
}

/// The 32 nibbles of group `index`, which shares its bytes with its neighbour.
///
/// # Safety
/// `nibbles` is 128 readable bytes at a multiple of 16.
#[inline(always)]
unsafe fn nibbles_of_group(nibbles: Bytes, index: u32) -> [u32; 8] {
    // SAFETY: the caller's.
    let words: [u32; 8] = unsafe { nibbles.add(index / 2 * 32).words_aligned() };
    words.map(|word| word >> (index % 2 * 4) & 0x0f0f_0f0f)
}

/// Scale and minimum of group `index` from the header of Q4_K and Q5_K.
#[inline(always)]
fn scale_and_minimum(header: [u32; 4], index: u32) -> (f32, f32) {
    let [d, dmin] = f16x2_to_f32(header[0]);
    let shift = index % 4 * 8;
    let (low, middle, high) = (header[1] >> shift, header[2] >> shift, header[3] >> shift);
    let (scale, minimum) = if index < 4 {
        (low & 0x3f, middle & 0x3f)
    } else {
        (
            high & 0xf | low >> 2 & 0x30,
            high >> 4 & 0xf | middle >> 2 & 0x30,
        )
    };
    (d * scale as f32, dmin * minimum as f32)
}

/// Scale and minimum of groups `index`, an even number, and `index + 1`, whose bits are neighbours in every
/// word of the header.
#[inline(always)]
fn two_scales_and_minimums(header: [u32; 4], index: u32) -> [(f32, f32); 2] {
    let [d, dmin] = f16x2_to_f32(header[0]);
    let shift = index % 4 * 8;
    let (low, middle, high) = (header[1] >> shift, header[2] >> shift, header[3] >> shift);
    let (scales, minimums) = if index < 4 {
        (low & 0x3f3f, middle & 0x3f3f)
    } else {
        (
            high & 0x0f0f | low >> 2 & 0x3030,
            high >> 4 & 0x0f0f | middle >> 2 & 0x3030,
        )
    };
    [0, 1].map(|i| {
        (
            d * byte_to_f32(scales, i, 0),
            dmin * byte_to_f32(minimums, i, 0),
        )
    })
}
