//! The rows that a warp of a matrix product in 8 bits multiplies, on their way to shared memory.

use core::hint::select_unpredictable;
use core::marker::PhantomData;

use cuda_std::shared::Shared;
use cuda_std::{thread, warp};

use super::matvec_rows::segment;
use super::weights::Weights;
use super::weights::bytes::Bytes;
use super::weights::tile::Tile;
use crate::abi::{
    MATMUL_Q8_ROWS, MATMUL_Q8_STEP, MATMUL_Q8_WARPS, MatmulQ8Params, MatvecSegment, WeightType,
    matmul_q8_row_bytes, matmul_q8_steps,
};
use crate::prim::async_copy::{commit, wait_group};
use crate::prim::integer::opaque;

/// The matrix of a tile of rows, and the tile's first row there.
#[inline(always)]
pub fn tile_rows(p: &MatmulQ8Params, tile: u32) -> (MatvecSegment, u32) {
    let [first, second, _] = p.tile_ends;
    let index = (tile >= first) as u32 + (tile >= second) as u32;
    let before = select_unpredictable(
        tile >= second,
        second,
        select_unpredictable(tile >= first, first, 0),
    );
    (
        segment(&p.segments, index),
        (tile - before) * MATMUL_Q8_ROWS,
    )
}

/// Which steps of which tiles of rows are this thread's warp's.
#[derive(Clone, Copy)]
pub struct Share {
    /// The group of warps with the same rows, and the warp's number there.
    pub row_group: u32,
    pub part: u32,
    /// The lane.
    pub lane: u32,
    /// The first tile of the block.
    pub first_of_block: u32,
    /// From tile to tile of a warp.
    pub tile_step: u32,
    /// From step to step of a warp.
    pub k_groups: u32,
}

impl Share {
    /// In kernels that are short of registers it is found again for each step: what follows from the thread's number would
    /// take them up.
    #[inline(always)]
    pub fn of_thread<W: Weights, const TILES: usize>(p: &MatmulQ8Params) -> Self {
        let thread = thread::thread_idx_x();
        let is_short = const { TILES > 2 || TILES == 2 && matches!(W::TYPE, WeightType::Q6K) };
        let thread = if is_short { opaque(thread) } else { thread };
        let k_groups = 1 << p.k_groups_log2;
        let row_groups = MATMUL_Q8_WARPS >> p.k_groups_log2;
        let warp = thread / 32;
        Self {
            row_group: warp >> p.k_groups_log2,
            part: warp & (k_groups - 1),
            lane: thread % 32,
            first_of_block: thread::block_idx_x() * row_groups,
            tile_step: thread::grid_dim_x() * row_groups,
            k_groups,
        }
    }
}

/// Two slots for steps of a tile's rows: one is multiplied while the other is filled.
pub struct RowSteps<'a, W, const TILES: usize> {
    params: &'a MatmulQ8Params,
    /// The slot that is filled next, which after the copy is the one that was filled before it.
    slot: Shared<u32>,
    /// From one slot to the other and back.
    other: u32,
    /// The tile that is copied next; its first row's blocks; the number of its last row there.
    tile: u32,
    first_row: *const u8,
    last: u32,
    /// The step that is copied next.
    step: u32,
    weights: PhantomData<W>,
}

impl<'a, W: Weights, const TILES: usize> RowSteps<'a, W, TILES> {
    /// Bytes of a slot.
    const SLOT: u32 = MATMUL_Q8_ROWS * matmul_q8_row_bytes(W::TYPE);
    /// Bytes of a row's step.
    const STEP: u32 = W::TYPE.row_bytes(MATMUL_Q8_STEP);
    /// Pieces of 16 bytes that a row's step is in, at most.
    const PIECES: u32 = W::TYPE.span_bytes(MATMUL_Q8_STEP) / 16;

    /// The slots of a warp, of [`matmul_q8_warp_bytes`](crate::abi::matmul_q8_warp_bytes) at a multiple of 16 bytes, and
    /// the first copy on its way.
    ///
    /// # Safety
    /// The matrices are as the parameters say; the memory is the warp's. All lanes call this and the other functions
    /// together.
    #[inline(always)]
    pub unsafe fn start(params: &'a MatmulQ8Params, slots: Shared<u32>) -> Self {
        const { assert!(!W::TYPE.is_aligned() || W::TYPE.block_elements() == MATMUL_Q8_STEP) };
        let share = Share::of_thread::<W, TILES>(params);
        let mut steps = Self {
            params,
            slot: slots,
            other: Self::SLOT,
            tile: share.first_of_block + share.row_group,
            first_row: core::ptr::null(),
            last: 0,
            step: share.part,
            weights: PhantomData,
        };
        steps.find_rows();
        // SAFETY: no slot is in use.
        unsafe { steps.copy_next() };
        steps
    }

