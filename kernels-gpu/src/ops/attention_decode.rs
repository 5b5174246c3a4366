//! Attention of one new token of each sequence, from the raw products Q, K and V to the mixture of
//! values, in one launch.
//!
//! - Formula: `q = factor * rotate(norm(q))`, `k = rotate(norm(k))`, K and V into the cache, then
//!   `out = softmax(scale * q K^T) V` over at most `window` tokens up to the new one.
//! - Shapes: see [`AttentionDecodeParams`].
//! - Threads: the context's pages are spread evenly over the grid's x; what is not needed ends at
//!   once. Four warps of a block take a page together, 16 tokens each, for up to 8 heads that share a KV
//!   head, so that K and V are read once; the next four take the next page at the same time. The products run on the tensor cores, whose 16 rows are 8 heads
//!   twice: rounded to f16, and what the rounding lost, which makes them as exact as f32 at no cost.
//!   Fragments come straight from global memory, 16 bytes a lane: any order of a head's elements is
//!   good for a sum over them, if both factors have it. The block of the newest pages also does the
//!   new token's K and V. The last block to finish merges all results.
//! - Where the launch says that the new tokens' K and V are cached, rows may be positions of one sequence: they
//!   read what the step itself has written, and write nothing there.
//! - Launch: grid = [up to [`DECODE_MAX_SPLITS`](crate::abi::DECODE_MAX_SPLITS),
//!   [`decode_grid_y`](crate::abi::decode_grid_y), sequences], block = 128 or
//!   [`decode_threads`], [`decode_shared_bytes`](crate::abi::decode_shared_bytes) of dynamic shared memory. Buffers are
//!   aligned to 16 bytes.
//! - Moves: K and V of the visible tokens once (for each 8 heads of a group).

use core::f32::consts::LOG2_E;

use cuda_std::prelude::*;

use super::attention_context::{
    HEADS, Heads, Keys, PAGE_WARPS, Pages, Share, Values, WARP_TOKENS, load_keys, load_values,
};
use super::attention_merge::{Memory, Merge, finish};
use super::entry_points;
use super::head::{Head, Rotation, factor_at};
use crate::abi::{AttentionDecodeParams, PAGE_TOKENS, decode_threads};
use crate::prim::grid;
use crate::prim::half::{F16, f16x2_to_f32, f32_to_f16x2};
use crate::prim::integer::byte_permute;
use crate::prim::math::exp2_approx;
use crate::prim::mma::mma_f16;
use crate::prim::reduce::{lanes_max, lanes_sum, warp_sum};
use crate::prim::scale::saturate;

entry_points! {
    /// Heads of 32.
    ATTENTION_DECODE_32 = attention_decode_32(AttentionDecodeParams), max_threads = decode_threads(32)
        => attention_decode::<32>;
    /// Heads of 64.
    ATTENTION_DECODE_64 = attention_decode_64(AttentionDecodeParams), max_threads = decode_threads(64)
        => attention_decode::<64>;
    /// Heads of 80.
    ATTENTION_DECODE_80 = attention_decode_80(AttentionDecodeParams), max_threads = decode_threads(80)
        => attention_decode::<80>;
    /// Heads of 96.
    ATTENTION_DECODE_96 = attention_decode_96(AttentionDecodeParams), max_threads = decode_threads(96)
        => attention_decode::<96>;
    /// Heads of 128.
    ATTENTION_DECODE_128 = attention_decode_128(AttentionDecodeParams), max_threads = decode_threads(128)
        => attention_decode::<128>;
    /// Heads of 256.
    ATTENTION_DECODE_256 = attention_decode_256(AttentionDecodeParams), max_threads = decode_threads(256)
        => attention_decode::<256>;
}

/// A lane's results: 16x8 tiles.
type Mixture = [[f32; 4]; 32];

