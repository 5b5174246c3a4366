//! From the raw products Q, K and V of many tokens to attention's inputs, in one pass.
//!
//! - Formula: `q = factor * rotate(norm(q))`, `k` without the factor; factor, norm and rotation each where given. A pair `(a, b)` turns to `(a cos - b sin, a sin + b cos)`.
//! - Shapes: see [`RopeKvParams`]; q goes to f16 rows, K and V into the paged cache.
//! - Threads: a warp for each head of a token, Q's heads first, then K's, then V's.
//! - Launch: grid = [tokens, ceil((n_heads + 2 n_kv_heads) / [`ROPE_HEADS`])], block = [`ROPE_THREADS`].
//! - Moves: q, k and v once, half of that out.

use cuda_std::prelude::*;

use super::entry_points;
use super::head::{Head, Rotation, factor_at};
use crate::abi::{PAGE_TOKENS, ROPE_HEADS, ROPE_THREADS, RopeKvParams};
use crate::prim::grid;
use crate::prim::half::F16;
use crate::prim::scale::saturate;

entry_points! {
    /// Heads of up to 256 elements, an even number.
    ROPE_KV = rope_kv(RopeKvParams), max_threads = ROPE_THREADS => rotate_and_cache;
}

/// The body.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn rotate_and_cache(p: RopeKvParams) {
    grid::wait();

    let token = thread::block_idx_x() as usize;
    let head = thread::block_idx_y() * ROPE_HEADS + thread::thread_idx_x() / 32;
    if head >= p.n_heads + 2 * p.n_kv_heads {
        return;
    }
    let dim = p.head_dim as usize;

    // SAFETY: token and head are of this launch; null pointers stay null.
    unsafe {
        let position = *p.positions.ptr().add(token);
        let rotation = Rotation::at(p.rope, position, p.pairs, p.pairing);
        if head < p.n_heads {
            let head = head as usize;
            let query = Head {
                x: p.q.ptr().add(token * p.q_stride as usize + head * dim),
                norm: p.q_norm.ptr(),
                dim: p.head_dim,
                epsilon: p.epsilon,
            };
            let out = p
                .q_out
                .mut_ptr()
                .add((token * p.n_heads as usize + head) * dim);
            let (values, turns) = (query.load(rotation), rotation.load());
            let factor = factor_at(p.q_factors, position);
            query.for_each(values, rotation, &turns, |i, value| {
                *out.add(i as usize) = F16::from_f32(saturate(value * factor))
            });
            return;
        }

        let is_value = head >= p.n_heads + p.n_kv_heads;
        let index = (head - p.n_heads) as usize;
        let (x, norm, rotation, head) = if is_value {
            let none = core::ptr::null();
            (p.v, none, Rotation::NONE, index - p.n_kv_heads as usize)
        } else {
            (p.k, p.k_norm.ptr(), rotation, index)
        };
        let vector = Head {
            x: x.ptr().add(token * p.kv_stride as usize + head * dim),
            norm,
            dim: p.head_dim,
            epsilon: p.epsilon,
        };
        let sequence = *p.sequences.ptr().add(token) as usize;
        let pages = p.page_table.ptr().add(sequence * p.max_pages as usize);
        let page = *pages.add((position / PAGE_TOKENS) as usize) as usize;
        // K's heads, then V's: `index` counts through both.
        let row = index * PAGE_TOKENS as usize + (position % PAGE_TOKENS) as usize;
        let out =
            p.kv.mut_ptr()
                .add(page * p.page_stride as usize + row * dim);
        let (values, turns) = (vector.load(rotation), rotation.load());
        vector.for_each(values, rotation, &turns, |i, value| {
            *out.add(i as usize) = F16::from_f32(saturate(value))
        });
    }
}
