//! The stages of a matrix product: what a block multiplies at a time, on its way to shared memory.
//!
//! A stage is a range of columns. First come the block's vectors, cut into parts of
//! [`MATMUL_WARP_ELEMENTS`] elements, one for each of the warps that share rows, each
//! `[vectors][elements]`; then the block's rows of the matrix, each as its bytes lie in global memory.

use core::marker::PhantomData;

use cuda_std::atomic::atomic_fetch_max_relaxed_u32_device;
use cuda_std::shared::Shared;
use cuda_std::thread;

use super::weights::Weights;
use super::weights::bytes::Bytes;
use super::weights::tile::Tile;
use crate::abi::{
    MATMUL_MIN_K_GROUPS, MATMUL_TILE_VECTORS, MATMUL_WARP_ELEMENTS, MATMUL_WARP_ROWS, MatmulParams,
    MatvecSegment, WeightType, matmul_row_bytes, matmul_stage_elements, matmul_vector_bytes,
};
use crate::prim::async_copy::{commit, copy16_zero_fill, wait_group};
use crate::prim::integer::opaque;
use crate::prim::scale::FACTOR_MAX;

/// Elements of a 16-byte piece of a vector.
const PIECE: u32 = 8;
/// Pieces of a vector's part.
const PART_PIECES: u32 = MATMUL_WARP_ELEMENTS / PIECE;

/// A stage in shared memory.
pub type Slot = Shared<[u32; 4]>;

/// The stages of a block, for kernels of `TILES` tiles of vectors.
pub struct Stages<'a, W, const TILES: usize> {
    params: &'a MatmulParams,
    weights: PhantomData<W>,
}

impl<'a, W: Weights, const TILES: usize> Stages<'a, W, TILES> {
    /// From a tile of vectors to the next, in pieces.
    pub const TILE_STEP: u32 = MATMUL_TILE_VECTORS * PART_PIECES;
    /// Vectors of a block.
    const VECTORS: u32 = MATMUL_TILE_VECTORS * TILES as u32;

    /// The stages of this block.
    #[inline(always)]
    pub fn of_block(params: &'a MatmulParams) -> Self {
        Self {
            params,
            weights: PhantomData,
        }
    }

    // What follows from the block's number is found again for each stage: it would take up registers that are
    // scarce.

    /// The block's first vector.
    #[inline(always)]
    fn first_vector(&self) -> u32 {
        opaque(thread::block_idx_x()) * Self::VECTORS
    }

    /// The matrix of this block, and the block's first row there.
    #[inline(always)]
    fn segment(&self) -> (MatvecSegment, u32) {
        let p = self.params;
        let block = opaque(thread::block_idx_y());
        let [first, second] = p.block_ends;
        let (segment, before) = if block < first {
            (p.segments[0], 0)
        } else if block < second {
            (p.segments[1], first)
        } else {
            (p.segments[2], second)
        };
        (
            segment,
            (block - before) * (MATMUL_WARP_ROWS << p.row_groups_log2),
        )
    }

    /// Writes results of rows `row` and `row + 8` of the block with vector `vector` of the block and the
    /// next, as far as there are such.
    ///
    /// # Safety
    /// `y` and the bias are as the parameters say.
    #[inline(always)]
    pub unsafe fn store(&self, sums: [f32; 4], row: u32, vector: u32) {
        let p = self.params;
        let (segment, first_row) = self.segment();
        let (row, vector) = (first_row + row, self.first_vector() + vector);
        let is_inside = |i: usize| {
            row + 8 * (i as u32 / 2) < segment.n_out && vector + i as u32 % 2 < p.vectors
        };
        let first = vector as usize * segment.y_stride as usize + row as usize;
        let place = |i: usize| {
            let y = segment.y.mut_ptr();
            y.wrapping_add(first + i % 2 * segment.y_stride as usize + 8 * (i / 2))
        };
        // All loads before the first use of one: they are on their way together.
        let (mut before, mut scales, mut biases) = ([0.0; 4], [1.0; 2], [0.0; 2]);
        if p.accumulate != 0 {
            let mut i = 0;
            while i < 4 {
                if is_inside(i) {
                    // SAFETY: inside.
                    before[i] = unsafe { *place(i) };
                }
                i += 1;
            }
        }
        if !p.scales.is_null() {
            scales = [0, 1].map(|i| {
                let vector = (vector + i).min(p.vectors - 1);
                // SAFETY: the caller's; there is a scale for each vector.
                unsafe { *p.scales.ptr().add(vector as usize) }
            });
        }
        if !segment.bias.is_null() {
            biases = [0, 8].map(|i| {
                let row = (row + i).min(segment.n_out - 1);
                // SAFETY: the caller's; there is a bias for each row.
                unsafe { *segment.bias.ptr().add(row as usize) }
            });
        }
        let mut results = [0.0; 4];
        let mut i = 0;
        while i < 4 {
            results[i] = sums[i] * p.scale * scales[i % 2] + biases[i / 2];
            if is_inside(i) {
                // SAFETY: inside.
                unsafe { *place(i) = before[i] + results[i] };
            }
            i += 1;
        }
        if !p.maxima.is_null() {
            // SAFETY: the caller's.
            unsafe { self.note_maxima(results, vector) };
        }
    }