/// The body, for heads of `DIM` elements.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn attention_decode<const DIM: usize>(p: AttentionDecodeParams) {
    grid::launch_dependents();
    let heads = Heads::of_block(&p);
    let sequence = thread::block_idx_z();
    // Positions, pages and the tokens before this one were there before the step began: only what its
    // own kernels write has to be waited for.
    // SAFETY: the launch has a position for every sequence.
    let position = unsafe { *p.positions.ptr().add(sequence as usize) };
    let Some(share) = Share::of_block(&p, position) else {
        grid::wait();
        return;
    };

    let warps = thread::block_dim_x() / 32;
    let warp = thread::thread_idx_x() / 32;
    let page_step = warps / PAGE_WARPS;
    let mut page = share.first_page + warp / PAGE_WARPS;
    let head_elements = PAGE_TOKENS as usize * DIM;
    let pages = Pages::<DIM> {
        table: p
            .page_table
            .ptr()
            .wrapping_add(sequence as usize * p.max_pages as usize),
        first: p
            .kv
            .mut_ptr()
            .wrapping_add(heads.kv as usize * head_elements),
        stride: p.page_stride as usize,
        to_values: p.n_kv_heads as usize * head_elements,
        first_of_page: warp % PAGE_WARPS * WARP_TOKENS,
        share,
    };

    let memory = Memory::<DIM>::new(warps);
    let mut keys: Keys = [[[0; 4]; 8]; 2];
    let mut values: Values = [[[0; 4]; 4]; 4];
    let mut rows = Rows {
        max: f32::NEG_INFINITY,
        sum: 0.0,
        out: [[0.0; 4]; 32],
    };

    // SAFETY: addresses are of this sequence's pages and of this launch's heads; whole warps take
    // each branch; the barriers order the uses of shared memory.
    unsafe {
        if p.is_cached != 0 {
            // The kernel before this one has written some of the pages.
            grid::wait();
        }
        // The first page comes while the queries are computed and prepared.
        if pages.has_visible(page) && loads_ahead::<DIM>() {
            let tokens = pages.tokens(page);
            load_keys::<DIM>(&mut keys, tokens);
            load_values::<DIM>(&mut values, tokens);
        }
        prepare(&p, &memory, heads, &pages);
        // Publishes the queries and the new key and value.
        thread::sync_threads();

        if share.is_newest() {
            score_new(&memory, heads);
        }
        while page < share.end_page {
            let next = pages.has_visible(page + page_step) && loads_ahead::<DIM>();
            if pages.has_visible(page) {
                if !loads_ahead::<DIM>() {
                    load_keys::<DIM>(&mut keys, pages.tokens(page));
                }
                let scores = products::<DIM>(&keys, &memory);
                if next {
                    load_keys::<DIM>(&mut keys, pages.tokens(page + page_step));
                }
                let first = page * PAGE_TOKENS + pages.first_of_page;
                let (correction, weights) = rows.soften(scores, first, share);
                if !loads_ahead::<DIM>() {
                    load_values::<DIM>(&mut values, pages.tokens(page));
                }
                mix::<DIM>(&mut rows.out, correction, weights, &values);
            } else if next {
                load_keys::<DIM>(&mut keys, pages.tokens(page + page_step));
            }
            if next {
                load_values::<DIM>(&mut values, pages.tokens(page + page_step));
            }
            page += page_step;
        }

        // Warps behind the last page have nothing to merge.
        let page_warps = PAGE_WARPS * (share.end_page - share.first_page).max(1).min(page_step);
        if warp < page_warps {
            memory.store_warp(warp, rows.max, lanes_sum::<4>(rows.sum), &rows.out);
        }
        // Publishes the warps' results and the new token's scores.
        thread::sync_threads();
        finish(
            &p,
            Merge::<DIM> {
                memory,
                warps: page_warps,
                heads: heads.count,
                first_head: heads.first,
                sequence,
                block: share.block,
                blocks: share.blocks,
                is_newest: share.is_newest(),
            },
        );
    }
}

