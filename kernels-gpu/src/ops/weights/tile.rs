//! Tiles: what a warp unpacks at a time, brought to shared memory by 16-byte copies whatever the
//! block size is.
//!
//! Block sizes such as 18 or 210 put most blocks at places from which the hardware cannot load 16 bytes.
//! So a tile is copied with the whole 16-byte pieces around it, and keeps its distance from a multiple
//! of 16.

use core::marker::PhantomData;

use cuda_std::shared::Shared;

use super::Weights;
use super::bytes::Bytes;
#[cfg(doc)]
use crate::abi::WeightType;
use crate::prim::async_copy::{copy16, copy16_zero_fill};

/// Bytes of a copy.
const PIECE: u32 = 16;

/// A tile's place in shared memory, of `slot_bytes` bytes.
pub struct Tile<W> {
    slot: Shared<u32>,
    weights: PhantomData<W>,
}

impl<W: Weights> Tile<W> {
    /// The tile at a multiple of 16 bytes.
    #[inline(always)]
    pub fn new(slot: Shared<u32>) -> Self {
        Self {
            slot,
            weights: PhantomData,
        }
    }

    /// Starts copying the tile, all lanes of a warp together. What lies behind its last byte, as far as
    /// unpacking may load it, becomes zeros; so an incomplete last unit ends in zeros.
    ///
    /// # Safety
    /// `bytes` readable bytes at `start`, at most a tile's, which nothing writes; the matrix is at a
    /// multiple of 16 bytes. Nothing accesses the slot until `commit` and `wait_group` of
    /// [`async_copy`](crate::prim::async_copy).
    #[inline(always)]
    pub unsafe fn copy(&self, lane: u32, start: *const u8, bytes: u32) {
        let span = Span::of::<W>(start, bytes);
        let mut offset = 0;
        while offset < const { W::TYPE.slot_bytes() / PIECE } {
            let piece = offset + lane;
            if piece < span.pieces {
                // SAFETY: the caller's.
                unsafe { self.copy_piece(&span, piece) };
            }
            offset += 32;
        }
    }

    /// [`copy`](Self::copy) of any number of blocks by `lanes` lanes, of which
    /// this is number `lane`, in at most `rounds` rounds.
    ///
    /// # Safety
    /// As for [`copy`](Self::copy); the slot has room for them, and the rounds suffice.
    #[inline(always)]
    pub unsafe fn copy_blocks(
        &self,
        lane: u32,
        lanes: u32,
        rounds: u32,
        start: *const u8,
        bytes: u32,
    ) {
        let span = Span::of::<W>(start, bytes);
        let mut round = 0;
        while round < rounds {
            let piece = lane + round * lanes;
            if piece < span.pieces {
                // SAFETY: the caller's.
                unsafe { self.copy_piece(&span, piece) };
            }
            round += 1;
        }
    }

    /// Starts copying piece `piece` of any number of blocks. What lies behind their last byte becomes zeros, also in
    /// pieces in which there is nothing else; types whose blocks are [aligned](WeightType::is_aligned) have none.
    ///
    /// # Safety
    /// As for [`copy`](Self::copy); the slot has room for the piece.
    #[inline(always)]
    pub unsafe fn copy_filled(&self, piece: u32, start: *const u8, bytes: u32) {
        let span = Span::of::<W>(start, bytes);
        // SAFETY: the caller's.
        unsafe { self.copy_piece(&span, piece) };
    }

    /// # Safety
    /// As for [`copy`](Self::copy).
    #[inline(always)]
    unsafe fn copy_piece(&self, span: &Span, piece: u32) {
        let from = span.first.wrapping_add((piece * PIECE) as usize);
        let from = from.cast::<u32>();
        let to = self.slot.byte_add(piece * PIECE);
        // SAFETY: the caller's; only bytes up to the end are read.
        unsafe {
            if W::TYPE.is_aligned() {
                copy16(to, from);
            } else {
                let inside = span.end.saturating_sub(piece * PIECE).min(PIECE);
                copy16_zero_fill(to, from, inside);
            }
        }
    }

    /// Where the tile's first byte is; `address` has the last four bits of its address in global memory.
    #[inline(always)]
    pub fn bytes(&self, address: u32) -> Bytes {
        Bytes::new(self.slot.byte_add(misalignment::<W>(address)))
    }
}

/// The pieces around some bytes in global memory.
struct Span {
    first: *const u8,
    pieces: u32,
    /// From `first` to the last of the bytes.
    end: u32,
}

impl Span {
    #[inline(always)]
    fn of<W: Weights>(start: *const u8, bytes: u32) -> Self {
        let misalignment = misalignment::<W>(start as usize as u32);
        let end = misalignment + bytes;
        let span = if W::TYPE.is_quantized() {
            end
        } else {
            misalignment + bytes.next_multiple_of(const { W::TYPE.unit() * W::TYPE.block_bytes() })
        };
        Self {
            first: start.wrapping_sub(misalignment as usize),
            pieces: (span + W::TYPE.over_read()).div_ceil(PIECE),
            end,
        }
    }
}

/// How far behind a multiple of 16 an address with these last bits is.
#[inline(always)]
fn misalignment<W: Weights>(address: u32) -> u32 {
    if W::TYPE.is_aligned() {
        0
    } else {
        address % PIECE
    }
}
