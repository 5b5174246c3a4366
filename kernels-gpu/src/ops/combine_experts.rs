//! What a token's experts found, and the network that all tokens take, into the residual stream.
//!
//! - Formula, shapes: see [`CombineParams`]. The terms are added in the order of a token's ranks, wherever they lie.
//! - Threads: four neighbouring elements each.
//! - Launch: grid = [at least a thread for every four elements, tokens], block = [`COMBINE_THREADS`].
//! - Moves: every operand once.

use cuda_std::prelude::*;

use super::entry_points;
use crate::abi::{COMBINE_THREADS, CombineParams};
use crate::prim::grid;
use crate::prim::half::Element;
use crate::prim::math::fma;

entry_points! {
    /// Of f32.
    COMBINE_EXPERTS = combine_experts(CombineParams), max_threads = COMBINE_THREADS => combine;
}

/// The body.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn combine(p: CombineParams) {
    grid::wait();

    let element = 4 * thread::index_1d() as usize;
    let width = p.width as usize;
    if element >= width {
        return;
    }
    let token = thread::block_idx_y() as usize;
    // SAFETY: token, pairs and element are in the buffers; a place is below the number of pairs.
    unsafe {
        let mut sum = [0f32; 4];
        let mut add = |weight: f32, terms: *const f32| {
            let terms = f32::load4(terms);
            let mut k = 0;
            while k < 4 {
                sum[k] = fma(weight, terms[k], sum[k]);
                k += 1;
            }
        };
        let mut rank = 0;
        while rank < p.used {
            let pair = token * p.used as usize + rank as usize;
            let place = if p.places.is_null() {
                pair
            } else {
                *p.places.ptr().add(pair) as usize
            };
            let terms = p.parts.ptr().add(place * width + element);
            add(*p.weights.ptr().add(pair), terms);
            rank += 1;
        }
        if !p.shared.is_null() {
            let weight = *p.shared_weights.ptr().add(token);
            add(weight, p.shared.ptr().add(token * width + element));
        }
        let x = p.x.mut_ptr().add(token * width + element);
        let before = f32::load4(x);
        let mut k = 0;
        while k < 4 {
            sum[k] += before[k];
            k += 1;
        }
        f32::store4(x, sum);
    }
}