/// Waits for the step's own kernels; then the queries, ready for the products, to shared memory, and the new token's
/// key and value there and into the cache.
///
/// # Safety
/// The launch conditions in the module's header; all threads of the block come here.
#[inline(always)]
unsafe fn prepare<const DIM: usize>(
    p: &AttentionDecodeParams,
    memory: &Memory<DIM>,
    heads: Heads,
    pages: &Pages<DIM>,
) {
    let position = pages.share.position;
    let row = thread::block_idx_z() as usize;
    let lane = thread::thread_idx_x() % 32;
    let warps = thread::block_dim_x() / 32;
    let warp = thread::thread_idx_x() / 32;
    // SAFETY: addresses are of this sequence's pages and of this launch's heads; whole warps take each branch.
    unsafe {
        let rotation = Rotation::at(p.rope, position, p.pairs, p.pairing);
        let turns = rotation.load();
        let scale = p.scale * factor_at(p.q_factors, position);
        grid::wait();

        let head_of = |x: *const f32, norm: *const f32| Head {
            x,
            norm,
            dim: DIM as u32,
            epsilon: p.epsilon,
        };
        let query = |item: u32| {
            let head = heads.first + item.min(heads.count - 1);
            let at = row * p.q_stride as usize + head as usize * DIM;
            head_of(p.q.ptr().add(at), p.q_norm.ptr())
        };
        // The new token's key and value: by the two warps that have the fewest queries.
        let (key_warp, value_warp) = (warps - 2, warps - 1);
        let has_new = pages.share.is_newest() && warp >= key_warp;
        let (new, new_rotation, new_shared) = {
            let at = row * p.kv_stride as usize + heads.kv as usize * DIM;
            if warp == key_warp {
                let head = head_of(p.k.ptr().add(at), p.k_norm.ptr());
                (head, rotation, memory.new_key)
            } else {
                let head = head_of(p.v.ptr().add(at), core::ptr::null());
                (head, Rotation::NONE, memory.new_value)
            }
        };
        // All loads before the first use of one.
        let has_second = warp + warps < heads.count;
        let mut raw = [query(warp).load(rotation); 2];
        if has_second {
            raw[1] = query(warp + warps).load(rotation);
        }
        let new_raw = new.load(new_rotation);
        let mut i = 0;
        while i < 2 {
            let item = warp + warps * i as u32;
            if item < heads.count {
                query(item).for_each(raw[i], rotation, &turns, |i, x| {
                    memory.store_query(item, i, x * (scale * LOG2_E));
                });
            } else if item < HEADS {
                // Rows without a head take part in the products.
                let mut element = lane;
                while element < DIM as u32 {
                    memory.store_query(item, element, 0.0);
                    element += 32;
                }
            }
            i += 1;
        }
        if has_new {
            let page = pages.address(position / PAGE_TOKENS);
            let mut cached = page.add((position % PAGE_TOKENS) as usize * DIM);
            let mut new_turns = turns;
            if warp == value_warp {
                cached = cached.add(pages.to_values);
                new_turns = Rotation::UNTURNED;
            }
            new.for_each(new_raw, new_rotation, &new_turns, |i, x| {
                let rounded = F16::from_f32(saturate(x));
                new_shared.add(i).store(rounded.to_f32());
                if heads.first_of_group == 0 && p.is_cached == 0 {
                    *cached.add(i as usize) = rounded;
                }
            });
        }
    }
}

/// The new token's own scores, by a warp a head.
///
/// # Safety
/// Queries and the new key are published.
#[inline(always)]
unsafe fn score_new<const DIM: usize>(memory: &Memory<DIM>, heads: Heads) {
    let warps = thread::block_dim_x() / 32;
    let mut head = thread::thread_idx_x() / 32;
    while head < heads.count {
        // SAFETY: the caller's; a warp has the same head in all lanes.
        unsafe {
            let score = warp_sum(memory.new_score_part(head));
            if thread::thread_idx_x().is_multiple_of(32) {
                memory.new_scores.add(head).store(score);
            }
        }
        head += warps;
    }
}

/// What a lane keeps of its head's row.
struct Rows {
    /// The largest score so far.
    max: f32,
    /// This lane's part of the sum of the weights so far.
    sum: f32,
    /// The mixture of values so far.
    out: Mixture,
}

