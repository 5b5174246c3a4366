//! The scores of a mixture's experts, and how much the network counts that all tokens take.
//!
//! - Formula, shapes: see [`RouterParams`]. All in f32: scores that nearly tie decide about whole networks.
//! - Threads: a warp a score, of every `gridDim.y`-th token; each adds up the squares of its tokens for itself, beside the
//!   products. A part of a row is loaded at once, and the first one before the kernels before this one have ended: a step
//!   of one token waits for one way to memory instead of one for each 128 elements.
//! - Launch: grid = [at least a warp for each expert and for `shared`, up to a row for each token], block =
//!   [`ROUTER_THREADS`].
//! - Moves: the router once for each row of blocks where its rows are one part, else once a token (from L2); a token once a
//!   warp (from L1).

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

/// Loads of four elements that a lane has of a part of a row.
const PART_LOADS: usize = 16;
/// Elements of a part.
const PART: u32 = 4 * 32 * PART_LOADS as u32;

/// A lane's elements of a part.
type Elements = [[f32; 4]; PART_LOADS];

/// The body.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn scores(p: RouterParams) {
    let row = thread::index_1d() / 32;
    let lane = thread::thread_idx_x() % 32;
    let is_shared = row == p.experts && !p.shared.is_null();
    if row >= p.experts && !is_shared {
        grid::wait();
        return;
    }
    let row_weights = if is_shared {
        p.shared_gate.ptr()
    } else {
        p.router.ptr().wrapping_add(row as usize * p.n_in as usize)
    };
    // SAFETY: token and row are in the buffers; whole warps are here. No kernel writes weights.
    unsafe {
        let norm = p.norm_weight.ptr();
        let mut factors = load_products(norm, row_weights, 0, lane, p.n_in);
        grid::wait();

        let mut token = thread::block_idx_y();
        while token < p.tokens {
            let x = p.x.ptr().add(token as usize * p.n_in as usize);
            let (mut squares, mut products) = ([0f32; 4], [0f32; 4]);
            let mut first = 0;
            while first < p.n_in {
                if p.n_in > PART {
                    factors = load_products(norm, row_weights, first, lane, p.n_in);
                }
                let values = load(x, first, lane, p.n_in);
                let mut i = 0;
                while i < PART_LOADS {
                    let mut k = 0;
                    while k < 4 {
                        squares[k] = fma(values[i][k], values[i][k], squares[k]);
                        products[k] = fma(values[i][k], factors[i][k], products[k]);
                        k += 1;
                    }
                    i += 1;
                }
                first += PART;
            }
            let sum = |v: [f32; 4]| warp_sum((v[0] + v[1]) + (v[2] + v[3]));
            let (squares, product) = (sum(squares), sum(products));
            if lane == 0 {
                let mean = squares / p.n_in as f32 + p.epsilon;
                let score = product / mean.sqrt();
                if is_shared {
                    *p.shared.mut_ptr().add(token as usize) = sigmoid(score);
                } else {
                    let at = token as usize * p.experts as usize + row as usize;
                    *p.scores.mut_ptr().add(at) = score;
                }
            }
            token += thread::grid_dim_y();
        }
    }
}

/// The lane's elements of the part from `first` on; behind `count` zeros.
///
/// # Safety
/// There are `count` elements.
#[inline(always)]
unsafe fn load(from: *const f32, first: u32, lane: u32, count: u32) -> Elements {
    let mut elements = [[0f32; 4]; PART_LOADS];
    let mut i = 0;
    while i < PART_LOADS {
        let at = first + 128 * i as u32 + 4 * lane;
        if at < count {
            // SAFETY: the caller's; the count is a multiple of 4.
            elements[i] = unsafe { f32::load4(from.add(at as usize)) };
        }
        i += 1;
    }
    elements
}

/// The products of two vectors' elements, as [`load`].
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn load_products(
    left: *const f32,
    right: *const f32,
    first: u32,
    lane: u32,
    count: u32,
) -> Elements {
    // SAFETY: the caller's.
    let (left, mut products) = unsafe {
        (
            load(left, first, lane, count),
            load(right, first, lane, count),
        )
    };
    let mut i = 0;
    while i < PART_LOADS {
        let mut k = 0;
        while k < 4 {
            products[i][k] *= left[i][k];
            k += 1;
        }
        i += 1;
    }
    products
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp2_approx(-x * core::f32::consts::LOG2_E))
}
