//! The cap that some models put on their logits.
//!
//! - Formula: `x = cap * tanh(x / cap)`; what is not finite stays, because the cap would make an infinity look sound.
//! - Shapes: see [`SoftCapParams`].
//! - Threads: an element each, neighbours on neighbours.
//! - Launch: grid = [at least as many threads as a row has logits, rows], block =
//!   [`SOFT_CAP_THREADS`](crate::abi::SOFT_CAP_THREADS).
//! - Moves: the logits twice.

use cuda_std::prelude::*;

use super::entry_points;
use crate::abi::{SOFT_CAP_THREADS, SoftCapParams};
use crate::prim::grid;
use crate::prim::math::fma;

entry_points! {
    /// Of f32, in place.
    SOFT_CAP = soft_cap(SoftCapParams), max_threads = SOFT_CAP_THREADS => cap;
}

/// The body.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn cap(p: SoftCapParams) {
    grid::wait();
    let i = thread::index_1d();
    if i < p.vocab {
        let row = thread::block_idx_y() as usize * p.stride as usize;
        // SAFETY: the element is inside the row, and this thread's alone.
        unsafe {
            let logit = p.logits.mut_ptr().add(row + i as usize);
            let x = *logit;
            if x.is_finite() {
                *logit = p.cap * tanh(x / p.cap);
            }
        }
    }
}

/// The hyperbolic tangent, within a relative error of 4e-7 also near zero.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    // Where 1 - 2 / (e^2x + 1) would cancel: x (1 + x^2 p(x^2)), with a polynomial through (tanh(x) / x - 1) / x^2 at the
    // Chebyshev nodes of [0, 0.31]: within a relative error of 5e-9.
    if GpuFloat::abs(x) < 0.55 {
        let square = x * x;
        let p = fma(square, -6.564_395_5e-3, 2.128_472_4e-2);
        let p = fma(square, p, -5.390_536e-2);
        let p = fma(square, p, 1.333_309_3e-1);
        let p = fma(square, p, -3.333_333e-1);
        return x * fma(square, p, 1.0);
    }
    GpuFloat::tanh(x)
}