impl Rows {
    /// The weights of 16 tokens from `first` on by their `scores`, and what the mixture so far has to be multiplied by.
    ///
    /// # Safety
    /// The whole warp comes here.
    #[inline(always)]
    unsafe fn soften(&mut self, mut scores: [f32; 4], first: u32, share: Share) -> (f32, [f32; 4]) {
        let first = first + thread::thread_idx_x() % 32 % 4 * 2;
        let mut i = 0;
        while i < 4 {
            let token = first + (i / 2 * 8 + i % 2) as u32;
            if token < share.first_visible || token >= share.position {
                scores[i] = f32::NEG_INFINITY;
            }
            i += 1;
        }
        let largest = scores[0].max(scores[1]).max(scores[2].max(scores[3]));
        // The four lanes of a row agree on its maximum.
        // SAFETY: the caller's.
        let new_max = self.max.max(unsafe { lanes_max::<4>(largest) });
        let base = if new_max == f32::NEG_INFINITY {
            0.0
        } else {
            new_max
        };
        let correction = exp2_approx(self.max - base);
        let weights = scores.map(|score| exp2_approx(score - base));
        self.max = new_max;
        self.sum = self.sum.mul_add(
            correction,
            weights[0] + weights[1] + (weights[2] + weights[3]),
        );
        (correction, weights)
    }
}

/// Whether the next page comes while one is computed; the registers do not suffice for heads of 256.
#[inline(always)]
const fn loads_ahead<const DIM: usize>() -> bool {
    DIM <= 128
}

/// The scores of the lane's row against its tokens `2t, 2t + 1, 2t + 8, 2t + 9`.
///
/// # Safety
/// The whole warp comes here; the queries are published.
#[inline(always)]
unsafe fn products<const DIM: usize>(keys: &Keys, memory: &Memory<DIM>) -> [f32; 4] {
    let mut scores = [[0.0; 4]; 2];
    let mut step = 0;
    while step < DIM.div_ceil(32) {
        // SAFETY: the caller's.
        unsafe {
            let (high, low) = memory.load_queries(step as u32);
            let mut half = 0;
            while half < 2 {
                let k = keys[half][step];
                let d = &mut scores[half];
                mma_f16(d, [high[0], low[0], high[1], low[1]], [k[0], k[1]]);
                if 32 * step + 32 <= DIM {
                    mma_f16(d, [high[2], low[2], high[3], low[3]], [k[2], k[3]]);
                }
                half += 1;
            }
        }
        step += 1;
    }
    let [a, b] = scores;
    [a[0] + a[2], a[1] + a[3], b[0] + b[2], b[1] + b[3]]
}

/// `out = out * correction + weights * values`.
///
/// # Safety
/// The whole warp comes here.
#[inline(always)]
unsafe fn mix<const DIM: usize>(
    out: &mut Mixture,
    correction: f32,
    weights: [f32; 4],
    values: &Values,
) {
    let split = |a: f32, b: f32| {
        let high = f32_to_f16x2(a, b);
        let [high_a, high_b] = f16x2_to_f32(high);
        [high, f32_to_f16x2(a - high_a, b - high_b)]
    };
    let (near, far) = (split(weights[0], weights[1]), split(weights[2], weights[3]));
    let a = [near[0], near[1], far[0], far[1]];
    let mut tile = 0;
    while tile < DIM / 8 {
        let d = &mut out[tile];
        *d = d.map(|x| x * correction);
        let (v, word) = (&values[tile / 8], tile % 8 / 2);
        // A column's words hold the same element of two tokens.
        let select = if tile.is_multiple_of(2) {
            0x5410
        } else {
            0x7632
        };
        let b = [
            byte_permute(v[0][word], v[1][word], select),
            byte_permute(v[2][word], v[3][word], select),
        ];
        // SAFETY: the caller's.
        unsafe { mma_f16(d, a, b) };
        tile += 1;
    }
}
