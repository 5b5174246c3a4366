//! The rows of a block of prefill attention: which they are, the pages that they see, and their ways in and out.

use cuda_std::prelude::*;

use super::attention_tiles::{THREADS, Tile, add_zero_times_chunk};
use crate::abi::{AttentionPrefillParams, PAGE_TOKENS};
use crate::prim::half::F16;
use crate::prim::integer::{div, opaque, rem};
use crate::prim::{async_copy, load};

/// Two f16 that are no numbers.
const NO_NUMBERS: u32 = 0x7fff_7fff;
/// The rows of a block, a row being a head's query of a token, and the context that they see.
#[derive(Clone, Copy)]
pub struct Block<const CHUNKS: usize> {
    kv_head: u32,
    /// Heads that share it.
    group: u32,
    sequence: usize,
    /// The sequence's first token in the step.
    first_token: u32,
    /// The position of that.
    first_position: u32,
    /// The block's first row of the sequence.
    first_row: u32,
    /// Its last one.
    last_row: u32,
    /// The position of that.
    pub max_position: u32,
    pub window: u32,
    /// Elements from a page's K to its V.
    pub to_values: usize,
}

impl<const CHUNKS: usize> Block<CHUNKS> {
    const HEAD_DIM: usize = 8 * CHUNKS;
    const HEAD_ELEMENTS: usize = PAGE_TOKENS as usize * Self::HEAD_DIM;

    /// `None` for a block behind the sequence's rows.
    #[inline(always)]
    pub fn of_grid(p: &AttentionPrefillParams, tile_rows: u32) -> Option<Self> {
        let kv_head = thread::block_idx_y();
        let sequence = thread::block_idx_z() as usize;
        let group = div(p.n_heads, p.n_kv_heads);
        // Blocks start in order: the last tiles, which see the most keys, first.
        let first_row = (thread::grid_dim_x() - 1 - thread::block_idx_x()) * tile_rows;
        // SAFETY: entries `sequence` and the next exist.
        let (first_token, end_token, first_position) = unsafe {
            let starts = p.query_starts.ptr().add(sequence);
            (
                *starts,
                *starts.add(1),
                *p.first_positions.ptr().add(sequence),
            )
        };
        let rows = (end_token - first_token) * group;
        if first_row >= rows {
            return None;
        }
        let last_row = (first_row + tile_rows - 1).min(rows - 1);
        Some(Self {
            kv_head,
            group,
            sequence,
            first_token,
            first_position,
            first_row,
            last_row,
            max_position: first_position + div(last_row, group),
            // So that positions minus keys compare as unsigned numbers: a key ahead wraps to a large one.
            window: p.window.min(1 << 31),
            to_values: p.n_kv_heads as usize * Self::HEAD_ELEMENTS,
        })
    }

    /// The position of the block's row `row`.
    #[inline(always)]
    pub fn position(&self, row: u32) -> u32 {
        self.first_position + div(self.first_row + row, self.group)
    }

    /// The first page that a token at `position` sees.
    #[inline(always)]
    pub fn first_page(&self, position: u32) -> u32 {
        (position + 1).saturating_sub(self.window) / PAGE_TOKENS
    }

    /// Where the sequence's row `row` begins in `q` and `out`.
    #[inline(always)]
    pub fn offset(&self, p: &AttentionPrefillParams, row: u32) -> usize {
        let token = (self.first_token + div(row, self.group)) as usize;
        let head = (self.kv_head * self.group + rem(row, self.group)) as usize;
        (token * p.n_heads as usize + head) * Self::HEAD_DIM
    }

    /// The keys of a page.
    ///
    /// # Safety
    /// The page table has `page`.
    #[inline(always)]
    pub unsafe fn keys(&self, p: &AttentionPrefillParams, page: u32) -> *const F16 {
        // SAFETY: the caller's.
        unsafe {
            let pages = p.page_table.ptr().add(self.sequence * p.max_pages as usize);
            let page = *pages.add(page as usize) as usize;
            p.kv.ptr()
                .add(page * p.page_stride as usize + self.kv_head as usize * Self::HEAD_ELEMENTS)
        }
    }

