//! Rows on their way to products in 8 bits: as they are, normed, or as gated products.
//!
//! - Formula: `v = x`, `v = x / sqrt(mean(x^2) + epsilon) * other` or `v = activation(x) * other`; for each group of 32
//!   elements `d = max |v| / 127` and `round(v / d)`, halves to even.
//! - Shapes: any number of rows; see [`Q8RowsParams`].
//! - Threads: eight neighbouring elements each, four threads a group.
//! - Launch: grid = [blocks of a row, rows]. Of rows that are normed a row is one block, of a multiple of 32 threads up
//!   to [`NORM_MAX_THREADS`]; otherwise a block has [`Q8_ROWS_THREADS`] and takes [`Q8_ROWS_ELEMENTS`] elements a
//!   thread, those behind the row's end up to a multiple of [`MATMUL_Q8_STEP`] included. Buffers are aligned to 16
//!   bytes.
//! - Moves: every operand once (a row that is normed twice, the second time from a cache), results once.

use cuda_std::prelude::*;
use cuda_std::static_shared;

use super::activations::largest_of_lanes;
use super::elementwise::{Gate, GeluTanh, Silu};
use super::entry_points;
use crate::abi::{
    MATMUL_Q8_STEP, MATMUL_Q8_UNITS, MATMUL_TILE_VECTORS, NORM_MAX_THREADS, Q8_ROWS_ELEMENTS,
    Q8_ROWS_THREADS, Q8RowsParams,
};
use crate::prim::grid;
use crate::prim::half::Element;
use crate::prim::integer::{dp4a, pack_bytes};
use crate::prim::math::{fma, recip_approx, to_tf32};
use crate::prim::reduce::{block_sum, shuffle_xor};

entry_points! {
    /// Rows as they are.
    Q8_ROWS = q8_rows(Q8RowsParams), max_threads = Q8_ROWS_THREADS => rows;
    /// RMSNorm.
    RMS_NORM_Q8 = rms_norm_q8(Q8RowsParams), max_threads = NORM_MAX_THREADS => normed_rows;
    /// SwiGLU.
    SWIGLU_Q8 = swiglu_q8(Q8RowsParams), max_threads = Q8_ROWS_THREADS => gated_rows::<Silu>;
    /// GeGLU.
    GEGLU_Q8 = geglu_q8(Q8RowsParams), max_threads = Q8_ROWS_THREADS => gated_rows::<GeluTanh>;
}

/// Elements of a thread.
type Eight = [f32; Q8_ROWS_ELEMENTS as usize];

/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
unsafe fn rows(p: Q8RowsParams) {
    // SAFETY: the caller's.
    unsafe { write_elements(&p, |at| load8(p.x.ptr(), at)) }
}

/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
unsafe fn gated_rows<A: Gate>(p: Q8RowsParams) {
    // SAFETY: the caller's.
    unsafe {
        write_elements(&p, |at| {
            let (gate, up) = (load8(p.x.ptr(), at), load8(p.other.ptr(), at));
            let mut values = [0.0; Q8_ROWS_ELEMENTS as usize];
            let mut i = 0;
            while i < values.len() {
                values[i] = A::apply(gate[i]) * up[i];
                i += 1;
            }
            values
        });
    }
}

/// Encodes what `values` gives for the place of eight elements of the thread's row.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
unsafe fn write_elements(p: &Q8RowsParams, values: impl Fn(usize) -> Eight) {
    grid::wait();
    let row = thread::block_idx_y();
    let element = Q8_ROWS_ELEMENTS * thread::index_1d();
    // A step is a whole number of warps' elements, so that these stay together.
    if element < p.width.next_multiple_of(MATMUL_Q8_STEP) {
        let mut eight = [0.0; Q8_ROWS_ELEMENTS as usize];
        if element < p.width {
            eight = values(row as usize * p.width as usize + element as usize);
        }
        // SAFETY: whole warps; the row is in the buffers.
        unsafe { write(p, row, element, eight) };
    }
}

/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
unsafe fn normed_rows(p: Q8RowsParams) {
    grid::wait();
    let row = thread::block_idx_y();
    let start = row as usize * p.width as usize;
    let first = Q8_ROWS_ELEMENTS * thread::thread_idx_x();
    let stride = Q8_ROWS_ELEMENTS * thread::block_dim_x();
    // SAFETY: the row is in the buffers; whole warps stay together, as a step is a whole number of warps' elements.
    unsafe {
        let mut squares = 0.0;
        let mut element = first;
        while element < p.width {
            let values = load8(p.x.ptr(), start + element as usize);
            let mut i = 0;
            while i < values.len() {
                squares = values[i].mul_add(values[i], squares);
                i += 1;
            }
            element += stride;
        }
        let mean = block_sum(squares, static_shared![f32; 32]) / p.width as f32;
        let norm = 1.0 / (mean + p.epsilon).sqrt();

        let mut element = first;
        while element < p.width.next_multiple_of(MATMUL_Q8_STEP) {
            let mut values = [0.0; Q8_ROWS_ELEMENTS as usize];
            if element < p.width {
                values = load8(p.x.ptr(), start + element as usize);
                let weights = load8(p.other.ptr(), element as usize);
                let mut i = 0;
                while i < values.len() {
                    values[i] = values[i] * norm * weights[i];
                    i += 1;
                }
            }
            write(&p, row, element, values);
            element += stride;
        }
    }
}

