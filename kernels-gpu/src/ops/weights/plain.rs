//! The types without blocks.

use super::Weights;
use super::bytes::Bytes;
use crate::abi::WeightType;
use crate::prim::half::{bf16x2_to_f32, f16x2_to_f32};

/// F16.
pub struct F16Weights;
/// BF16.
pub struct Bf16Weights;
/// F32.
pub struct F32Weights;

impl Weights for F16Weights {
    const TYPE: WeightType = WeightType::F16;
    type Unit = [u32; 4];

    #[inline(always)]
    unsafe fn unit(tile: Bytes, lane: u32) -> [u32; 4] {
        // SAFETY: the caller's.
        unsafe { words16(tile.add(16 * lane)) }
    }

    #[inline(always)]
    unsafe fn two_units(tiles: Bytes, lane: u32, has_second: bool) -> [[u32; 4]; 2] {
        // SAFETY: the caller's.
        unsafe { two_units::<Self>(tiles, lane, has_second) }
    }

    #[inline(always)]
    fn number(lane: u32, which: u32) -> u32 {
        32 * which + lane
    }

    #[inline(always)]
    fn values(unit: &[u32; 4], _: usize) -> [f32; 8] {
        pairs(unit.map(f16x2_to_f32))
    }
}

impl Weights for Bf16Weights {
    const TYPE: WeightType = WeightType::BF16;
    type Unit = [u32; 4];

    #[inline(always)]
    unsafe fn unit(tile: Bytes, lane: u32) -> [u32; 4] {
        // SAFETY: the caller's.
        unsafe { words16(tile.add(16 * lane)) }
    }

    #[inline(always)]
    unsafe fn two_units(tiles: Bytes, lane: u32, has_second: bool) -> [[u32; 4]; 2] {
        // SAFETY: the caller's.
        unsafe { two_units::<Self>(tiles, lane, has_second) }
    }

    #[inline(always)]
    fn number(lane: u32, which: u32) -> u32 {
        32 * which + lane
    }

    #[inline(always)]
    fn values(unit: &[u32; 4], _: usize) -> [f32; 8] {
        pairs(unit.map(bf16x2_to_f32))
    }
}

impl Weights for F32Weights {
    const TYPE: WeightType = WeightType::F32;
    type Unit = [u32; 8];

    #[inline(always)]
    unsafe fn unit(tile: Bytes, lane: u32) -> [u32; 8] {
        let place = tile.add(32 * lane);
        // SAFETY: the caller's. A row of f32 begins at a multiple of 4.
        unsafe {
            if place.is_aligned() {
                place.words_aligned()
            } else {
                place.words()
            }
        }
    }

    #[inline(always)]
    unsafe fn two_units(tiles: Bytes, lane: u32, has_second: bool) -> [[u32; 8]; 2] {
        // SAFETY: the caller's.
        unsafe { two_units::<Self>(tiles, lane, has_second) }
    }

    #[inline(always)]
    fn number(lane: u32, which: u32) -> u32 {
        32 * which + lane
    }

    #[inline(always)]
    fn values(unit: &[u32; 8], _: usize) -> [f32; 8] {
        unit.map(f32::from_bits)
    }
}

/// The units of the same number in two tiles.
///
/// # Safety
/// As for [`Weights::two_units`].
#[inline(always)]
unsafe fn two_units<W: Weights>(tiles: Bytes, lane: u32, has_second: bool) -> [W::Unit; 2] {
    // SAFETY: the caller's.
    unsafe {
        let first = W::unit(tiles, lane);
        if !has_second {
            return [first; 2];
        }
        [
            first,
            W::unit(tiles.add(const { W::TYPE.tile_bytes() }), lane),
        ]
    }
}

/// Sixteen bytes at an even place; one load where the rows are aligned, as they nearly always are.
///
/// # Safety
/// As for [`Bytes::words_unaligned`].
#[inline(always)]
unsafe fn words16(place: Bytes) -> [u32; 4] {
    // SAFETY: the caller's.
    unsafe {
        if place.is_aligned() {
            place.words_aligned()
        } else {
            place.words_unaligned()
        }
    }
}

#[inline(always)]
fn pairs([a, b, c, d]: [[f32; 2]; 4]) -> [f32; 8] {
    [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]]
}
