//! How a lane of a matrix-vector product reads and multiplies its part of a quantized block: one
//! implementation a tensor type.

use super::q8::Q8Slice;
use crate::prim::half::f16x2_to_f32;
use crate::prim::integer::dp4a_us;
use crate::prim::load::nc_stream_v4;
use crate::prim::math::fma;
use crate::quant::BlockQ4K;

/// A quantized block, taken apart by [`LANES`](Self::LANES) neighbouring lanes.
pub trait MatvecBlock {
    /// Elements of a block.
    const ELEMENTS: u32;
    /// Bytes of a block.
    const BYTES: u32;
    /// Lanes that share a block, each with its own part: a power of two up to 32.
    const LANES: u32;
    /// A part in registers.
    type Part: Copy;

    /// Reads part `part` of a block.
    ///
    /// # Safety
    /// A whole block is readable at `block`, aligned as the type's kernels require; nothing writes it
    /// while the kernel runs.
    unsafe fn load(block: *const u8, part: u32) -> Self::Part;

    /// The dot product of a part with the activations of its block, which begin at `x`.
    ///
    /// # Safety
    /// `x` has the block's elements, quantized and published by a barrier.
    unsafe fn dot(part: &Self::Part, index: u32, x: Q8Slice) -> f32;
}

/// Q4_K in eight parts, each 16 bytes of nibbles: 16 elements of one group of 32 and 16 of the next.
/// Blocks are 144 bytes, so that with an aligned matrix every load is 16 bytes.
pub struct Q4K;

impl MatvecBlock for Q4K {
    const ELEMENTS: u32 = 256;
    const BYTES: u32 = size_of::<BlockQ4K>() as u32;
    const LANES: u32 = 8;
    /// The header (d and dmin, scales and minimums) and the nibbles.
    type Part = [[u32; 4]; 2];

    #[inline(always)]
    unsafe fn load(block: *const u8, part: u32) -> Self::Part {
        let words = block.cast::<u32>();
        // SAFETY: the caller's; part is below 8, and the block has 36 words.
        unsafe {
            [
                nc_stream_v4(words),
                nc_stream_v4(words.add(4 + 4 * part as usize)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn dot([header, nibbles]: &Self::Part, index: u32, x: Q8Slice) -> f32 {
        let (pair, half) = (index / 2, index % 2);
        let [d, dmin] = f16x2_to_f32(header[0]);

        // The 6-bit scales and minimums of groups 2 * pair and 2 * pair + 1, in two bytes each.
        let shift = pair % 2 * 16;
        let (low, middle, high) = (header[1] >> shift, header[2] >> shift, header[3] >> shift);
        let (scales, mins) = if pair < 2 {
            (low & 0x3f3f, middle & 0x3f3f)
        } else {
            (
                high & 0x0f0f | low >> 2 & 0x3030,
                high >> 4 & 0x0f0f | middle >> 2 & 0x3030,
            )
        };

        let first = 64 * pair + 16 * half;
        let second = first + 32;
        // SAFETY: both are inside the block.
        let (x0, x1) = unsafe { (x.values16(first), x.values16(second)) };
        let (mut dot0, mut dot1) = (0, 0);
        let mut i = 0;
        while i < 4 {
            dot0 = dp4a_us(nibbles[i] & 0x0f0f_0f0f, x0[i], dot0);
            dot1 = dp4a_us(nibbles[i] >> 4 & 0x0f0f_0f0f, x1[i], dot1);
            i += 1;
        }

        // SAFETY: both are inside the block.
        let (d0, d1, sum0, sum1) = unsafe {
            (
                x.scale(first),
                x.scale(second),
                x.sum16(first),
                x.sum16(second),
            )
        };
        let byte = |word: u32, index: u32| (word >> (8 * index) & 0xff) as f32;
        let dots = fma(
            byte(scales, 0) * d0,
            dot0 as f32,
            byte(scales, 1) * d1 * dot1 as f32,
        );
        let minimums = fma(byte(mins, 0), sum0, byte(mins, 1) * sum1);
        fma(d, dots, -(dmin * minimums))
    }
}
