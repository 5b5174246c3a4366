//! A block's part of a context in decoding attention: its heads, its pages, and how lanes load their tokens' keys and
//! values.

use cuda_std::prelude::*;

use crate::abi::{AttentionDecodeParams, DECODE_HEADS, PAGE_TOKENS};
use crate::prim::half::F16;
use crate::prim::integer::{div, rem};
use crate::prim::load;

/// Warps that take a page together.
pub const PAGE_WARPS: u32 = 4;
/// Tokens of a page for each of them.
pub const WARP_TOKENS: u32 = PAGE_TOKENS / PAGE_WARPS;
/// Heads that a block has room for.
pub const HEADS: u32 = DECODE_HEADS;

/// A lane's part of 16 keys: `[keys 0 to 7, 8 to 15][32 elements of a head]`, the lane's key being
/// `lane / 4` and its elements the `lane % 4`-th eight of them. Arrays are sized for heads of 256.
pub type Keys = [[[u32; 4]; 8]; 2];
/// A lane's part of 16 values: `[64 elements of a head][key]`, keys `2t, 2t + 1, 2t + 8, 2t + 9` for
/// `t = lane % 4`, the elements being the `lane / 4`-th eight of them.
pub type Values = [[[u32; 4]; 4]; 4];

/// The tokens of a page that a warp reads.
#[derive(Clone, Copy)]
pub struct Tokens {
    /// K of the page's first token, of this block's KV head.
    pub keys: *const F16,
    /// V of the same.
    pub values: *const F16,
    /// First token of the warp, in the page.
    pub first: u32,
    /// The first token of the page that the new one sees: what lies before may be no numbers, of which 0 times
    /// one is not 0, so that it is read instead, and hidden.
    pub first_visible: u32,
    /// The last token of the page that is in the cache: what lies behind may never have been
    /// written; the same.
    pub last: u32,
}

/// The heads of a block.
#[derive(Clone, Copy)]
pub struct Heads {
    /// The KV head that they share.
    pub kv: u32,
    /// The first of them.
    pub first: u32,
    /// The same, counted from the KV head's first.
    pub first_of_group: u32,
    /// How many.
    pub count: u32,
}

impl Heads {
    #[inline(always)]
    pub fn of_block(p: &AttentionDecodeParams) -> Heads {
        let group = div(p.n_heads, p.n_kv_heads);
        let blocks = div(group + HEADS - 1, HEADS);
        let kv = div(thread::block_idx_y(), blocks);
        let first_of_group = rem(thread::block_idx_y(), blocks) * HEADS;
        Heads {
            kv,
            first: kv * group + first_of_group,
            first_of_group,
            count: (group - first_of_group).min(HEADS),
        }
    }
}

/// A block's share of a context: the tokens in the cache are those below `position`; their pages go to the blocks in
/// equal parts.
#[derive(Clone, Copy)]
pub struct Share {
    pub position: u32,
    pub first_visible: u32,
    pub first_page: u32,
    pub end_page: u32,
    pub block: u32,
    /// Blocks that have a share.
    pub blocks: u32,
}

impl Share {
    /// `None` for a block that is not needed.
    #[inline(always)]
    pub fn of_block(p: &AttentionDecodeParams, position: u32) -> Option<Share> {
        let first_visible = (position + 1).saturating_sub(p.window);
        let first_page = first_visible / PAGE_TOKENS;
        let has_cached = first_visible < position;
        let end_page = if has_cached {
            position.div_ceil(PAGE_TOKENS)
        } else {
            first_page
        };
        let pages = end_page.saturating_sub(first_page);
        let per_block = div(pages + thread::grid_dim_x() - 1, thread::grid_dim_x()).max(1);
        let blocks = div(pages + per_block - 1, per_block).max(1);
        let block = thread::block_idx_x();
        let first_page = first_page + block * per_block;
        (block < blocks).then_some(Share {
            position,
            first_visible,
            first_page,
            end_page: (first_page + per_block).min(end_page),
            block,
            blocks,
        })
    }

