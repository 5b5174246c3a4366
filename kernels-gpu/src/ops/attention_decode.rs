//! Attention of one new token of each sequence, from the raw products Q, K and V to the mixture of
//! values, in one launch.
//!
//! - Formula: `q = rotate(norm(q))`, `k = rotate(norm(k))`, K and V into the cache, then
//!   `out = softmax(scale * q K^T) V` over at most `window` tokens up to the new one.
//! - Shapes: see [`AttentionDecodeParams`].
//! - Threads: the context's pages are spread evenly over the grid's x; what is not needed ends at
//!   once. Four warps of a block take a page together, 16 tokens each, for up to 8 heads that share a KV
//!   head, so that K and V are read once; the next four take the next page at the same time. The products run on the tensor cores, whose 16 rows are 8 heads
//!   twice: rounded to f16, and what the rounding lost, which makes them as exact as f32 at no cost.
//!   Fragments come straight from global memory, 16 bytes a lane: any order of a head's elements is
//!   good for a sum over them, if both factors have it. The block of the newest pages also does the
//!   new token's K and V. The last block to finish merges all results.
//! - Launch: grid = [up to [`DECODE_MAX_SPLITS`](crate::abi::DECODE_MAX_SPLITS),
//!   [`decode_grid_y`](crate::abi::decode_grid_y), sequences], block = 128 or
//!   [`decode_threads`], [`decode_shared_bytes`](crate::abi::decode_shared_bytes) of dynamic shared memory. Buffers are
//!   aligned to 16 bytes.
//! - Moves: K and V of the visible tokens once (for each 8 heads of a group).

use core::f32::consts::LOG2_E;

use cuda_std::prelude::*;

use super::attention_merge::{Memory, Merge, finish};
use super::entry_points;
use super::head::{Head, Rotation};
use crate::abi::{AttentionDecodeParams, DECODE_HEADS, PAGE_TOKENS, decode_threads};
use crate::prim::half::{F16, f16x2_to_f32, f32_to_f16x2};
use crate::prim::integer::{byte_permute, div, rem};
use crate::prim::math::exp2_approx;
use crate::prim::mma::mma_f16;
use crate::prim::reduce::{lanes_max, lanes_sum, warp_sum};
use crate::prim::scale::saturate;
use crate::prim::{grid, load};

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

const PAGE_WARPS: u32 = 4;
const WARP_TOKENS: u32 = PAGE_TOKENS / PAGE_WARPS;
const HEADS: u32 = DECODE_HEADS;

/// A lane's part of 16 keys: `[keys 0 to 7, 8 to 15][32 elements of a head]`, the lane's key being
/// `lane / 4` and its elements the `lane % 4`-th eight of them. Arrays are sized for heads of 256.
type Keys = [[[u32; 4]; 8]; 2];
/// A lane's part of 16 values: `[64 elements of a head][key]`, keys `2t, 2t + 1, 2t + 8, 2t + 9` for
/// `t = lane % 4`, the elements being the `lane / 4`-th eight of them.
type Values = [[[u32; 4]; 4]; 4];
/// A lane's results: 16x8 tiles.
type Mixture = [[f32; 4]; 32];

/// The tokens of a page that a warp reads.
#[derive(Clone, Copy)]
struct Tokens {
    /// K of the page's first token, of this block's KV head.
    keys: *const F16,
    /// V of the same.
    values: *const F16,
    /// First token of the warp, in the page.
    first: u32,
    /// The first token of the page that the new one sees: what lies before may be no numbers, of which 0 times
    /// one is not 0, so that it is read instead, and hidden.
    first_visible: u32,
    /// The last token of the page that is in the cache: what lies behind may never have been
    /// written; the same.
    last: u32,
}

