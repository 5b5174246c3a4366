//! The rows of a block of attention over tiles: where they lie, what they see, and their way in and out.

use cuda_std::prelude::*;

use super::attention_tiles::{THREADS, Tile, add_zero_times_chunk};
use crate::abi::{AttentionPrefillParams, PAGE_TOKENS};
use crate::prim::half::F16;
use crate::prim::integer::{div, opaque, rem};
use crate::prim::{async_copy, load};

/// Two f16 that are no numbers.
const NO_NUMBERS: u32 = 0x7fff_7fff;

/// The rows of a block, for heads of `8 * CHUNKS` elements. Row `r` of a KV head is head `r % group` of query `r / group`.
#[derive(Clone, Copy)]
pub struct BlockRows<const CHUNKS: usize> {
    n_heads: u32,
    group: u32,
    /// The sequence's first token in the launch.
    first_token: u32,
    first_row: u32,
    last_row: u32,
    /// Of the sequence's first token.
    first_position: u32,
    min_position: u32,
    /// Of the last row.
    pub max_position: u32,
    /// Keys that a row sees. At most 2^31, so that positions minus keys compare as unsigned numbers: a key ahead wraps to a
    /// large one.
    pub window: u32,
}

impl<const CHUNKS: usize> BlockRows<CHUNKS> {
    /// Those of this block, or none where its sequence has no more.
    ///
    /// # Safety
    /// Sequence `blockIdx.z` is one of the launch.
    #[inline(always)]
    pub unsafe fn of_block(p: &AttentionPrefillParams, tile_rows: u32) -> Option<Self> {
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
            n_heads: p.n_heads,
            group,
            first_token,
            first_row,
            last_row,
            first_position,
            min_position: first_position + div(first_row, group),
            max_position: first_position + div(last_row, group),
            window: p.window.min(1 << 31),
        })
    }

    /// The first page of which a row sees a key.
    #[inline(always)]
    pub fn first_page(&self) -> u32 {
        // Found again: kept, it would take up a register all the time.
        (opaque(self.min_position) + 1).saturating_sub(self.window) / PAGE_TOKENS
    }

    /// The last one.
    #[inline(always)]
    pub fn last_page(&self) -> u32 {
        self.max_position / PAGE_TOKENS
    }

    /// The position of a row, counted from the block's first. Found again where a page needs masking rather than kept:
    /// registers are short.
    #[inline(always)]
    pub fn position(&self, row: u32) -> u32 {
        self.first_position + div(self.first_row + row, self.group)
    }

    /// Whether all rows see the whole page whose first key is `first_key`.
    #[inline(always)]
    pub fn see_all_of(&self, first_key: u32) -> bool {
        first_key + PAGE_TOKENS - 1 <= self.min_position
            && self.max_position - first_key < self.window
    }

    /// The keys of this block's KV head in a page of its sequence.
    ///
    /// # Safety
    /// The launch's page table has the page.
    #[inline(always)]
    pub unsafe fn keys(&self, p: &AttentionPrefillParams, page: u32) -> *const F16 {
        let sequence = thread::block_idx_z() as usize;
        let head_elements = PAGE_TOKENS as usize * 8 * CHUNKS;
        // SAFETY: the caller's.
        unsafe {
            let pages = p.page_table.ptr().add(sequence * p.max_pages as usize);
            let page = *pages.add(page as usize) as usize;
            let head = thread::block_idx_y() as usize * head_elements;
            p.kv.ptr().add(page * p.page_stride as usize + head)
        }
    }

    /// Where row `row` of the sequence begins in `q` and `out`.
    #[inline(always)]
    fn offset(&self, row: u32) -> usize {
        let token = (self.first_token + div(row, self.group)) as usize;
        let head = (thread::block_idx_y() * self.group + rem(row, self.group)) as usize;
        (token * self.n_heads as usize + head) * 8 * CHUNKS
    }

    /// Starts copying the block's rows of queries; those that it lacks become zeros.
    ///
    /// # Safety
    /// `q` are the launch's; nobody accesses the tile until the copies have been waited for.
    #[inline(always)]
    pub unsafe fn load(&self, q: *const F16, queries: Tile<CHUNKS>, tile_rows: u32) {
        let mut i = 0;
        while i < tile_rows * CHUNKS as u32 / THREADS {
            let index = i * THREADS + thread::thread_idx_x();
            let (row, chunk) = (index / CHUNKS as u32, index % CHUNKS as u32);
            let number = self.first_row + row;
            let bytes = if number <= self.last_row { 16 } else { 0 };
            // SAFETY: the row is the launch's, and the place in the tile this thread's.
            unsafe {
                let from = q.add(self.offset(number.min(self.last_row)));
                let from = from.cast::<u32>().add(4 * chunk as usize);
                async_copy::copy16_zero_fill(queries.at(row, chunk), from, bytes);
            }
            i += 1;
        }
    }

    /// Makes results no numbers, in the tile, of those of the warp's rows that see a value that is not finite.
    ///
    /// # Safety
    /// The whole warp comes here; `values_offset` leads from a page's keys to its values.
    #[inline(always)]
    pub unsafe fn drop_those_with_broken<const ROW_TILES: usize>(
        &self,
        p: &AttentionPrefillParams,
        queries: Tile<CHUNKS>,
        warp_row: u32,
        values_offset: usize,
    ) {
        let row = warp_row + thread::thread_idx_x() % 32 % (16 * ROW_TILES as u32);
        let position = self.position(row);
        let mut sees_broken = false;
        let mut page = self.first_page();
        while page <= self.last_page() {
            let first = page * PAGE_TOKENS;
            // SAFETY: the page is one of those that the rows see.
            let broken = unsafe {
                let values = self.keys(p, page).add(values_offset);
                broken_tokens::<CHUNKS>(values, self.max_position - first)
            };
            sees_broken |= sees_any(broken, first, position, self.window);
            page += 1;
        }
        let mut chunk = opaque(0);
        while sees_broken && chunk < CHUNKS as u32 {
            // SAFETY: the row is this lane's, or the same for two lanes.
            unsafe { queries.at(row, chunk).store([NO_NUMBERS; 4]) };
            chunk += 1;
        }
    }

    /// Stores the warp's rows of the tile, as far as the sequence has them.
    ///
    /// # Safety
    /// The whole warp comes here, its rows are published; `out` is the launch's.
    #[inline(always)]
    pub unsafe fn store<const ROW_TILES: usize>(
        &self,
        out: *mut F16,
        queries: Tile<CHUNKS>,
        warp_row: u32,
    ) {
        let lane = thread::thread_idx_x() % 32;
        let mut i = 0;
        while i < (16 * ROW_TILES * CHUNKS) as u32 / 32 {
            let index = 32 * i + lane;
            let (row, chunk) = (warp_row + index / CHUNKS as u32, index % CHUNKS as u32);
            if self.first_row + row <= self.last_row {
                // SAFETY: the row is the launch's.
                unsafe {
                    let to = out.add(self.offset(self.first_row + row));
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