    /// Whether it is the one with the new token.
    #[inline(always)]
    pub fn is_newest(&self) -> bool {
        self.block == self.blocks - 1
    }
}

/// Where a warp finds its part of each page.
#[derive(Clone, Copy)]
pub struct Pages<const DIM: usize> {
    /// The sequence's row of the page table.
    pub table: *const u32,
    /// The cache's first page, of this block's KV head.
    pub first: *mut F16,
    /// Elements from page to page.
    pub stride: usize,
    /// Elements from a token's K to its V.
    pub to_values: usize,
    /// First of the warp's tokens in each page.
    pub first_of_page: u32,
    pub share: Share,
}

impl<const DIM: usize> Pages<DIM> {
    /// # Safety
    /// The page table has `page`.
    #[inline(always)]
    pub unsafe fn address(&self, page: u32) -> *mut F16 {
        // SAFETY: the caller's.
        unsafe {
            self.first
                .add(*self.table.add(page as usize) as usize * self.stride)
        }
    }

    /// # Safety
    /// The page table has `page`.
    #[inline(always)]
    pub unsafe fn tokens(&self, page: u32) -> Tokens {
        // SAFETY: the caller's.
        let keys: *const F16 = unsafe { self.address(page) };
        Tokens {
            keys,
            values: keys.wrapping_add(self.to_values),
            first: self.first_of_page,
            first_visible: self.share.first_visible.saturating_sub(page * PAGE_TOKENS),
            last: (self.share.position - page * PAGE_TOKENS).min(PAGE_TOKENS) - 1,
        }
    }

    /// Whether the new token sees any of the warp's in this page; the same for a warp's lanes.
    #[inline(always)]
    pub fn has_visible(&self, page: u32) -> bool {
        let first = page * PAGE_TOKENS + self.first_of_page;
        page < self.share.end_page
            && first < self.share.position
            && first + WARP_TOKENS > self.share.first_visible
    }
}

/// # Safety
/// The tokens are readable.
#[inline(always)]
pub unsafe fn load_keys<const DIM: usize>(keys: &mut Keys, tokens: Tokens) {
    let lane = thread::thread_idx_x() % 32;
    let mut half = 0;
    while half < 2 {
        let token = (tokens.first + 8 * half as u32 + lane / 4).min(tokens.last);
        let mut step = 0;
        while step < DIM.div_ceil(32) {
            // SAFETY: the elements are of the token's key.
            unsafe {
                let key = tokens.keys.add(token as usize * DIM + 32 * step);
                keys[half][step] = if 32 * step + 32 <= DIM {
                    load::global_v4(key.add(8 * (lane % 4) as usize).cast())
                } else {
                    let [a, b] = load::global_v2(key.add(4 * (lane % 4) as usize).cast());
                    [a, b, 0, 0]
                };
            }
            step += 1;
        }
        half += 1;
    }
}

/// # Safety
/// The tokens are readable.
#[inline(always)]
pub unsafe fn load_values<const DIM: usize>(values: &mut Values, tokens: Tokens) {
    let lane = thread::thread_idx_x() % 32;
    let mut i = 0;
    while i < 4 {
        let token = tokens.first + lane % 4 * 2 + (i / 2 * 8 + i % 2) as u32;
        let token = token.max(tokens.first_visible).min(tokens.last);
        let mut piece = 0;
        while piece < DIM.div_ceil(64) {
            // SAFETY: the elements are of the token's value.
            unsafe {
                let value = tokens.values.add(token as usize * DIM + 64 * piece);
                let g = (lane / 4) as usize;
                values[piece][i] = match DIM - 64 * piece {
                    16 => [*value.add(2 * g).cast::<u32>(), 0, 0, 0],
                    32 => {
                        let [a, b] = load::global_v2(value.add(4 * g).cast());
                        [a, b, 0, 0]
                    }
                    _ => load::global_v4(value.add(8 * g).cast()),
                };
            }
            piece += 1;
        }
        i += 1;
    }
}
