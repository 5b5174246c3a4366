//! The scores of a mixture's experts, and how much the network counts that all tokens take.
//!
//! - Formula, shapes: see [`RouterParams`]. All in f32: scores that nearly tie decide about whole networks.
//! - Threads: a warp a score; each adds up the squares of its token for itself, beside the product.
//! - Launch: grid = [at least a warp for each expert and for `shared`, tokens], block = [`ROUTER_THREADS`].
//! - Moves: the router once a token (from L2), a token once a warp (from L1).

use cuda_std::prelude::*;

use super::entry_points;
use crate::abi::{ROUTER_THREADS, RouterParams};
use crate::prim::grid;
use crate::prim::half::Element;
use crate::prim::math::{exp2_approx, fma};
use crate::prim::reduce::warp_sum;

entry_points! {
    /// Of f32.
    ROUTER_SCORES = router_scores(RouterParams), max_threads = ROUTER_THREADS => scores;
}

/// The body.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn scores(p: RouterParams) {
    grid::wait();

    let row = thread::index_1d() / 32;
    let lane = thread::thread_idx_x() % 32;
    let token = thread::block_idx_y() as usize;
    let is_shared = row == p.experts && !p.shared.is_null();
    if row >= p.experts && !is_shared {
        return;
    }
    // SAFETY: token and row are in the buffers; whole warps are here.
    unsafe {
        let x = p.x.ptr().add(token * p.n_in as usize);
        let row_weights = if is_shared {
            p.shared_gate.ptr()
        } else {
            p.router.ptr().add(row as usize * p.n_in as usize)
        };
        let (mut squares, mut products) = ([0f32; 4], [0f32; 4]);
        let mut i = 4 * lane;
        while i < p.n_in {
            let at = i as usize;
            let value = f32::load4(x.add(at));
            let norm = f32::load4(p.norm_weight.ptr().add(at));
            let weight = f32::load4(row_weights.add(at));
            let mut k = 0;
            while k < 4 {
                squares[k] = fma(value[k], value[k], squares[k]);
                products[k] = fma(value[k] * norm[k], weight[k], products[k]);
                k += 1;
            }
            i += const { 4 * 32 };
        }
        let sum = |v: [f32; 4]| warp_sum((v[0] + v[1]) + (v[2] + v[3]));
        let (squares, product) = (sum(squares), sum(products));
        if lane == 0 {
            let mean = squares / p.n_in as f32 + p.epsilon;
            let score = product / mean.sqrt();
            if is_shared {
                *p.shared.mut_ptr().add(token) = sigmoid(score);
            } else {
                let at = token * p.experts as usize + row as usize;
                *p.scores.mut_ptr().add(at) = score;
            }
        }
    }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp2_approx(-x * core::f32::consts::LOG2_E))
}
