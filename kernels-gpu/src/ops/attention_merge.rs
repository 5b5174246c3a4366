//! The end of [`attention_decode`](super::attention_decode): what its warps, and then its blocks, found
//! becomes one result. Also the block's shared memory.
//!
//! Each partial result is a mixture of values with weights `2^(score - max)`, not divided by their
//! sum; partial results are added after they have been brought to the largest `max` of all.

use cuda_std::prelude::*;
use cuda_std::shared::{self, Shared};

use crate::abi::{AttentionDecodeParams, DECODE_HEADS, decode_partial_floats, decode_query_stride};
use crate::prim::half::{Element, F16};
use crate::prim::math::{exp2_approx, recip_approx};
use crate::prim::reduce::{warp_max, warp_sum};
use crate::prim::scale::saturate;

const HEADS: u32 = DECODE_HEADS;

/// A block's shared memory.
#[derive(Clone, Copy)]
pub(super) struct Memory<const DIM: usize> {
    /// Bits of f16, `[rounded, what the rounding lost][head][element]`.
    queries: Shared<u16>,
    /// `[DIM]`, rounded as the cache holds it.
    pub new_key: Shared<f32>,
    /// As `new_key`.
    pub new_value: Shared<f32>,
    /// Of each head against the new key.
    pub new_scores: Shared<f32>,
    /// Largest score, `[warp][head]`.
    max: Shared<f32>,
    /// Sum of weights, `[warp][head]`.
    sum: Shared<f32>,
    /// Mixtures, `[warp][head][element]`; later the blocks' weights, `[head][block]`.
    mixtures: Shared<f32>,
    /// Whether the block is the last of its heads.
    is_last: Shared<u32>,
}

impl<const DIM: usize> Memory<DIM> {
    /// Elements from row to row of the queries.
    const STRIDE: u32 = decode_query_stride(DIM as u32) / 2;

    /// The dynamic shared memory of a block of `warps` warps, divided up.
    #[inline(always)]
    pub fn new(warps: u32) -> Self {
        let queries = shared::dynamic::<u16>();
        let new_key = queries.add(2 * HEADS * Self::STRIDE).cast::<f32>();
        let new_value = new_key.add(DIM as u32);
        let mixtures = new_value.add(DIM as u32);
        let new_scores = mixtures.add(warps * HEADS * DIM as u32);
        let max = new_scores.add(HEADS);
        let sum = max.add(warps * HEADS);
        Self {
            queries,
            new_key,
            new_value,
            new_scores,
            max,
            sum,
            mixtures,
            is_last: sum.add(warps * HEADS).cast(),
        }
    }

    /// # Safety
    /// Before the barrier that publishes the queries; each element by one thread.
    #[inline(always)]
    pub unsafe fn store_query(&self, head: u32, i: u32, x: f32) {
        let x = saturate(x);
        let high = F16::from_f32(x);
        let low = F16::from_f32(x - high.to_f32());
        let at = self.queries.add(head * Self::STRIDE + i);
        // SAFETY: the caller's.
        unsafe {
            at.store(high.0);
            at.add(HEADS * Self::STRIDE).store(low.0);
        }
    }

    /// The lane's part of 32 elements of its head: both roundings. Of the last 16 of heads that are
    /// no multiple of 32, two words each.
    ///
    /// # Safety
    /// After the barrier that publishes the queries.
    #[inline(always)]
    pub unsafe fn load_queries(&self, step: u32) -> ([u32; 4], [u32; 4]) {
        let lane = thread::thread_idx_x() % 32;
        let row = self.queries.add(lane / 4 * Self::STRIDE + 32 * step);
        let low = HEADS * Self::STRIDE;
        // SAFETY: the caller's; rows are aligned to 16 bytes.
        unsafe {
            if 32 * step + 32 <= DIM as u32 {
                let at = row.add(8 * (lane % 4));
                (at.cast().load(), at.add(low).cast().load())
            } else {
                let at = row.add(4 * (lane % 4));
                let [a, b]: [u32; 2] = at.cast().load();
                let [c, d]: [u32; 2] = at.add(low).cast().load();
                ([a, b, 0, 0], [c, d, 0, 0])
            }
        }
    }

    /// The lane's part of the score of `head` against the new key.
    ///
    /// # Safety
    /// After the barrier that publishes the queries and the new key.
    #[inline(always)]
    pub unsafe fn new_score_part(&self, head: u32) -> f32 {
        let mut part = 0.0f32;
        let mut i = thread::thread_idx_x() % 32;
        while i < DIM as u32 {
            let at = self.queries.add(head * Self::STRIDE + i);
            // SAFETY: the caller's.
            unsafe {
                let high = F16(at.load()).to_f32();
                let low = F16(at.add(HEADS * Self::STRIDE).load()).to_f32();
                part = (high + low).mul_add(self.new_key.add(i).load(), part);
            }
            i += 32;
        }
        part
    }