    /// Sends the rows on their way to the queries' tile, zeros behind the last.
    ///
    /// # Safety
    /// All threads of the block come here, and nobody reads the tile.
    #[inline(always)]
    pub unsafe fn load_queries(
        &self,
        p: &AttentionPrefillParams,
        queries: Tile<CHUNKS>,
        tile_rows: u32,
    ) {
        let mut i = 0;
        while i < tile_rows * CHUNKS as u32 / THREADS {
            let index = i * THREADS + thread::thread_idx_x();
            let (row, chunk) = (index / CHUNKS as u32, index % CHUNKS as u32);
            let of_sequence = self.first_row + row;
            let bytes = if of_sequence <= self.last_row { 16 } else { 0 };
            // SAFETY: the row is one of the launch's.
            unsafe {
                let from =
                    p.q.ptr()
                        .add(self.offset(p, of_sequence.min(self.last_row)));
                let from = from.cast::<u32>().add(4 * chunk as usize);
                async_copy::copy16_zero_fill(queries.at(row, chunk), from, bytes);
            }
            i += 1;
        }
    }

    /// The block's row `row` has no result if it sees a value that is no number.
    ///
    /// # Safety
    /// The whole warp comes here, with a row for each lane; the tile is the warp's.
    #[inline(always)]
    pub unsafe fn break_rows(&self, p: &AttentionPrefillParams, queries: Tile<CHUNKS>, row: u32) {
        let position = self.position(row);
        let mut sees_broken = false;
        // Found again: kept, it would take up a register all the time.
        let mut page = self.first_page(opaque(self.position(0)));
        // SAFETY: the pages are the sequence's.
        unsafe {
            while page <= self.max_position / PAGE_TOKENS {
                let values = self.keys(p, page).add(self.to_values);
                let first = page * PAGE_TOKENS;
                let broken = broken_tokens::<CHUNKS>(values, self.max_position - first);
                sees_broken |= sees_any(broken, first, position, self.window);
                page += 1;
            }
            let mut chunk = opaque(0);
            while sees_broken && chunk < CHUNKS as u32 {
                queries.at(row, chunk).store([NO_NUMBERS; 4]);
                chunk += 1;
            }
        }
    }

    /// The results of the warp's rows, from the queries' tile to where they belong.
    ///
    /// # Safety
    /// The whole warp comes here; its rows are published to its lanes.
    #[inline(always)]
    pub unsafe fn store_rows<const ROW_TILES: usize>(
        &self,
        p: &AttentionPrefillParams,
        queries: Tile<CHUNKS>,
        warp_row: u32,
    ) {
        let lane = thread::thread_idx_x() % 32;
        let mut i = 0;
        while i < (16 * ROW_TILES * CHUNKS) as u32 / 32 {
            let index = 32 * i + lane;
            let (row, chunk) = (warp_row + index / CHUNKS as u32, index % CHUNKS as u32);
            if self.first_row + row <= self.last_row {
                // SAFETY: the row is one of the launch's.
                unsafe {
                    let to = p.out.mut_ptr().add(self.offset(p, self.first_row + row));
                    let to = to.cast::<u32>().add(4 * chunk as usize);
                    load::store_global_v4(to, queries.at(row, chunk).load());
                }
            }
            i += 1;
        }
    }
}

/// The tokens of a page with values of a head that are not finite, a bit each; those behind `last` count as it.
///
/// # Safety
/// The whole warp comes here; values up to those of `last` are readable.
#[inline(always)]
unsafe fn broken_tokens<const CHUNKS: usize>(values: *const F16, last: u32) -> u64 {
    let mut broken = 0;
    let mut half = 0;
    while half < 2 {
        let token = (32 * half + thread::thread_idx_x() % 32).min(last);
        let mut sum = 0;
        // A loop: this is rarely run.
        let mut chunk = opaque(0);
        while chunk < CHUNKS as u32 {
            // SAFETY: the caller's.
            unsafe {
                let at = values.add(8 * (token * CHUNKS as u32 + chunk) as usize);
                sum = add_zero_times_chunk(sum, load::global_v4(at.cast()));
            }
            chunk += 1;
        }
        // SAFETY: the caller's.
        let tokens = unsafe { warp::warp_vote_ballot(warp::FULL_MASK, sum != 0) };
        broken |= u64::from(tokens) << (32 * half);
        half += 1;
    }
    broken
}

/// Whether the row at `position` sees one of `tokens`, the page's first of which is token `first`.
#[inline(always)]
fn sees_any(tokens: u64, first: u32, position: u32, window: u32) -> bool {
    // The page's tokens before the one at `end`.
    let before = |end: u32| match end.saturating_sub(first) {
        count @ 0..PAGE_TOKENS => (1u64 << count) - 1,
        _ => u64::MAX,
    };
    let end = position + 1;
    tokens & before(end) & !before(end.saturating_sub(window)) != 0
}
