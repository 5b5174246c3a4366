//! The tiles that a warp of a matrix-vector kernel multiplies, on their way to shared memory.

use core::marker::PhantomData;

use cuda_std::shared::Shared;

use super::matvec_rows::RowPairs;
use super::weights::Weights;
use super::weights::tile::Tile;
use crate::abi::{
    MatvecParams, matvec_slot_bytes, matvec_slots, matvec_tile_bytes, matvec_warp_bytes,
};
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
    lane: u32,
    slots: Shared<u32>,
    /// Bytes to the slots that are filled next. Because there is one pair of slots more than are under
    /// way, they are also the ones that are read next.
    slot: u32,
    share: Share,
    /// The pair and the tile that are copied next.
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
            lane,
            slots,
            slot: 0,
            share,
            pair: share.first_pair,
            tile: share.first_tile,
            rows: pairs.rows::<W>(pairs.place(share.first_pair)),
            weights: PhantomData,
        };
        // A loop that stays one: unrolled, it would be most of the kernel.
        let mut to_start = opaque(const { matvec_slots(W::TYPE) - 1 });
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
        match const { matvec_slots(W::TYPE) } {
            8 => wait_group::<6>(),
            7 => wait_group::<5>(),
            6 => wait_group::<4>(),
            5 => wait_group::<3>(),
            4 => wait_group::<2>(),
            _ => wait_group::<1>(),
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
        if self.pair < pairs.count() {
            let start = self.tile * const { matvec_tile_bytes(W::TYPE) };
            let bytes = W::TYPE.row_bytes(self.params.n_in) - start;
            let bytes = bytes.min(const { matvec_tile_bytes(W::TYPE) });
            let slot = self.slots.byte_add(self.slot);
            let [first, second] = self.rows.map(|row| row.wrapping_add(start as usize));
            // SAFETY: the tiles are in the rows, the rows in the matrices; the slots are free.
            unsafe {
                copy::<W>(slot, self.lane, first, bytes);
                let slot = slot.byte_add(const { matvec_slot_bytes(W::TYPE) });
                copy::<W>(slot, self.lane, second, bytes);
            }
            self.tile += self.share.tile_step;
            if self.tile >= self.share.tiles {
                self.tile = self.share.first_tile;
                self.pair += self.share.pair_step;
                self.rows = pairs.rows::<W>(pairs.place(self.pair));
            }
        }
        self.slot += const { 2 * matvec_slot_bytes(W::TYPE) };
        if self.slot == const { matvec_warp_bytes(W::TYPE) } {
            self.slot = 0;
        }
        commit();
    }

    /// This lane's units of the next tiles of both rows, tiles `tile` of rows that begin at addresses with
    /// these last four bits: its first one of both rows, and where it takes two and the row has it its second
    /// one.
    ///
    /// # Safety
    /// They have arrived, for all lanes; [`copy_next`](Self::copy_next) has been called since the last
    /// tiles; and the units are in the rows.
    #[inline(always)]
    pub unsafe fn units(
        &self,
        low_bits: [u32; 2],
        tile: u32,
        has_second: bool,
    ) -> [[W::Unit; 2]; 2] {
        // What follows from the lane's number and from where the ring lies is computed again for each tile: it
        // would take up registers that are scarce.
        let lane = opaque(self.lane);
        let slot = Shared::from_address(opaque(self.slots.byte_add(self.slot).address()));
        let next = slot.byte_add(const { matvec_slot_bytes(W::TYPE) });
        let start = tile * const { matvec_tile_bytes(W::TYPE) };
        let first = Tile::<W>::new(slot).bytes(low_bits[0] + start);
        let second = Tile::<W>::new(next).bytes(low_bits[1] + start);
        // SAFETY: the caller's.
        unsafe {
            if const { W::TYPE.matvec_tiles() == 1 } {
                let units = [W::unit(first, lane), W::unit(second, lane)];
                [units, units]
            } else {
                let [a, b] = W::two_units(first, lane, has_second);
                let [c, d] = W::two_units(second, lane, has_second);
                [[a, c], [b, d]]
            }
        }
    }
}

/// Starts copying the tiles that a warp takes of a row at a time.
///
/// # Safety
/// As for [`Tile::copy`].
#[inline(always)]
unsafe fn copy<W: Weights>(slot: Shared<u32>, lane: u32, start: *const u8, bytes: u32) {
    let tile = Tile::<W>::new(slot);
    // SAFETY: the caller's.
    unsafe {
        if const { W::TYPE.matvec_tiles() == 1 } {
            tile.copy(lane, start, bytes);
        } else {
            let rounds = const { matvec_slot_bytes(W::TYPE).div_ceil(16 * 32) };
            tile.copy_blocks(lane, 32, rounds, start, bytes);
        }
    }
}