    /// Notes the largest magnitudes of the results of vector `vector` and the next, as far as there are such. Rows
    /// behind the last one are that one again.
    ///
    /// # Safety
    /// `maxima` are as the parameters say.
    #[inline(always)]
    unsafe fn note_maxima(&self, results: [f32; 4], vector: u32) {
        let bits = results.map(|result| result.to_bits() & 0x7fff_ffff);
        let largest = [bits[0].max(bits[2]), bits[1].max(bits[3])];
        if largest[0].max(largest[1]) <= const { FACTOR_MAX.to_bits() } {
            return;
        }
        let mut i = 0;
        while i < 2 {
            let vector = vector + i as u32;
            if largest[i] > const { FACTOR_MAX.to_bits() } && vector < self.params.vectors {
                let place = self.params.maxima.mut_ptr();
                // SAFETY: the caller's; there is a place for each vector.
                unsafe {
                    let place = place.add(vector as usize);
                    atomic_fetch_max_relaxed_u32_device(place, largest[i]);
                }
            }
            i += 1;
        }
    }

    /// How many there are.
    #[inline(always)]
    pub fn count(&self) -> u32 {
        let parts = self.params.n_in.div_ceil(MATMUL_WARP_ELEMENTS);
        let parts_of_stage = 1 << self.params.k_groups_log2;
        (parts + parts_of_stage - 1) >> self.params.k_groups_log2
    }

    /// Bytes of one in shared memory.
    #[inline(always)]
    pub fn bytes(&self) -> u32 {
        let rows = MATMUL_WARP_ROWS << self.params.row_groups_log2;
        self.vector_bytes() + rows * self.row_bytes()
    }

    /// Starts copying the rows of stage `stage`, if there is one.
    ///
    /// # Safety
    /// Nothing accesses the slot until the copies have been waited for.
    #[inline(always)]
    pub unsafe fn copy_rows(&self, stage: u32, slot: Slot) {
        if stage >= self.count() {
            return;
        }
        let p = self.params;
        // What follows from the thread's number is computed again for each stage: it would take up registers
        // that are scarce.
        let thread = opaque(thread::thread_idx_x());
        // Each row of the block has two threads for each warp that multiplies it.
        let lanes_log2 = 1 + p.k_groups_log2;
        let row = thread >> lanes_log2;
        let row_bytes = W::TYPE.row_bytes(p.n_in);
        let start = stage * W::TYPE.row_bytes(self.elements());
        let bytes = (row_bytes - start).min(W::TYPE.row_bytes(self.elements()));
        // Behind the last row that one again: what becomes of it is not stored.
        let (segment, first_row) = self.segment();
        let number = (first_row + row).min(segment.n_out - 1);
        let from = segment.weights.ptr();
        let from = from.wrapping_add(number as usize * row_bytes as usize + start as usize);
        // SAFETY: whole blocks of a row; the row's part of the slot has room for them.
        unsafe {
            let lanes = 1 << lanes_log2;
            let lane = thread & (lanes - 1);
            let rounds = const { copy_rounds(W::TYPE) };
            let tile = Tile::<W>::new(self.tile(slot, row));
            tile.copy_blocks(lane, lanes, rounds, from, bytes);
        }
    }

