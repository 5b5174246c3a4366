//! Residual and bias additions, and the gated activations of feed-forward networks.
//!
//! - Formulas: `y = a + b`; `x[r][c] += bias[c]`; `y = silu(gate) * up` (SwiGLU) and
//!   `y = gelu(gate) * up` (GeGLU, gelu in its tanh form); `x[r][c] *= scales[r]`.
//! - Shapes: any; see the parameter structs.
//! - Threads: one element each, neighbours on neighbours, so that a warp's accesses are whole lines.
//! - Launch: a one-dimensional grid of at least as many threads as elements, block up to [`ELEMENTWISE_THREADS`]. For
//!   the gated ones the grid's second dimension is the row, and for `x *= scales` with one block a row.
//! - Moves: every operand once.

use cuda_std::prelude::*;

use super::entry_points;
use crate::abi::{AddParams, BiasParams, ELEMENTWISE_THREADS, GatedParams, RestoreParams};
use crate::prim::grid;
use crate::prim::integer::rem;

entry_points! {
    /// Sum, f32.
    ADD_F32 = add_f32(AddParams), max_threads = ELEMENTWISE_THREADS => add;
    /// Bias, f32.
    BIAS_F32 = bias_f32(BiasParams), max_threads = ELEMENTWISE_THREADS => bias;
    /// SwiGLU.
    SWIGLU_F32 = swiglu_f32(GatedParams), max_threads = ELEMENTWISE_THREADS => gated::<Silu>;
    /// GeGLU.
    GEGLU_F32 = geglu_f32(GatedParams), max_threads = ELEMENTWISE_THREADS => gated::<GeluTanh>;
    /// What rows were divided by, multiplied back.
    RESTORE_ROWS = restore_rows(RestoreParams), max_threads = ELEMENTWISE_THREADS => restore;
}

/// `y = a + b`.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn add(p: AddParams) {
    grid::wait();
    let i = thread::index_1d();
    if i < p.n {
        let i = i as usize;
        // SAFETY: the buffers have n elements.
        unsafe {
            *p.y.mut_ptr().add(i) = *p.a.ptr().add(i) + *p.b.ptr().add(i);
        }
    }
}

/// `x[r][c] += bias[c]`.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn bias(p: BiasParams) {
    grid::wait();
    let i = thread::index_1d();
    if i < p.n {
        // SAFETY: x has n elements, bias one for each column.
        unsafe {
            let bias = *p.bias.ptr().add(rem(i, p.width) as usize);
            *p.x.mut_ptr().add(i as usize) += bias;
        }
    }
}

/// The non-linear factor of a gated unit.
pub trait Gate {
    /// The activation of `x`.
    fn apply(x: f32) -> f32;
}

/// `x * sigmoid(x)`.
pub struct Silu;

impl Gate for Silu {
    #[inline(always)]
    fn apply(x: f32) -> f32 {
        x * sigmoid(x)
    }
}

/// `x / 2 * (1 + tanh(u))`, `u = sqrt(2 / pi) * (x + 0.044715 x^3)`; computed as `x * sigmoid(2 u)`,
/// the same function without the cancellation for negative `x`.
pub struct GeluTanh;

impl Gate for GeluTanh {
    #[inline(always)]
    fn apply(x: f32) -> f32 {
        const TWO_SQRT_2_OVER_PI: f32 = 1.595_769;
        x * sigmoid(TWO_SQRT_2_OVER_PI * x * (x * x).mul_add(0.044_715, 1.0))
    }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// `y = activation(gate) * up`.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn gated<A: Gate>(p: GatedParams) {
    grid::wait();
    let column = thread::index_1d();
    let row = thread::block_idx_y();
    if column < p.width && row < p.rows {
        let at = |stride: u32| row as usize * stride as usize + column as usize;
        // SAFETY: row and column are inside the matrices.
        unsafe {
            let gate = *p.gate.ptr().add(at(p.gate_stride));
            let up = *p.up.ptr().add(at(p.up_stride));
            *p.y.mut_ptr().add(at(p.y_stride)) = A::apply(gate) * up;
        }
    }
}

/// `x[r][c] *= scales[r]`, and then `scales[r] = 1`.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn restore(p: RestoreParams) {
    grid::wait();
    let row = thread::block_idx_y() as usize;
    // SAFETY: the row is in the buffers, and this block's alone.
    unsafe {
        let scale = p.scales.mut_ptr().add(row);
        let factor = *scale;
        if factor == 1.0 {
            return;
        }
        let mut i = thread::thread_idx_x();
        while i < p.width {
            *p.x.mut_ptr().add(row * p.width as usize + i as usize) *= factor;
            i += thread::block_dim_x();
        }
        // All threads have read the scale.
        thread::sync_threads();
        if thread::thread_idx_x() == 0 {
            *scale = 1.0;
        }
    }
}
