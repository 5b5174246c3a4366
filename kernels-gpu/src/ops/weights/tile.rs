//! Tiles: what a warp decodes at a time, brought to shared memory by 16-byte copies whatever the
//! block size is.
//!
//! Block sizes such as 18 or 210 put most blocks at places from which the hardware cannot load 16 bytes.
//! So a tile is copied with the whole 16-byte pieces around it, and keeps its distance from a multiple
//! of 16.

use core::marker::PhantomData;

use cuda_std::shared::Shared;

use super::Weights;
use super::bytes::Bytes;
use crate::prim::async_copy::{copy16, copy16_zero_fill};

/// Bytes of a copy.
const PIECE: u32 = 16;

/// The place of neighbouring tiles in shared memory, of `slot_bytes` bytes.
pub struct Tile<W> {
    slot: Shared<u32>,
    tiles: u32,
    weights: PhantomData<W>,
}

impl<W: Weights> Tile<W> {
    /// So many tiles, a constant, at a multiple of 16 bytes.
    #[inline(always)]
    pub fn new(slot: Shared<u32>, tiles: u32) -> Self {
        Self {
            slot,
            tiles,
            weights: PhantomData,
        }
    }

    /// Starts copying the tiles, all lanes of a warp together. What lies behind its last byte, as far as
    /// decoders may load it, becomes zeros; so an incomplete last unit ends in zeros.
    ///
    /// # Safety
    /// `bytes` readable bytes at `start`, at most the tiles', which nothing writes; the matrix is at a
    /// multiple of 16 bytes. Nothing accesses the slot until `commit` and `wait_group` of
    /// [`async_copy`](crate::prim::async_copy).
    #[inline(always)]
    pub unsafe fn copy(&self, lane: u32, start: *const u8, bytes: u32) {
        let misalignment = Self::misalignment(start as usize as u32);
        let first = start.wrapping_sub(misalignment as usize);
        let end = misalignment + bytes;
        let span = if W::TYPE.is_quantized() {
            end
        } else {
            misalignment + bytes.next_multiple_of(const { W::TYPE.unit() * W::TYPE.block_bytes() })
        };
        let pieces = (span + W::TYPE.over_read()).div_ceil(PIECE);

        let mut offset = 0;
        while offset < W::TYPE.slot_bytes(self.tiles) / PIECE {
            let piece = offset + lane;
            if piece < pieces {
                let from = first.wrapping_add((piece * PIECE) as usize).cast::<u32>();
                let to = self.slot.byte_add(piece * PIECE);
                // SAFETY: the caller's; only bytes up to the end are read.
                unsafe {
                    if W::TYPE.is_aligned() {
                        copy16(to, from);
                    } else {
                        let inside = end.saturating_sub(piece * PIECE).min(PIECE);
                        copy16_zero_fill(to, from, inside);
                    }
                }
            }
            offset += 32;
        }
    }

    /// Where the tile's first byte is; `address` has the last four bits of its address in global memory.
    #[inline(always)]
    pub fn bytes(&self, address: u32) -> Bytes {
        Bytes::new(self.slot.byte_add(Self::misalignment(address)))
    }

    #[inline(always)]
    fn misalignment(address: u32) -> u32 {
        if W::TYPE.is_aligned() {
            0
        } else {
            address % PIECE
        }
    }
}
