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

/// Ranks whose parts are loaded together.
const RANKS: usize = 8;

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
        let x = p.x.mut_ptr().add(token * width + element);
        let before = f32::load4(x);
        let mut sum = [0f32; 4];
        let mut add = |weight: f32, terms: [f32; 4]| {
            let mut k = 0;
            while k < 4 {
                sum[k] = fma(weight, terms[k], sum[k]);
                k += 1;
            }
        };
        let mut first = 0;
        while first < p.used {
            // All of them on their way before the first is added.
            let (mut weights, mut terms) = ([0f32; RANKS], [[0f32; 4]; RANKS]);
            let mut i = 0;
            while i < RANKS {
                let rank = (first + i as u32).min(p.used - 1);
                let pair = token * p.used as usize + rank as usize;
                let place = if p.places.is_null() {
                    pair
                } else {
                    *p.places.ptr().add(pair) as usize
                };
                let weight = *p.weights.ptr().add(pair);
                // Behind the last rank 0 times a part that is added already.
                weights[i] = if rank == first + i as u32 {
                    weight
                } else {
                    0.0
                };
                terms[i] = f32::load4(p.parts.ptr().add(place * width + element));
                i += 1;
            }
            let mut i = 0;
            while i < RANKS {
                add(weights[i], terms[i]);
                i += 1;
            }
            first += RANKS as u32;
        }
        if !p.shared.is_null() {
            let weight = *p.shared_weights.ptr().add(token);
            add(
                weight,
                f32::load4(p.shared.ptr().add(token * width + element)),
            );
        }
        let mut k = 0;
        while k < 4 {
            sum[k] += before[k];
            k += 1;
        }
        f32::store4(x, sum);
    }
}
