//! Unpacked units on their way to global memory: through shared memory, so that neighbouring lanes write
//! neighbouring 16 bytes.

use cuda_std::shared::Shared;
use cuda_std::warp::sync_warp;

use super::Weights;
use crate::prim::half::{Element, F16, f32_to_f16x2};
use crate::prim::load::store_global_v4;

/// An element type that weights are unpacked to.
pub trait Unpacked: Element {
    /// 16-byte pieces that eight elements take up.
    const PIECES: u32;
    /// Eight elements as pieces, of which only the first [`PIECES`](Self::PIECES) count.
    fn pieces(values: [f32; 8]) -> [[u32; 4]; 2];
    /// Writes the element with these bits, the first ones of a word.
    ///
    /// # Safety
    /// One element is writable at `to`.
    unsafe fn write_bits(to: *mut Self, word: u32);
}

impl Unpacked for F16 {
    const PIECES: u32 = 1;

    #[inline(always)]
    fn pieces([a, b, c, d, e, f, g, h]: [f32; 8]) -> [[u32; 4]; 2] {
        let words = [
            f32_to_f16x2(a, b),
            f32_to_f16x2(c, d),
            f32_to_f16x2(e, f),
            f32_to_f16x2(g, h),
        ];
        [words, [0; 4]]
    }

    #[inline(always)]
    unsafe fn write_bits(to: *mut Self, word: u32) {
        // SAFETY: the caller's.
        unsafe { *to = F16(word as u16) };
    }
}

impl Unpacked for f32 {
    const PIECES: u32 = 2;

    #[inline(always)]
    fn pieces([a, b, c, d, e, f, g, h]: [f32; 8]) -> [[u32; 4]; 2] {
        [
            [a, b, c, d].map(f32::to_bits),
            [e, f, g, h].map(f32::to_bits),
        ]
    }

    #[inline(always)]
    unsafe fn write_bits(to: *mut Self, word: u32) {
        // SAFETY: the caller's.
        unsafe { *to = f32::from_bits(word) };
    }
}

/// Writes the first `count` elements of a tile, times `scale`, to `y`; all lanes of a warp together,
/// each with its unit, or none where the row has ended.
///
/// # Safety
/// `count` elements are writable at `y`. `scratch` is a tile of `Y` in shared memory at a multiple
/// of 16, which the warp has to itself, also for the last access before and the first after by a lane
/// of it.
#[inline(always)]
pub unsafe fn store_tile<W: Weights, Y: Unpacked>(
    unit: Option<W::Unit>,
    scale: f32,
    lane: u32,
    scratch: Shared<u32>,
    y: *mut Y,
    count: u32,
) {
    let eighths = W::TYPE.unit() / 8;
    let pieces = eighths * Y::PIECES;
    // Lanes write `pieces` pieces apart and read side by side: both without bank conflicts, because
    // the exclusive or spreads eight lanes' pieces over the eight places of a 128-byte line.
    let place = |piece: u32| scratch.byte_add(16 * (piece ^ piece >> 3 & (pieces - 1)));

    if let Some(unit) = unit {
        let mut eighth = 0;
        while eighth < eighths {
            let words = Y::pieces(W::values(&unit, eighth as usize).map(|value| value * scale));
            let mut i = 0;
            while i < Y::PIECES {
                let piece = lane * pieces + eighth * Y::PIECES + i;
                // SAFETY: inside the scratch.
                unsafe { place(piece).cast::<[u32; 4]>().store(words[i as usize]) };
                i += 1;
            }
            eighth += 1;
        }
    }
    // Publishes the lanes' elements to the warp.
    // SAFETY: the whole warp is here.
    unsafe { sync_warp(u32::MAX) };

    let in_piece = 16 / size_of::<Y>() as u32;
    let aligned = (y as usize).is_multiple_of(16);
    let mut i = 0;
    while i < pieces {
        let piece = 32 * i + lane;
        let first = piece * in_piece;
        // SAFETY: elements below `count` have been written to the scratch, and are writable in y.
        unsafe {
            let to = y.add(first as usize);
            if aligned && first + in_piece <= count {
                let words = place(piece).cast::<[u32; 4]>().load();
                store_global_v4(to.cast::<u32>(), words);
            } else {
                store_elements(place(piece), to, count.saturating_sub(first).min(in_piece));
            }
        }
        i += 1;
    }
    // The scratch is free again.
    // SAFETY: the whole warp is here.
    unsafe { sync_warp(u32::MAX) };
}

/// Writes the first `count` elements of a piece one by one.
///
/// # Safety
/// `count` elements are written at `from` and writable at `to`.
#[inline(always)]
unsafe fn store_elements<Y: Unpacked>(from: Shared<u32>, to: *mut Y, count: u32) {
    let mut i = 0;
    while i < count {
        let byte = i * size_of::<Y>() as u32;
        // SAFETY: the caller's.
        unsafe {
            let word = from.byte_add(byte / 4 * 4).load();
            Y::write_bits(to.add(i as usize), word >> (byte % 4 * 8));
        }
        i += 1;
    }
}
