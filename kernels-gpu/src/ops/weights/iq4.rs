//! The 4-bit types with a code book; see [`crate::quant`] for the layouts.

use super::bytes::Bytes;
use super::{Quantized, QuantizedUnit, shared_scale};
use crate::abi::WeightType;
use crate::prim::half::F16;
use crate::prim::integer::byte_permute;

/// IQ4_NL.
pub struct Iq4Nl;
/// IQ4_XS.
pub struct Iq4Xs;
/// MXFP4.
pub struct Mxfp4;

/// The levels of IQ4_NL and IQ4_XS: -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69,
/// 89, 113.
const IQ4_LEVELS: [u32; 4] = [0xbfad_9881, 0xf6ea_ddcf, 0x2619_0d01, 0x7159_4535];

/// The numbers of E2M1, doubled: 0, 1, 2, 3, 4, 6, 8, 12 and their negatives.
const E2M1_DOUBLED: [u32; 4] = [0x0302_0100, 0x0c08_0604, 0xfdfe_ff00, 0xf4f8_fafc];

impl Quantized for Iq4Nl {
    const TYPE: WeightType = WeightType::IQ4NL;
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn unit(block: Bytes, _: u32) -> QuantizedUnit {
        // SAFETY: the caller's.
        unsafe {
            let q = look_up(IQ4_LEVELS, block.add(2).words_unaligned());
            shared_scale(q, block.f16(), 0.0)
        }
    }
}

impl Quantized for Iq4Xs {
    const TYPE: WeightType = WeightType::IQ4XS;
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn unit(block: Bytes, index: u32) -> QuantizedUnit {
        // SAFETY: the caller's.
        let ([header, low_scales], packed) =
            unsafe { (block.words(), block.add(8 + 16 * index).words()) };
        let scale = low_scales >> (4 * index) & 0xf | (header >> (16 + 2 * index) & 3) << 4;
        let d = F16(header as u16).to_f32();
        shared_scale(
            look_up(IQ4_LEVELS, packed),
            d * (scale as i32 - 32) as f32,
            0.0,
        )
    }
}

impl Quantized for Mxfp4 {
    const TYPE: WeightType = WeightType::MXFP4;
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn unit(block: Bytes, _: u32) -> QuantizedUnit {
        // SAFETY: the caller's.
        let (exponent, packed) = unsafe { (block.u8(), block.add(1).words_unaligned()) };
        // Half of 2^(e - 127), because the levels are doubled; subnormal for the smallest two.
        let half_scale = if exponent < 2 {
            0x0020_0000 << exponent
        } else {
            (exponent - 1) << 23
        };
        shared_scale(
            look_up(E2M1_DOUBLED, packed),
            f32::from_bits(half_scale),
            0.0,
        )
    }
}

/// The table's bytes for the nibbles of 16 bytes: all low ones, then all high ones.
#[inline(always)]
fn look_up(table: [u32; 4], words: [u32; 4]) -> [u32; 8] {
    let mut q = [0; 8];
    let mut i = 0;
    while i < 4 {
        let first = look_up_four(table, words[i]);
        let last = look_up_four(table, words[i] >> 16);
        // Each has low and high nibbles by turns.
        q[i] = byte_permute(first, last, 0x6420);
        q[4 + i] = byte_permute(first, last, 0x7531);
        i += 1;
    }
    q
}

/// The table's bytes for the four low nibbles of `indices`.
#[inline(always)]
fn look_up_four(table: [u32; 4], indices: u32) -> u32 {
    // Three bits of a nibble choose among eight bytes; the fourth chooses the half of the table.
    let three_bits = indices & 0x7777;
    let low = byte_permute(table[0], table[1], three_bits);
    let high = byte_permute(table[2], table[3], three_bits);
    byte_permute(low, high, 0x3210 | (indices & 0x8888) >> 1)
}