    /// # Safety
    /// Before the barrier that publishes the warps' results; the whole warp comes here.
    #[inline(always)]
    pub unsafe fn store_warp(&self, warp: u32, max: f32, sum: f32, out: &[[f32; 4]; 32]) {
        let lane = thread::thread_idx_x() % 32;
        let (g, t) = (lane / 4, lane % 4);
        let row = warp * HEADS + g;
        let mixture = self.mixtures.add(row * DIM as u32);
        let mut tile = 0;
        while tile < DIM / 8 {
            // Column `n` of a piece's `j`-th tile is its element `tiles * n + j`.
            let piece = tile / 8 * 8;
            let tiles = if DIM / 8 - piece < 8 {
                DIM / 8 - piece
            } else {
                8
            };
            let d = out[tile];
            let element = (8 * piece + tile - piece) as u32 + 2 * t * tiles as u32;
            // SAFETY: the caller's.
            unsafe {
                mixture.add(element).store(d[0] + d[2]);
                mixture.add(element + tiles as u32).store(d[1] + d[3]);
            }
            tile += 1;
        }
        if t == 0 {
            // SAFETY: the caller's.
            unsafe {
                self.max.add(row).store(max);
                self.sum.add(row).store(sum);
            }
        }
    }
}

/// What a block knows at the end.
pub(super) struct Merge<const DIM: usize> {
    /// Its shared memory, with the warps' results published.
    pub memory: Memory<DIM>,
    /// Warps with results, a multiple of four.
    pub warps: u32,
    /// Heads of the block.
    pub heads: u32,
    /// The first of them.
    pub first_head: u32,
    /// The sequence.
    pub sequence: u32,
    /// The block among those of its heads that have work.
    pub block: u32,
    /// How many have work.
    pub blocks: u32,
    /// Whether the new token is in this block.
    pub is_newest: bool,
}

/// Where the result of a block's heads goes.
#[derive(Clone, Copy)]
struct Out {
    /// The launch's result.
    start: *mut (),
    /// Element of it where the block's first head begins.
    first: usize,
    /// Whether its elements are f16, not f32.
    is_f16: bool,
}

impl Out {
    /// Stores four elements of the block's heads from `at` on.
    ///
    /// # Safety
    /// They are the block's, and nobody else's.
    #[inline(always)]
    unsafe fn store4(self, at: usize, values: [f32; 4]) {
        let at = self.first + at;
        // SAFETY: the caller's; rows are whole groups of four elements.
        unsafe {
            if self.is_f16 {
                F16::store4(self.start.cast::<F16>().add(at), values.map(saturate));
            } else {
                f32::store4(self.start.cast::<f32>().add(at), values);
            }
        }
    }
}

/// Merges the warps' results and stores them: as the result where the block is the only one,
/// otherwise for the last block, which merges all.
///
/// # Safety
/// All threads of the block come here; `merge` is of this launch.
#[inline(always)]
pub(super) unsafe fn finish<const DIM: usize>(p: &AttentionDecodeParams, merge: Merge<DIM>) {
    let thread = thread::thread_idx_x();
    let threads = thread::block_dim_x();
    let quads = DIM as u32 / 4;
    let memory = merge.memory;
    let grid_y = thread::grid_dim_y();
    // A block's partial result: mixtures `[head][element]`, then the heads' maxima, then the sums.
    let block_floats = HEADS as usize * (DIM + 2);
    let sequence_floats = decode_partial_floats(DIM as u32, thread::grid_dim_x(), grid_y) as usize;

    // SAFETY: partial results are in the launch's scratch memory; shared memory as the barriers say.
    unsafe {
        let partials = p.partial.mut_ptr().add(
            merge.sequence as usize * sequence_floats
                + thread::block_idx_y() as usize * thread::grid_dim_x() as usize * block_floats,
        );
        let partial = partials.add(merge.block as usize * block_floats);
        let row = merge.sequence as usize * p.n_heads as usize + merge.first_head as usize;
        let out = Out {
            start: p.out.mut_ptr(),
            first: row * DIM,
            is_f16: p.out_f16 != 0,
        };

        let mut i = thread;
        while i < merge.heads * quads {
            let (head, quad) = (i / quads, i % quads);
            let mut max = f32::NEG_INFINITY;
            if merge.is_newest {
                max = memory.new_scores.add(head).load();
            }
            for_each_warp(merge.warps, |warp| {
                max = max.max(memory.max.add(warp * HEADS + head).load());
            });
            // No token of the block is visible: its sum is 0 whatever it is relative to.
            let base = if max == f32::NEG_INFINITY { 0.0 } else { max };
            let (mut sum, mut mixture) = (0.0f32, [0.0f32; 4]);
            if merge.is_newest {
                let weight = exp2_approx(memory.new_scores.add(head).load() - base);
                let value: [f32; 4] = memory.new_value.add(4 * quad).cast().load();
                sum = weight;
                mixture = value.map(|v| v * weight);
            }
            for_each_warp(merge.warps, |warp| {
                let row = warp * HEADS + head;
                let weight = exp2_approx(memory.max.add(row).load() - base);
                let at = memory.mixtures.add(row * DIM as u32 + 4 * quad);
                sum = memory.sum.add(row).load().mul_add(weight, sum);
                mixture = add_scaled(mixture, at.cast().load(), weight);
            });
            let at = head as usize * DIM + 4 * quad as usize;
            if merge.blocks == 1 {
                // The likeliest token's weight is 1, so that the sum is an ordinary number.
                let factor = recip_approx(sum);
                out.store4(at, mixture.map(|x| x * factor));
            } else {
                f32::store4(partial.add(at), mixture);
                if quad == 0 {
                    let ends = partial.add(HEADS as usize * DIM + head as usize);
                    *ends = max;
                    *ends.add(HEADS as usize) = sum;
                }
            }
            i += threads;
        }
        if merge.blocks == 1 {
            return;
        }

        // All threads' partial results are written before one thread counts the block.
        thread::sync_threads();
        let counter = thread::block_idx_z() * grid_y + thread::block_idx_y();
        let arrived = p.arrived.mut_ptr().add(counter as usize);
        if thread == 0 {
            let before = cuda_std::atomic::atomic_fetch_add_acqrel_u32_device(arrived, 1);
            memory.is_last.store((before == merge.blocks - 1) as u32);
        }
        // Publishes whether the block is the last, and with it the other blocks' partial results;
        // all warps are past the mixtures, whose place the weights take.
        thread::sync_threads();
        if memory.is_last.load() == 0 {
            return;
        }
        if thread == 0 {
            *arrived = 0;
        }
        merge_blocks(partials, out, &merge);
    }
}

