//! Residual and bias additions, and the gated activations of feed-forward networks.
//!
//! - Formulas: `y = a + b`; `x[r][c] += bias[c]`; `y = silu(gate) * up` (SwiGLU) and
//!   `y = gelu(gate) * up` (GeGLU, gelu in its tanh form).
//! - Shapes: any; see the parameter structs.
//! - Threads: one element each, neighbours on neighbours, so that a warp's accesses are whole lines.
//! - Launch: a one-dimensional grid of at least as many threads as elements, block up to 256. For
//!   the gated ones the grid's second dimension is the row.
//! - Moves: every operand once.

use cuda_std::prelude::*;

use super::entry_points;
use crate::abi::{AddParams, BiasParams, GatedParams};
use crate::prim::grid;
use crate::prim::half::{Activation, F16};
use crate::prim::integer::rem;

entry_points! {
    /// Sum, f32.
    ADD_F32 = add_f32(AddParams), max_threads = 256 => add::<f32>;
    /// Sum, f16, rounded once.
    ADD_F16 = add_f16(AddParams), max_threads = 256 => add::<F16>;
    /// Bias, f32.
    BIAS_F32 = bias_f32(BiasParams), max_threads = 256 => bias::<f32>;
    /// Bias, f16 (the bias itself is f32).
    BIAS_F16 = bias_f16(BiasParams), max_threads = 256 => bias::<F16>;
    /// SwiGLU, f32 to f32.
    SWIGLU_F32 = swiglu_f32(GatedParams), max_threads = 256 => gated::<f32, f32, Silu>;
    /// SwiGLU, f16 to f16.
    SWIGLU_F16 = swiglu_f16(GatedParams), max_threads = 256 => gated::<F16, F16, Silu>;
    /// SwiGLU, f32 to f16.
    SWIGLU_F32_F16 = swiglu_f32_f16(GatedParams), max_threads = 256 => gated::<f32, F16, Silu>;
    /// GeGLU, f32 to f32.
    GEGLU_F32 = geglu_f32(GatedParams), max_threads = 256 => gated::<f32, f32, GeluTanh>;
    /// GeGLU, f16 to f16.
    GEGLU_F16 = geglu_f16(GatedParams), max_threads = 256 => gated::<F16, F16, GeluTanh>;
    /// GeGLU, f32 to f16.
    GEGLU_F32_F16 = geglu_f32_f16(GatedParams), max_threads = 256 => gated::<f32, F16, GeluTanh>;
}

/// `y = a + b`.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn add<T: Activation>(p: AddParams) {
    grid::wait();
    let i = thread::index_1d();
    if i < p.n {
        let i = i as usize;
        // SAFETY: the buffers have n elements.
        unsafe {
            let sum =
                (*p.a.cast::<T>().ptr().add(i)).to_f32() + (*p.b.cast::<T>().ptr().add(i)).to_f32();
            *p.y.cast::<T>().mut_ptr().add(i) = T::from_f32(sum);
        }
    }
}

/// `x[r][c] += bias[c]`.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn bias<T: Activation>(p: BiasParams) {
    grid::wait();
    let i = thread::index_1d();
    if i < p.n {
        // SAFETY: x has n elements, bias one for each column.
        unsafe {
            let x = p.x.cast::<T>().mut_ptr().add(i as usize);
            let bias = *p.bias.ptr().add(rem(i, p.width) as usize);
            *x = T::from_f32((*x).to_f32() + bias);
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
pub unsafe fn gated<X: Activation, Y: Activation, A: Gate>(p: GatedParams) {
    grid::wait();
    let column = thread::index_1d();
    let row = thread::block_idx_y();
    if column < p.width && row < p.rows {
        let at = |stride: u32| row as usize * stride as usize + column as usize;
        // SAFETY: row and column are inside the matrices.
        unsafe {
            let gate = (*p.gate.cast::<X>().ptr().add(at(p.gate_stride))).to_f32();
            let up = (*p.up.cast::<X>().ptr().add(at(p.up_stride))).to_f32();
            *p.y.cast::<Y>().mut_ptr().add(at(p.y_stride)) = Y::from_f32(A::apply(gate) * up);
        }
    }
}
