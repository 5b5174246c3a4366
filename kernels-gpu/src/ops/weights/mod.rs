//! How the kernels read weights: one implementation of [`Quantized`] or [`Weights`] a tensor type.
//!
//! A warp takes a tile at a time, of which each lane unpacks one unit from shared memory; [`tile`]
//! brings it there. A unit of a quantized type is 32 neighbouring elements, which have the form
//! `scale * (q - CENTER) - minimum` with small integers `q` in every type.

pub mod bytes;
mod fragments;
mod iq4;
mod k;
mod legacy;
mod plain;
pub mod store;
pub mod tile;

pub use fragments::Fragments;
pub use iq4::*;
pub use k::*;
pub use legacy::*;
pub use plain::*;

use self::bytes::Bytes;
use crate::abi::WeightType;
use crate::prim::integer::byte_permute;
use crate::prim::math::fma;

/// A tensor type.
pub trait Weights {
    /// Its layout.
    const TYPE: WeightType;
    /// A unit in registers.
    type Unit: Copy;

    /// Reads a lane's unit of a tile.
    ///
    /// # Safety
    /// `tile` is a tile in shared memory as [`tile::Tile`] brings it; the unit is inside the row.
    unsafe fn unit(tile: Bytes, lane: u32) -> Self::Unit;

    /// Reads both of a lane's units of two neighbouring tiles, of the types for which
    /// [`matvec_tiles`](WeightType::matvec_tiles) is 2; or the first one twice if the row ends before the
    /// second, which `has_second` tells. Their numbers are [`number`](Self::number)'s.
    ///
    /// # Safety
    /// As for [`unit`](Self::unit).
    unsafe fn two_units(tiles: Bytes, lane: u32, has_second: bool) -> [Self::Unit; 2];

    /// The number in their tiles of the first or the second unit of a lane.
    fn number(lane: u32, which: u32) -> u32;

    /// Elements `8 * eighth ..` of a unit, exactly as ggml unpacks them.
    fn values(unit: &Self::Unit, eighth: usize) -> [f32; 8];
}

/// Thirty-two elements of a quantized type.
#[derive(Clone, Copy)]
pub struct QuantizedUnit {
    /// The integers in order, one a byte.
    pub q: [u32; 8],
    /// The scales of the two halves.
    pub scale: [f32; 2],
    /// The minimums of the two halves, subtracted.
    pub minimum: [f32; 2],
}

/// A quantized tensor type.
pub trait Quantized {
    /// Its layout.
    const TYPE: WeightType;
    /// Whether the integers are signed bytes; `CENTER` is 0 then.
    const SIGNED: bool = false;
    /// What is subtracted from the unsigned integers.
    const CENTER: u32 = 0;
    /// Whether the halves of a unit have scales of their own.
    const HALVES: bool = false;
    /// Whether there are minimums; they are 0 otherwise.
    const MINIMUM: bool = false;

    /// Reads unit `index` of a block.
    ///
    /// # Safety
    /// A whole block lies at `block` in shared memory, at the alignment that it has in a tensor at a
    /// multiple of 16, and is followed by a readable word.
    unsafe fn unit(block: Bytes, index: u32) -> QuantizedUnit;

    /// Units between two that share their bytes, and are loaded together where
    /// [`matvec_tiles`](WeightType::matvec_tiles) is 2.
    const DISTANCE: u32 = 0;

    /// Reads unit `index` of a block and the one [`DISTANCE`](Self::DISTANCE) behind it.
    ///
    /// # Safety
    /// As for [`unit`](Self::unit).
    #[inline(always)]
    unsafe fn two_units(block: Bytes, index: u32) -> [QuantizedUnit; 2] {
        // SAFETY: the caller's.
        unsafe {
            [
                Self::unit(block, index),
                Self::unit(block, index + Self::DISTANCE),
            ]
        }
    }
}

/// The first unit in its block of a lane that takes two, `distance` apart.
#[inline(always)]
fn first_of_two(lane: u32, distance: u32) -> u32 {
    let pair = lane % 4;
    pair % distance + pair / distance * 2 * distance
}

impl<Q: Quantized> Weights for Q {
    const TYPE: WeightType = Q::TYPE;
    type Unit = QuantizedUnit;

    #[inline(always)]
    unsafe fn unit(tile: Bytes, lane: u32) -> QuantizedUnit {
        let units = const { Q::TYPE.block_elements() / Q::TYPE.unit() };
        // SAFETY: the caller's.
        unsafe {
            <Q as Quantized>::unit(tile.add(lane / units * Q::TYPE.block_bytes()), lane % units)
        }
    }

    #[inline(always)]
    unsafe fn two_units(tiles: Bytes, lane: u32, _: bool) -> [QuantizedUnit; 2] {
        // Rows end with a block, in which both units are.
        let block = tiles.add(lane / 4 * Q::TYPE.block_bytes());
        // SAFETY: the caller's.
        unsafe { <Q as Quantized>::two_units(block, first_of_two(lane, Q::DISTANCE)) }
    }

    #[inline(always)]
    fn number(lane: u32, which: u32) -> u32 {
        if Q::TYPE.matvec_tiles() == 1 {
            lane
        } else {
            lane / 4 * 8 + first_of_two(lane, Q::DISTANCE) + which * Q::DISTANCE
        }
    }

    #[inline(always)]
    fn values(unit: &QuantizedUnit, eighth: usize) -> [f32; 8] {
        let (flip, center) = if Q::SIGNED {
            (0x8080_8080, 128)
        } else {
            (0, Q::CENTER)
        };
        let half = eighth / 2;
        let mut values = [0.0; 8];
        let mut i = 0;
        while i < 8 {
            let q = byte_to_f32(unit.q[2 * eighth + i / 4] ^ flip, i as u32 % 4, center);
            // Rounded as in ggml, which multiplies and then subtracts: where there is a minimum, the product
            // is exact (at most 5 bits times the 17 of a scale), so that it may be fused.
            values[i] = if Q::MINIMUM {
                fma(q, unit.scale[half], -unit.minimum[half])
            } else {
                q * unit.scale[half]
            };
            i += 1;
        }
        values
    }
}

/// Byte `index` of `word` minus `center`: the byte becomes the last bits of a float of 2^23, which
/// costs no conversion instruction (those run at a quarter of the rate).
#[inline(always)]
fn byte_to_f32(word: u32, index: u32, center: u32) -> f32 {
    const TWO_23: u32 = 0x4b00_0000;
    f32::from_bits(byte_permute(word, TWO_23, 0x7440 | index)) - (8_388_608 + center) as f32
}

/// `scale` and `minimum` of a type in which both halves share them.
#[inline(always)]
fn shared_scale(q: [u32; 8], scale: f32, minimum: f32) -> QuantizedUnit {
    QuantizedUnit {
        q,
        scale: [scale; 2],
        minimum: [minimum; 2],
    }
}

/// The nibbles of 16 bytes: all low ones, then all high ones.
#[inline(always)]
fn nibbles(words: [u32; 4]) -> [u32; 8] {
    let mut q = [0; 8];
    let mut i = 0;
    while i < 4 {
        q[i] = words[i] & 0x0f0f_0f0f;
        q[4 + i] = words[i] >> 4 & 0x0f0f_0f0f;
        i += 1;
    }
    q
}