    /// Starts copying the vectors of stage `stage`, if there is one, and ends a group of copies, also if
    /// there is none. Elements behind the end of the vectors become zeros, and vectors behind the last one.
    ///
    /// # Safety
    /// As for [`copy_rows`](Self::copy_rows).
    #[inline(always)]
    pub unsafe fn copy_vectors(&self, stage: u32, slot: Slot) {
        let p = self.params;
        if stage < self.count() {
            // Again for each stage, as for the rows.
            let thread = opaque(thread::thread_idx_x());
            // A thread has the same piece of neighbouring vectors, an even number of them.
            let pieces_log2 = const { PART_PIECES.ilog2() } + p.k_groups_log2;
            let piece = thread & ((1 << pieces_log2) - 1);
            let count = (MATMUL_TILE_VECTORS * TILES as u32 / 2) >> p.row_groups_log2;
            let first = (thread >> pieces_log2) * count;
            let element = stage * self.elements() + piece * PIECE;
            let copy = |vector: u32, to: Slot| {
                let number = self.first_vector() + vector;
                // Not the last vector again instead: all blocks would read it so often that they wait for it.
                let bytes = if element < p.n_in && number < p.vectors {
                    16
                } else {
                    0
                };
                let from = p.x.ptr().wrapping_add((number * p.n_in + element) as usize);
                // SAFETY: eight elements at a multiple of 16 bytes, or nothing is read.
                unsafe { copy16_zero_fill(to, from.cast(), bytes) };
            };
            let even = Self::swizzled(piece % PART_PIECES, 0);
            let odd = Self::swizzled(piece % PART_PIECES, 1) + PART_PIECES;
            let mut to = Self::part(slot, piece / PART_PIECES).add(first * PART_PIECES);
            let mut vector = first;
            while vector < first + count {
                copy(vector, to.add(even));
                copy(vector + 1, to.add(odd));
                to = to.add(2 * PART_PIECES);
                vector += 2;
            }
        }
        commit();
    }

    /// Waits for this thread's copies of the next stage.
    #[inline(always)]
    pub fn wait(&self) {
        match self.params.stages {
            2 => wait_group::<0>(),
            3 => wait_group::<1>(),
            _ => wait_group::<2>(),
        }
    }

    /// Blocks of rows `row` and `row + 8` of the block in stage `stage`.
    #[inline(always)]
    pub fn rows(&self, stage: u32, slot: Slot, row: u32) -> [Bytes; 2] {
        let p = self.params;
        let first = self.tile(slot, row);
        let start = stage * W::TYPE.row_bytes(self.elements());
        let (segment, first_row) = self.segment();
        // Products may wrap around: only the last bits of the address count.
        let low_bits = |row: u32| {
            let number = (first_row + row).min(segment.n_out - 1);
            number
                .wrapping_mul(W::TYPE.row_bytes(p.n_in))
                .wrapping_add(start)
        };
        [
            Tile::<W>::new(first).bytes(low_bits(row)),
            Tile::<W>::new(first.byte_add(8 * self.row_bytes())).bytes(low_bits(row + 8)),
        ]
    }

    /// For a lane that multiplies with vector `vector` of each tile and unit `unit` of a part: where the
    /// vector's eighths of it lie in the first tile, the first of them to be exclusive-ored with the
    /// second.
    #[inline(always)]
    pub fn eighths(&self, slot: Slot, part: u32, vector: u32, unit: u32) -> (Slot, u32) {
        let place = Self::swizzled(4 * unit, vector);
        let first = Self::part(slot, part).add(vector * PART_PIECES + (place & !3));
        (first, place % 4)
    }

    #[inline(always)]
    fn elements(&self) -> u32 {
        matmul_stage_elements(1 << self.params.k_groups_log2)
    }

    #[inline(always)]
    fn vector_bytes(&self) -> u32 {
        matmul_vector_bytes(TILES as u32, 1 << self.params.k_groups_log2)
    }

    #[inline(always)]
    fn row_bytes(&self) -> u32 {
        matmul_row_bytes(W::TYPE, 1 << self.params.k_groups_log2)
    }

    #[inline(always)]
    fn tile(&self, slot: Slot, row: u32) -> Shared<u32> {
        let offset = self.vector_bytes() + row * self.row_bytes();
        slot.byte_add(offset).cast()
    }

    #[inline(always)]
    fn part(slot: Slot, part: u32) -> Slot {
        slot.byte_add(part * matmul_vector_bytes(TILES as u32, 1))
    }

    /// Where piece `piece` of a vector's part lies. Eight lanes load a piece at a time: the same eighth of
    /// the four units of two vectors, which are 64 bytes apart. The exclusive or puts them into the eight
    /// places of a 128-byte line.
    #[inline(always)]
    fn swizzled(piece: u32, vector: u32) -> u32 {
        piece ^ (piece / 4) ^ (vector % 2)
    }
}

/// Rounds in which a row's threads copy its part of a stage: the most, which the fewest threads take.
const fn copy_rounds(ty: WeightType) -> u32 {
    let pieces = ty.span_bytes(matmul_stage_elements(MATMUL_MIN_K_GROUPS)) / 16;
    pieces.div_ceil(2 * MATMUL_MIN_K_GROUPS)
}