/// # Safety
/// As for [`finish`]; all partial results are visible.
#[inline(always)]
unsafe fn merge_blocks<const DIM: usize>(partials: *const f32, out: Out, merge: &Merge<DIM>) {
    let quads = DIM as u32 / 4;
    let weights = merge.memory.mixtures;
    let block_floats = HEADS as usize * (DIM + 2);
    let lane = thread::thread_idx_x() % 32;
    // SAFETY: the caller's; the barrier orders the weights.
    unsafe {
        // A warp computes a head's weights, a lane for each block.
        let mut head = thread::thread_idx_x() / 32;
        while head < merge.heads {
            let ends = |block: u32| {
                partials.add(block as usize * block_floats + HEADS as usize * DIM + head as usize)
            };
            let mut max = f32::NEG_INFINITY;
            let mut block = lane;
            while block < merge.blocks {
                max = max.max(*ends(block));
                block += 32;
            }
            let max = warp_max(max);
            let mut sum = 0.0f32;
            let mut block = lane;
            while block < merge.blocks {
                let weight = exp2_approx(*ends(block) - max);
                weights.add(head * merge.blocks + block).store(weight);
                sum = weight.mul_add(*ends(block).add(HEADS as usize), sum);
                block += 32;
            }
            let factor = 1.0 / warp_sum(sum);
            let mut block = lane;
            while block < merge.blocks {
                let weight = weights.add(head * merge.blocks + block);
                weight.store(weight.load() * factor);
                block += 32;
            }
            head += thread::block_dim_x() / 32;
        }
        // Publishes the weights.
        thread::sync_threads();
        let mut i = thread::thread_idx_x();
        while i < merge.heads * quads {
            let (head, quad) = (i / quads, i % quads);
            let at = head as usize * DIM + 4 * quad as usize;
            let mut mixture = [0.0f32; 4];
            let mut block = 0;
            while block < merge.blocks {
                let part = f32::load4(partials.add(block as usize * block_floats + at));
                let weight = weights.add(head * merge.blocks + block).load();
                mixture = add_scaled(mixture, part, weight);
                block += 1;
            }
            out.store4(at, mixture);
            i += thread::block_dim_x();
        }
    }
}

/// Calls `merge` for a multiple of four warps, four at a time, so that their loads are under way together.
#[inline(always)]
fn for_each_warp(warps: u32, mut merge: impl FnMut(u32)) {
    let mut warp = 0;
    while warp < warps {
        let mut i = 0;
        while i < 4 {
            merge(warp + i);
            i += 1;
        }
        warp += 4;
    }
}

#[inline(always)]
fn add_scaled(mut sum: [f32; 4], x: [f32; 4], factor: f32) -> [f32; 4] {
    let mut i = 0;
    while i < 4 {
        sum[i] = x[i].mul_add(factor, sum[i]);
        i += 1;
    }
    sum
}
