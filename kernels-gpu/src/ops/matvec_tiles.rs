//! The tiles that a warp of a matrix-vector kernel multiplies, on their way to shared memory.

use core::marker::PhantomData;

use cuda_std::shared::Shared;

use super::matvec_rows::RowPairs;
use super::weights::Weights;
use super::weights::bytes::Bytes;
use super::weights::tile::Tile;
use crate::abi::{MatvecParams, matvec_depth, matvec_warp_bytes};
use crate::prim::async_copy::{commit, wait_group};
use crate::prim::integer::opaque;

/// Which tiles of which pairs of rows are a warp's.
#[derive(Clone, Copy)]
pub struct Share {
    /// The first pair.
    pub first_pair: u32,
    /// From pair to pair.
    pub pair_step: u32,
    /// The first tile of a row.
    pub first_tile: u32,
    /// From tile to tile.
    pub tile_step: u32,
    /// Tiles of a row.
    pub tiles: u32,
}

/// A ring of slots for tiles of two rows.
pub struct Tiles<'a, W> {
    params: &'a MatvecParams,
    share: Share,
    lane: u32,
    slots: Shared<u32>,
    /// Bytes to the slots that are filled next. Because there is one pair of slots more than are under
    /// way, they are also the ones that are read next.
    slot: u32,
    /// The last four bits of the addresses of the tiles under way: a byte a pair of tiles, the last one
    /// in the highest byte.
    low_bits: u32,
    pair: u32,
    tile: u32,
    rows: [*const u8; 2],
    weights: PhantomData<W>,
}

impl<'a, W: Weights> Tiles<'a, W> {
    /// The ring of a warp, of `matvec_warp_bytes` at a multiple of 16 bytes, and the first copies on
    /// their way.
    ///
    /// # Safety
    /// The matrices are as the parameters say; the memory is the warp's. All lanes call this and the
    /// other functions together.
    #[inline(always)]
    pub unsafe fn start(
        params: &'a MatvecParams,
        share: Share,
        lane: u32,
        slots: Shared<u32>,
    ) -> Self {
        let pairs = RowPairs::of(params);
        let mut tiles = Self {
            params,
            share,
            lane,
            slots,
            slot: 0,
            low_bits: 0,
            pair: share.first_pair,
            tile: share.first_tile,
            rows: pairs.rows::<W>(pairs.place(share.first_pair)),
            weights: PhantomData,
        };
        // A loop that stays one: unrolled, it would be most of the kernel.
        let mut to_start = opaque(const { matvec_depth(W::TYPE) });
        while to_start > 0 {
            // SAFETY: no slot is in use.
            unsafe { tiles.copy_next() };
            to_start -= 1;
        }
        tiles
    }

    /// Waits until the next tiles are there, for this lane's copies.
    #[inline(always)]
    pub fn wait(&self) {
        if const { matvec_depth(W::TYPE) == 3 } {
            wait_group::<2>();
        } else {
            wait_group::<1>();
        }
    }

    /// Starts copying the tiles that follow those under way, and ends a group of copies also when
    /// there are none.
    ///
    /// # Safety
    /// The warp has read the tiles of the last call of [`units`](Self::units).
    #[inline(always)]
    pub unsafe fn copy_next(&mut self) {
        let pairs = RowPairs::of(self.params);
        let mut low_bits = 0;
        if self.pair < pairs.count() {
            let start = self.tile * const { W::TYPE.tile_bytes() };
            let bytes = W::TYPE.row_bytes(self.params.n_in) - start;
            let bytes = bytes.min(const { W::TYPE.tile_bytes() });
            let slot = self.slots.byte_add(self.slot);
            let [first, second] = self.rows.map(|row| row.wrapping_add(start as usize));
            low_bits = (first as usize as u32 % 16) | ((second as usize as u32 % 16) << 4);
            // SAFETY: the tiles are in the rows, the rows in the matrices; the slots are free.
            unsafe {
                Tile::<W>::new(slot).copy(self.lane, first, bytes);
                let slot = slot.byte_add(const { W::TYPE.slot_bytes() });
                Tile::<W>::new(slot).copy(self.lane, second, bytes);
            }
            self.tile += self.share.tile_step;
            if self.tile >= self.share.tiles {
                self.tile = self.share.first_tile;
                self.pair += self.share.pair_step;
                self.rows = pairs.rows::<W>(pairs.place(self.pair));
            }
        }
        self.low_bits = self.low_bits >> 8 | low_bits << 24;
        self.slot += const { 2 * W::TYPE.slot_bytes() };
        if self.slot == const { matvec_warp_bytes(W::TYPE) } {
            self.slot = 0;
        }
        commit();
    }

    /// This lane's units of the next tiles of both rows.
    ///
    /// # Safety
    /// They have arrived, for all lanes; [`copy_next`](Self::copy_next) has been called since the last
    /// tiles; and the units are in the rows.
    #[inline(always)]
    pub unsafe fn units(&self) -> [W::Unit; 2] {
        // What follows from the lane's number is computed again for each tile: it would take up registers
        // that are scarce.
        let lane = opaque(self.lane);
        // Those copied last are in the highest byte.
        let low_bits = self.low_bits >> const { 8 * (3 - matvec_depth(W::TYPE)) };
        // SAFETY: the caller's.
        unsafe {
            [
                W::unit(self.bytes(0, low_bits), lane),
                W::unit(self.bytes(1, low_bits >> 4), lane),
            ]
        }
    }

    #[inline(always)]
    fn bytes(&self, row: u32, low_bits: u32) -> Bytes {
        let slot = self.slots.byte_add(self.slot + row * W::TYPE.slot_bytes());
        Tile::<W>::new(slot).bytes(low_bits)
    }
}