/// # Safety
/// Eight elements are readable from `at` on, at a multiple of 16 bytes.
#[inline(always)]
unsafe fn load8(x: *const f32, at: usize) -> Eight {
    // SAFETY: the caller's.
    let ([a, b, c, d], [e, f, g, h]) = unsafe {
        let x = x.add(at);
        (f32::load4(x), f32::load4(x.add(4)))
    };
    [a, b, c, d, e, f, g, h]
}

/// Encodes eight elements of a row, which may be behind its end, and writes them also as they are where that is asked
/// for.
///
/// # Safety
/// The whole warp comes here with neighbouring elements; the row is in the buffers.
#[inline(always)]
unsafe fn write(p: &Q8RowsParams, row: u32, element: u32, values: Eight) {
    /// Below it 127 / x would not be finite, and the elements become zeros.
    const SMALLEST: f32 = 1e-30;
    /// See [`matmul_q8`](super::matmul_q8): the low byte of the sum is the integer's.
    const INTEGERS: f32 = 12_582_912.0;
    const ONES: u32 = 0x0101_0101;
    // SAFETY: the caller's.
    unsafe {
        let largest = f32::from_bits(largest_of_lanes::<4>(values));
        let scale = largest * (1.0 / 127.0);
        let to_integer = if largest > SMALLEST {
            recip_approx(scale)
        } else {
            0.0
        };
        let q = values.map(|value| fma(value, to_integer, INTEGERS).to_bits());
        let words = [
            pack_bytes([q[0], q[1], q[2], q[3]]),
            pack_bytes([q[4], q[5], q[6], q[7]]),
        ];
        let sum = dp4a(ONES, words[0], dp4a(ONES, words[1], 0)) as f32;
        let sum = sum + shuffle_xor(sum, 1);
        let sum = sum + shuffle_xor(sum, 2);

        let place = Place::of(p, row, element);
        let elements = p.y.elements.mut_ptr();
        *elements.add(place.word) = words[0];
        // The next `t`, whose words are four further on.
        *elements.add(place.word + 4) = words[1];
        if element.is_multiple_of(32) {
            *p.y.scales.mut_ptr().add(place.scale) = scale;
            *p.y.sums.mut_ptr().add(place.sum) = to_tf32(scale * sum);
        }
        if !p.values.is_null() && element < p.width {
            let to = p.values.mut_ptr();
            let to = to.add(row as usize * p.width as usize + element as usize);
            let [a, b, c, d, e, f, g, h] = values;
            f32::store4(to, [a, b, c, d]);
            f32::store4(to.add(4), [e, f, g, h]);
        }
    }
}

/// Where eight elements of a row go, as [`Q8Vectors`](crate::abi::Q8Vectors) says.
struct Place {
    word: usize,
    scale: usize,
    sum: usize,
}

impl Place {
    #[inline(always)]
    fn of(p: &Q8RowsParams, row: u32, element: u32) -> Self {
        const WORDS: u32 = MATMUL_Q8_STEP * MATMUL_TILE_VECTORS / 4;
        const SCALES: u32 = MATMUL_Q8_UNITS * MATMUL_TILE_VECTORS;
        let tiles = p.rows.div_ceil(MATMUL_TILE_VECTORS);
        let (tile, g) = (row / MATMUL_TILE_VECTORS, row % MATMUL_TILE_VECTORS);
        let (step, unit) = (element / MATMUL_Q8_STEP, element % MATMUL_Q8_STEP / 32);
        let (half, t) = (element % 32 / 16, element % 16 / 4);
        let place = (step * tiles + tile) as usize;
        let pair = unit / 2;
        let lane = 4 * g + t;
        Self {
            word: place * WORDS as usize + (128 * pair + 4 * lane + 2 * (unit % 2) + half) as usize,
            scale: place * SCALES as usize
                + (16 * pair + 4 * (g / 2) + 2 * (unit % 2) + g % 2) as usize,
            sum: place * SCALES as usize + (8 * unit + g) as usize,
        }
    }
}
