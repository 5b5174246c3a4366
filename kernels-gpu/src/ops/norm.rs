//! RMSNorm of rows, which may have been divided by a power of two; and rows as they are, for blocks without one.
//!
//! - Formula: `x = x * scale` (where given), then
//!   `y = x / sqrt(mean(x^2) + epsilon) * weight * factor`; or `y = x * factor`.
//! - Shapes: any number of rows of `width` elements; see [`RmsNormParams`] for where a row begins.
//! - Threads: a block a row; each thread takes four neighbouring elements at a time.
//! - Launch: grid = rows; block = a multiple of 32 up to [`NORM_MAX_THREADS`], 32 for the short rows of a head.
//!   Buffers are aligned to 16 bytes; `x` does not overlap with `y`, but in f32 may be it.
//! - Moves: `x` once from memory (the second reading hits a cache), `y` once.

use cuda_std::prelude::*;
use cuda_std::static_shared;

use super::entry_points;
use crate::abi::{NORM_MAX_THREADS, RmsNormParams};
use crate::prim::grid;
use crate::prim::half::{Element, F16};
use crate::prim::integer::{div, rem};
use crate::prim::reduce::block_sum;

entry_points! {
    /// RMSNorm, f32 to f32.
    RMS_NORM_F32 = rms_norm_f32(RmsNormParams), max_threads = NORM_MAX_THREADS => rms_norm::<f32>;
    /// RMSNorm, f32 to f16.
    RMS_NORM_F16 = rms_norm_f16(RmsNormParams), max_threads = NORM_MAX_THREADS => rms_norm::<F16>;
    /// No norm, f32 to f16.
    ROWS_F16 = rows_f16(RmsNormParams), max_threads = NORM_MAX_THREADS => rows;
}

/// `y = x * factor` in f16, where a row has no norm: of the parameters it takes the shapes, `cleared` and `factor`.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn rows(p: RmsNormParams) {
    grid::wait();
    let row = thread::block_idx_x();
    let (token, head) = (div(row, p.heads) as usize, rem(row, p.heads) as usize);
    let (thread, width) = (thread::thread_idx_x() as usize, p.width as usize);
    // SAFETY: the row lies in the buffers by the launch conditions.
    unsafe {
        let x = p.x.ptr().add(token * p.x_stride as usize + head * width);
        let y =
            p.y.cast::<F16>()
                .mut_ptr()
                .add(token * p.y_stride as usize + head * width);
        if !p.cleared.is_null() && thread == 0 {
            *p.cleared.mut_ptr().add(token) = 0;
        }
        let mut i = thread;
        while i < width {
            *y.add(i) = F16::from_f32(*x.add(i) * p.factor);
            i += thread::block_dim_x() as usize;
        }
    }
}

/// The body; `Y` is the output's element type.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn rms_norm<Y: Element>(p: RmsNormParams) {
    grid::wait();

    let row = thread::block_idx_x();
    let (token, head) = (div(row, p.heads) as usize, rem(row, p.heads) as usize);
    let width = p.width as usize;
    let thread = thread::thread_idx_x() as usize;
    let threads = thread::block_dim_x() as usize;

    // SAFETY: the row lies in the buffers by the launch conditions; each thread touches the same
    // elements in both passes, so that its own writes need no barrier.
    unsafe {
        let x =
            p.x.mut_ptr()
                .add(token * p.x_stride as usize + head * width);
        let y =
            p.y.cast::<Y>()
                .mut_ptr()
                .add(token * p.y_stride as usize + head * width);

        let x_scale = if p.x_scales.is_null() {
            1.0
        } else {
            *p.x_scales.ptr().add(token)
        };
        let changes_x = x_scale != 1.0;
        if !p.cleared.is_null() && thread == 0 {
            *p.cleared.mut_ptr().add(token) = 0;
        }

        // Four elements at a time where every row begins at a multiple of four.
        let aligned = (p.width | p.x_stride | p.y_stride).is_multiple_of(4);
        let whole = if aligned { width } else { 0 };

        let mut squares = 0.0;
        let mut i = 4 * thread;
        while i < whole {
            let mut v = f32::load4(x.add(i));
            if changes_x {
                v = v.map(|v| v * x_scale);
                f32::store4(x.add(i), v);
            }
            squares = v[0].mul_add(v[0], v[1].mul_add(v[1], squares));
            squares = v[2].mul_add(v[2], v[3].mul_add(v[3], squares));
            i += 4 * threads;
        }
        let mut i = whole + thread;
        while i < width {
            let mut v = *x.add(i);
            if changes_x {
                v *= x_scale;
                *x.add(i) = v;
            }
            squares = v.mul_add(v, squares);
            i += threads;
        }

        let mean = block_sum(squares, static_shared![f32; 32]) / width as f32;
        let scale = p.factor / (mean + p.epsilon).sqrt();

        let weight = p.weight.ptr();
        let mut i = 4 * thread;
        while i < whole {
            let (v, w) = (f32::load4(x.add(i)), f32::load4(weight.add(i)));
            let out = [
                v[0] * scale * w[0],
                v[1] * scale * w[1],
                v[2] * scale * w[2],
                v[3] * scale * w[3],
            ];
            Y::store4(y.add(i), out);
            i += 4 * threads;
        }
        let mut i = whole + thread;
        while i < width {
            *y.add(i) = Y::from_f32(*x.add(i) * scale * *weight.add(i));
            i += threads;
        }
    }
}