    /// Waits for the next step and starts copying the one behind it. The slot of the step that has arrived.
    ///
    /// # Safety
    /// The lane has read the step that the last call gave.
    #[inline(always)]
    pub unsafe fn next(&mut self) -> Shared<u32> {
        wait_group::<0>();
        // SAFETY: the whole warp is here. The barrier publishes every lane's pieces of this step, and ends the
        // warp's reading of the one before, whose slot is used again.
        unsafe {
            warp::sync_warp(u32::MAX);
            self.copy_next();
        }
        self.slot
    }

    #[inline(always)]
    fn find_rows(&mut self) {
        let (segment, first) = tile_rows(self.params, self.tile);
        let offset = first as usize * W::TYPE.row_bytes(self.params.n_in) as usize;
        self.first_row = segment.weights.ptr().wrapping_add(offset);
        self.last = (segment.n_out - 1)
            .wrapping_sub(first)
            .min(MATMUL_Q8_ROWS - 1);
    }

    /// # Safety
    /// The warp has read what is in the slot.
    #[inline(always)]
    unsafe fn copy_next(&mut self) {
        let p = self.params;
        let steps = matmul_q8_steps(p.n_in);
        let share = Share::of_thread::<W, TILES>(p);
        if self.tile < p.tile_ends[2] && self.step < steps {
            let row_bytes = W::TYPE.row_bytes(p.n_in);
            let start = self.step * Self::STEP;
            let bytes = (row_bytes - start).min(Self::STEP);
            let from = self.first_row.wrapping_add(start as usize);
            let mut round = 0;
            while round < const { (MATMUL_Q8_ROWS * Self::PIECES).div_ceil(32) } {
                let place = share.lane + 32 * round;
                let (row, piece) = (place / Self::PIECES, place % Self::PIECES);
                if row < MATMUL_Q8_ROWS {
                    // Behind the last row that one again: what becomes of it is not stored. Sixteen rows are less than
                    // 4 GB.
                    let from = from.wrapping_add((row.min(self.last) * row_bytes) as usize);
                    let to = self.slot.byte_add(row * matmul_q8_row_bytes(W::TYPE));
                    // SAFETY: whole blocks of a row; the row's part of the slot has room for them, and for the zeros
                    // behind the last one.
                    unsafe { Tile::<W>::new(to).copy_filled(piece, from, bytes) };
                }
                round += 1;
            }
        }
        commit();
        self.step += share.k_groups;
        if self.step >= steps {
            self.step = share.part;
            self.tile += share.tile_step;
            self.find_rows();
        }
        self.slot = self.slot.byte_add(self.other);
        self.other = self.other.wrapping_neg();
    }
}

/// The last bits of the addresses where rows `g` and `g + 8` of a tile begin.
#[inline(always)]
pub fn row_starts<W: Weights>(p: &MatmulQ8Params, tile: u32, g: u32) -> [u32; 2] {
    let (segment, first_row) = tile_rows(p, tile);
    // Products may wrap around: only the last bits count.
    [g, g + 8].map(|row| {
        let number = (first_row + row).min(segment.n_out - 1);
        number.wrapping_mul(W::TYPE.row_bytes(p.n_in))
    })
}

/// Rows `g` and `g + 8` of step `step` of a tile, which lies in `slot`, the rows beginning at `starts`.
#[inline(always)]
pub fn two_rows<W: Weights>(slot: Shared<u32>, starts: [u32; 2], step: u32, g: u32) -> [Bytes; 2] {
    let row = |which: usize, row: u32| {
        let start = starts[which].wrapping_add(step * W::TYPE.row_bytes(MATMUL_Q8_STEP));
        Tile::<W>::new(slot.byte_add(row * matmul_q8_row_bytes(W::TYPE))).bytes(start)
    };
    [row(0, g), row(1, g + 8)]
}