/// The body, for heads of `DIM` elements.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn attention_decode<const DIM: usize>(p: AttentionDecodeParams) {
    grid::launch_dependents();
    let group = div(p.n_heads, p.n_kv_heads);
    let head_blocks = div(group + HEADS - 1, HEADS);
    let kv_head = div(thread::block_idx_y(), head_blocks);
    let first_of_group = rem(thread::block_idx_y(), head_blocks) * HEADS;
    let heads = (group - first_of_group).min(HEADS);
    let first_head = kv_head * group + first_of_group;
    let sequence = thread::block_idx_z();
    // Positions, pages and the tokens before this one were there before the step began: only what its
    // own kernels write has to be waited for.
    // SAFETY: the launch has a position for every sequence.
    let position = unsafe { *p.positions.ptr().add(sequence as usize) };

    // The tokens in the cache are those below `position`; pages go to the blocks in equal parts.
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
    if block >= blocks {
        grid::wait();
        return;
    }
    let is_newest = block == blocks - 1;
    let block_page = first_page + block * per_block;
    let end_page = (block_page + per_block).min(end_page);

    let warps = thread::block_dim_x() / 32;
    let warp = thread::thread_idx_x() / 32;
    let page_step = warps / PAGE_WARPS;
    let mut page = block_page + warp / PAGE_WARPS;
    let first_of_page = warp % PAGE_WARPS * WARP_TOKENS;
    let lane = thread::thread_idx_x() % 32;
    let head_elements = PAGE_TOKENS as usize * DIM;
    // SAFETY: the page table covers the position.
    let page_address = |page: u32| unsafe {
        let pages = p
            .page_table
            .ptr()
            .add(sequence as usize * p.max_pages as usize);
        let page = *pages.add(page as usize) as usize;
        p.kv.mut_ptr()
            .add(page * p.page_stride as usize + kv_head as usize * head_elements)
    };
    let tokens_of = |page: u32| {
        let keys: *const F16 = page_address(page);
        Tokens {
            keys,
            values: keys.wrapping_add(p.n_kv_heads as usize * head_elements),
            first: first_of_page,
            first_visible: first_visible.saturating_sub(page * PAGE_TOKENS),
            last: (position - page * PAGE_TOKENS).min(PAGE_TOKENS) - 1,
        }
    };
    // Whether the new token sees any of the warp's in this page; the same for a warp's lanes.
    let has_visible = |page: u32| {
        let first = page * PAGE_TOKENS + first_of_page;
        page < end_page && first < position && first + WARP_TOKENS > first_visible
    };

    let memory = Memory::<DIM>::new(warps);
    let mut keys: Keys = [[[0; 4]; 8]; 2];
    let mut values: Values = [[[0; 4]; 4]; 4];
    let mut out: Mixture = [[0.0; 4]; 32];
    let mut max = f32::NEG_INFINITY;
    let mut sum = 0.0;

    // SAFETY: addresses are of this sequence's pages and of this launch's heads; whole warps take
    // each branch; the barriers order the uses of shared memory.
    unsafe {
        // The first page comes while the queries are computed and prepared.
        if has_visible(page) && loads_ahead::<DIM>() {
            let tokens = tokens_of(page);
            load_keys::<DIM>(&mut keys, tokens);
            load_values::<DIM>(&mut values, tokens);
        }
        let rotation = Rotation::at(p.rope, position, p.pairs, p.pairing);
        let turns = rotation.load();
        grid::wait();

        let head_of = |x: *const f32, norm: *const f32| Head {
            x,
            norm,
            dim: DIM as u32,
            epsilon: p.epsilon,
        };
        let row = sequence as usize;
        let query = |item: u32| {
            let head = first_head + item.min(heads - 1);
            let at = row * p.q_stride as usize + head as usize * DIM;
            head_of(p.q.ptr().add(at), p.q_norm.ptr())
        };
        // The new token's key and value: by the two warps that have the fewest queries.
        let (key_warp, value_warp) = (warps - 2, warps - 1);
        let has_new = is_newest && warp >= key_warp;
        let (new, new_rotation, new_shared) = {
            let at = row * p.kv_stride as usize + kv_head as usize * DIM;
            if warp == key_warp {
                let head = head_of(p.k.ptr().add(at), p.k_norm.ptr());
                (head, rotation, memory.new_key)
            } else {
                let head = head_of(p.v.ptr().add(at), core::ptr::null());
                (head, Rotation::NONE, memory.new_value)
            }
        };
        // All loads before the first use of one.
        let has_second = warp + warps < heads;
        let mut raw = [query(warp).load(rotation); 2];
        if has_second {
            raw[1] = query(warp + warps).load(rotation);
        }
        let new_raw = new.load(new_rotation);
        let mut i = 0;
        while i < 2 {
            let item = warp + warps * i as u32;
            if item < heads {
                query(item).for_each(raw[i], rotation, &turns, |i, x| {
                    memory.store_query(item, i, x * (p.scale * LOG2_E));
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
            let page = page_address(position / PAGE_TOKENS);
            let mut cached = page.add((position % PAGE_TOKENS) as usize * DIM);
            let mut new_turns = turns;
            if warp == value_warp {
                cached = cached.add(p.n_kv_heads as usize * head_elements);
                new_turns = Rotation::UNTURNED;
            }
            new.for_each(new_raw, new_rotation, &new_turns, |i, x| {
                let rounded = F16::from_f32(saturate(x));
                new_shared.add(i).store(rounded.to_f32());
                if first_of_group == 0 {
                    *cached.add(i as usize) = rounded;
                }
            });
        }
        // Publishes the queries and the new key and value.
        thread::sync_threads();

        if is_newest {
            let mut head = warp;
            while head < heads {
                let score = warp_sum(memory.new_score_part(head));
                if lane == 0 {
                    memory.new_scores.add(head).store(score);
                }
                head += warps;
            }
        }

        while page < end_page {
            let next = has_visible(page + page_step) && loads_ahead::<DIM>();
            if has_visible(page) {
                if !loads_ahead::<DIM>() {
                    load_keys::<DIM>(&mut keys, tokens_of(page));
                }
                let mut scores = products::<DIM>(&keys, &memory);
                if next {
                    load_keys::<DIM>(&mut keys, tokens_of(page + page_step));
                }
                let first = page * PAGE_TOKENS + first_of_page + lane % 4 * 2;
                let mut i = 0;
                while i < 4 {
                    let token = first + (i / 2 * 8 + i % 2) as u32;
                    if token < first_visible || token >= position {
                        scores[i] = f32::NEG_INFINITY;
                    }
                    i += 1;
                }
                // The four lanes of a row agree on its maximum.
                let largest = scores[0].max(scores[1]).max(scores[2].max(scores[3]));
                let new_max = max.max(lanes_max::<4>(largest));
                let base = if new_max == f32::NEG_INFINITY {
                    0.0
                } else {
                    new_max
                };
                let correction = exp2_approx(max - base);
                let weights = scores.map(|score| exp2_approx(score - base));
                max = new_max;
                sum = sum.mul_add(
                    correction,
                    weights[0] + weights[1] + (weights[2] + weights[3]),
                );
                if !loads_ahead::<DIM>() {
                    load_values::<DIM>(&mut values, tokens_of(page));
                }
                mix::<DIM>(&mut out, correction, weights, &values);
            } else if next {
                load_keys::<DIM>(&mut keys, tokens_of(page + page_step));
            }
            if next {
                load_values::<DIM>(&mut values, tokens_of(page + page_step));
            }
            page += page_step;
        }

        // Warps behind the last page have nothing to merge.
        let page_warps = PAGE_WARPS * (end_page - block_page).max(1).min(page_step);
        if warp < page_warps {
            memory.store_warp(warp, max, lanes_sum::<4>(sum), &out);
        }
        // Publishes the warps' results and the new token's scores.
        thread::sync_threads();
        finish(
            &p,
            Merge::<DIM> {
                memory,
                warps: page_warps,
                heads,
                first_head,
                sequence,
                block,
                blocks,
                is_newest,
            },
        );
    }
}

/// Whether the next page comes while one is computed; the registers do not suffice for heads of 256.
#[inline(always)]
const fn loads_ahead<const DIM: usize>() -> bool {
    DIM <= 128
}

/// # Safety
/// The tokens are readable.
#[inline(always)]
unsafe fn load_keys<const DIM: usize>(keys: &mut Keys, tokens: Tokens) {
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
unsafe fn load_values<const DIM: usize>(values: &mut Values, tokens: Tokens) {
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
