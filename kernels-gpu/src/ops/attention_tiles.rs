//! The tiles of [`attention_prefill`](super::attention_prefill) in shared memory: a block's queries, and a page's
//! keys or values.

use cuda_std::prelude::*;
use cuda_std::shared::Shared;

use crate::abi::{PAGE_TOKENS, PREFILL_THREADS};
use crate::prim::async_copy;
use crate::prim::half::{F16, add_zero_times};
use crate::prim::integer::opaque;

/// Threads of a block.
pub(super) const THREADS: u32 = PREFILL_THREADS;

/// A tile: rows of `CHUNKS` 16-byte chunks, and one more against bank conflicts.
#[derive(Clone, Copy)]
pub(super) struct Tile<const CHUNKS: usize>(Shared<[u32; 4]>);

impl<const CHUNKS: usize> Tile<CHUNKS> {
    /// Chunks from row to row.
    pub const STRIDE: u32 = CHUNKS as u32 + 1;

    /// The tile that begins at `start`.
    #[inline(always)]
    pub fn new(start: Shared<[u32; 4]>) -> Self {
        Self(start)
    }

    /// A chunk.
    #[inline(always)]
    pub fn at(self, row: u32, chunk: u32) -> Shared<[u32; 4]> {
        self.0.add(row * Self::STRIDE + chunk)
    }

    /// Starts copying a page's keys or values of a head; rows from `valid` on become zeros, because
    /// the page's rest may never have been written.
    ///
    /// # Safety
    /// `valid` rows at `from`; nothing accesses the tile until the copies have been waited for.
    #[inline(always)]
    pub unsafe fn load_page(self, from: *const F16, valid: u32) {
        let thread = thread::thread_idx_x();
        let mut i = 0;
        while i < PAGE_TOKENS * CHUNKS as u32 / THREADS {
            let index = i * THREADS + thread;
            let row = index / CHUNKS as u32;
            let bytes = if row < valid { 16 } else { 0 };
            // SAFETY: the chunk is in the page, and in the tile.
            unsafe {
                let to = self.at(row, index % CHUNKS as u32);
                let from = from.cast::<u32>().add(4 * index as usize);
                async_copy::copy16_zero_fill(to, from, bytes);
            }
            i += 1;
        }
    }

    /// Makes those of a page's chunks zeros in which something is not finite; gives whether this thread had such.
    ///
    /// # Safety
    /// All threads of the block come here; the page is published, and read only after another barrier.
    #[inline(always)]
    pub unsafe fn take_out_broken(self) -> bool {
        // Two threads a row. A loop, because registers are short.
        let half = CHUNKS as u32 / 2;
        let thread = thread::thread_idx_x();
        let mut chunk = self.at(thread / 2, thread % 2 * half);
        let mut found = false;
        let mut i = opaque(0);
        while i < half {
            // SAFETY: the caller's; the chunk is this thread's alone.
            unsafe {
                if add_zero_times_chunk(0, chunk.load()) != 0 {
                    chunk.store([0; 4]);
                    found = true;
                }
            }
            chunk = chunk.add(1);
            i += 1;
        }
        found
    }
}

/// [`add_zero_times`] of all pairs of a chunk.
#[inline(always)]
pub(super) fn add_zero_times_chunk(mut sum: u32, chunk: [u32; 4]) -> u32 {
    let mut i = 0;
    while i < 4 {
        sum = add_zero_times(sum, chunk[i]);
        i += 1;
    }
    sum
}
