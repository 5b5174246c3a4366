//! The gated activations of feed-forward networks on their way to a product in f16: each row is divided by a
//! power of two that keeps it in f16's range.
//!
//! - Formula: `y = activation(gate) * up / scale`, `scale` of the row being 1 unless that would be above
//!   65,504. Where the row's `|gate|` and `|up|` are known to be below a bound, the scale follows from it;
//!   otherwise the row is written with a scale of 1, and once more if its largest element asks for it.
//! - Shapes: see [`GatedRowsParams`]; the width is a multiple of 4.
//! - Threads: four neighbouring elements each, round after round; where the maxima are known one: with few rows, what
//!   one warp alone has to issue is what takes the time.
//! - Launch: grid = [blocks of a row, rows]: any number of them where `maxima` are given, otherwise 1;
//!   block = a multiple of 32 up to [`GATED_ROWS_MAX_THREADS`]; the host takes
//!   [`gated_rows_geometry`](crate::abi::gated_rows_geometry). Buffers are aligned to 16 bytes.
//! - Moves: every operand once; gate and up of a row that is written again twice.

use cuda_std::prelude::*;
use cuda_std::static_shared;

use super::elementwise::{Gate, GeluTanh, Silu};
use super::entry_points;
use crate::abi::{BOUNDED_ROWS_THREADS, GATED_ROWS_MAX_THREADS, GatedRowsParams};
use crate::prim::grid;
use crate::prim::half::{Element, F16};
use crate::prim::reduce::block_max;
use crate::prim::scale::{inverse, scale_of, scale_of_products};

entry_points! {
    /// SwiGLU, f32 to scaled f16.
    SWIGLU_ROWS = swiglu_rows(GatedRowsParams), max_threads = GATED_ROWS_MAX_THREADS => gated_rows::<Silu>;
    /// GeGLU, f32 to scaled f16.
    GEGLU_ROWS = geglu_rows(GatedRowsParams), max_threads = GATED_ROWS_MAX_THREADS => gated_rows::<GeluTanh>;
    /// SwiGLU of rows whose maxima are known, f32 to scaled f16.
    SWIGLU_BOUNDED_ROWS = swiglu_bounded_rows(GatedRowsParams), max_threads = BOUNDED_ROWS_THREADS
        => bounded_rows::<Silu>;
    /// GeGLU of rows whose maxima are known, f32 to scaled f16.
    GEGLU_BOUNDED_ROWS = geglu_bounded_rows(GatedRowsParams), max_threads = BOUNDED_ROWS_THREADS
        => bounded_rows::<GeluTanh>;
}

/// The body for rows whose maxima are not known.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn gated_rows<A: Gate>(p: GatedRowsParams) {
    grid::wait();
    let row = thread::block_idx_y() as usize;
    // SAFETY: the row is in the buffers; a thread writes the same elements each time; whole blocks come to
    // the reduction.
    unsafe {
        let largest = write_row::<A>(&p, row, 1.0);
        let scale = scale_of(block_max(largest, static_shared![f32; 32]));
        if scale != 1.0 {
            write_row::<A>(&p, row, inverse(scale));
        }
        finish_row(&p, row, scale);
    }
}

/// The body for rows whose maxima are known.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn bounded_rows<A: Gate>(p: GatedRowsParams) {
    grid::wait();
    let row = thread::block_idx_y() as usize;
    let column = thread::index_1d();
    // SAFETY: the row is in the buffers, the column in the row; whole blocks come to the end.
    unsafe {
        let at = row * p.width as usize + column.min(p.width - 1) as usize;
        // All loads before the first use of one: they are on their way together.
        let (gate, up) = (*p.gate.ptr().add(at), *p.up.ptr().add(at));
        let largest = *p.maxima.ptr().add(row);
        let mut value = A::apply(gate) * up;
        // Nearly always it is 0, and that costs nothing more.
        let mut scale = 1.0;
        if largest != 0 {
            scale = scale_of_products(f32::from_bits(largest));
            value *= inverse(scale);
        }
        if column < p.width {
            *p.y.mut_ptr().add(at) = F16::from_f32(value);
        }
        finish_row(&p, row, scale);
    }
}

/// Notes the row's scale, and divides by it what the product is added to.
///
/// # Safety
/// The row is in the buffers; all threads of the row's blocks come here.
#[inline(always)]
unsafe fn finish_row(p: &GatedRowsParams, row: usize, scale: f32) {
    // SAFETY: the caller's.
    unsafe {
        if thread::index_1d() == 0 {
            *p.scales.mut_ptr().add(row) = scale;
        }
        if scale != 1.0 && !p.addend.is_null() {
            divide_addend(p, row, inverse(scale));
        }
    }
}

/// Writes a row times `factor`, and gives the thread's largest magnitude before that.
///
/// # Safety
/// The row is in the buffers, and this block's alone.
#[inline(always)]
unsafe fn write_row<A: Gate>(p: &GatedRowsParams, row: usize, factor: f32) -> f32 {
    let start = row * p.width as usize;
    let mut largest = 0.0f32;
    let mut i = 4 * thread::thread_idx_x();
    while i < p.width {
        let at = start + i as usize;
        // SAFETY: rows are whole groups of four elements.
        unsafe {
            let (gate, up) = (
                f32::load4(p.gate.ptr().add(at)),
                f32::load4(p.up.ptr().add(at)),
            );
            let mut values = [0.0; 4];
            let mut k = 0;
            while k < 4 {
                let value = A::apply(gate[k]) * up[k];
                largest = largest.max(GpuFloat::abs(value));
                values[k] = value * factor;
                k += 1;
            }
            F16::store4(p.y.mut_ptr().add(at), values);
        }
        i += 4 * thread::block_dim_x();
    }
    largest
}

/// Multiplies the block's part of the row that the product is added to by `factor`.
///
/// # Safety
/// The row is in the buffer.
#[inline(always)]
unsafe fn divide_addend(p: &GatedRowsParams, row: usize, factor: f32) {
    let start = row * p.addend_width as usize;
    let mut i = thread::index_1d();
    while i < p.addend_width {
        // SAFETY: the caller's.
        unsafe { *p.addend.mut_ptr().add(start + i as usize) *= factor };
        i += thread::grid_dim_x() * thread::block_dim_x();
    }
}
