//! Rows on their way to products in 8 bits: as they are, normed, or as gated products.
//!
//! - Formula: `v = x`, `v = x / sqrt(mean(x^2) + epsilon) * other` or `v = activation(x) * other`; for each group of 32
//!   elements `d = max |v| / 127` and `round(v / d)`, halves to even.
//! - Shapes: any number of rows; see [`Q8RowsParams`].
//! - Threads: four neighbouring elements each, eight threads a group.
//! - Launch: grid = [blocks of a row, rows]. Of rows that are normed a row is one block, of a multiple of 32 threads up
//!   to [`NORM_MAX_THREADS`]; otherwise a block has [`Q8_ROWS_THREADS`] and takes [`Q8_ROWS_ELEMENTS`] elements a
//!   thread, those behind the row's end up to a multiple of [`MATMUL_Q8_STEP`] included. Buffers are aligned to 16
//!   bytes.
//! - Moves: every operand once (what a thread norms beyond its first four elements twice, the second time from a cache),
//!   results once.

use cuda_std::prelude::*;
use cuda_std::static_shared;

use super::elementwise::{Gate, GeluTanh, Silu};
use super::entry_points;
use crate::abi::{
    ACTIVATION_GROUP, MATMUL_Q8_STEP, MATMUL_Q8_UNITS, MATMUL_TILE_VECTORS, NORM_MAX_THREADS,
    Q8_ROWS_ELEMENTS, Q8_ROWS_THREADS, Q8RowsParams,
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

/// Elements of a thread: a lane's word of a half of a group.
type Four = [f32; Q8_ROWS_ELEMENTS as usize];

/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
unsafe fn rows(p: Q8RowsParams) {
    // SAFETY: the caller's.
    unsafe { write_elements(&p, |at| f32::load4(p.x.ptr().add(at))) }
}

/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
unsafe fn gated_rows<A: Gate>(p: Q8RowsParams) {
    // SAFETY: the caller's.
    unsafe {
        write_elements(&p, |at| {
            let gate = f32::load4(p.x.ptr().add(at));
            let up = f32::load4(p.other.ptr().add(at));
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

/// Encodes what `values` gives for the place of four elements of the thread's row.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
unsafe fn write_elements(p: &Q8RowsParams, values: impl Fn(usize) -> Four) {
    grid::wait();
    let row = thread::block_idx_y();
    let element = Q8_ROWS_ELEMENTS * thread::index_1d();
    // A step is a whole number of warps' elements, so that these stay together.
    if element < p.width.next_multiple_of(MATMUL_Q8_STEP) {
        let mut four = [0.0; Q8_ROWS_ELEMENTS as usize];
        if element < p.width {
            four = values(row as usize * p.width as usize + element as usize);
        }
        // SAFETY: whole warps; the row is in the buffers.
        unsafe { write(p, row, element, four) };
    }
}

/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
unsafe fn normed_rows(p: Q8RowsParams) {
    grid::wait();
    let row = thread::block_idx_y();
    let x = p.x.ptr().wrapping_add(row as usize * p.width as usize);
    let first = Q8_ROWS_ELEMENTS * thread::thread_idx_x();
    let stride = Q8_ROWS_ELEMENTS * thread::block_dim_x();
    let load = |from: *const f32, element: u32| {
        if element < p.width {
            // SAFETY: inside the row, at a multiple of 16 bytes.
            unsafe { f32::load4(from.add(element as usize)) }
        } else {
            [0.0; Q8_ROWS_ELEMENTS as usize]
        }
    };
    // The first elements stay in registers, and their weights are on their way meanwhile: mostly there are no others.
    let (values, weights) = (load(x, first), load(p.other.ptr(), first));
    let mut squares = square(values);
    let mut element = first + stride;
    while element < p.width {
        squares += square(load(x, element));
        element += stride;
    }
    // SAFETY: whole blocks are here; the row is in the buffers; whole warps stay together, as a step is a whole number
    // of warps' elements.
    unsafe {
        let mean = block_sum(squares, static_shared![f32; 32]) / p.width as f32;
        let norm = 1.0 / (mean + p.epsilon).sqrt();
        let padded = p.width.next_multiple_of(MATMUL_Q8_STEP);
        if first < padded {
            write(&p, row, first, normed(values, norm, weights));
        }
        let mut element = first + stride;
        while element < padded {
            let values = normed(load(x, element), norm, load(p.other.ptr(), element));
            write(&p, row, element, values);
            element += stride;
        }
    }
}

#[inline(always)]
fn square([a, b, c, d]: Four) -> f32 {
    a.mul_add(a, b.mul_add(b, c.mul_add(c, d * d)))
}

#[inline(always)]
fn normed(values: Four, norm: f32, weights: Four) -> Four {
    let [a, b, c, d] = values;
    let [e, f, g, h] = weights;
    [a * norm * e, b * norm * f, c * norm * g, d * norm * h]
}

/// Encodes four elements of a row, which may be behind its end, and writes them also as they are where that is asked
/// for.
///
/// # Safety
/// The whole warp comes here with neighbouring elements; the row is in the buffers.
#[inline(always)]
unsafe fn write(p: &Q8RowsParams, row: u32, element: u32, values: Four) {
    /// Below it 127 / x would not be finite, and the elements become zeros.
    const SMALLEST: f32 = 1e-30;
    /// To add it converts, see [`activations`](super::activations): the low byte of the sum is the integer's.
    const INTEGERS: f32 = 12_582_912.0;
    const ONES: u32 = 0x0101_0101;
    // SAFETY: the caller's.
    unsafe {
        let largest = largest_of_group(values);
        let scale = largest * (1.0 / 127.0);
        let to_integer = if largest > SMALLEST {
            recip_approx(scale)
        } else {
            0.0
        };
        let q = values.map(|value| fma(value, to_integer, INTEGERS).to_bits());
        let word = pack_bytes(q);
        let sum = dp4a(ONES, word, 0) as f32;
        let sum = sum + shuffle_xor(sum, 1);
        let sum = sum + shuffle_xor(sum, 2);
        let sum = sum + shuffle_xor(sum, 4);

        let place = Place::of(p, row, element);
        *p.y.elements.mut_ptr().add(place.word) = word;
        if element.is_multiple_of(ACTIVATION_GROUP) {
            *p.y.scales.mut_ptr().add(place.scale) = scale;
            *p.y.sums.mut_ptr().add(place.sum) = to_tf32(scale * sum);
        }
        if !p.values.is_null() && element < p.width {
            let to = p.values.mut_ptr();
            f32::store4(
                to.add(row as usize * p.width as usize + element as usize),
                values,
            );
        }
    }
}

/// The largest magnitude of a group, whose elements eight neighbouring lanes have. A NaN is the largest: magnitudes are
/// ordered as their bits are.
///
/// # Safety
/// All 32 lanes of the warp come here together.
#[inline(always)]
unsafe fn largest_of_group(values: Four) -> f32 {
    let [a, b, c, d] = values.map(|value| value.to_bits() & 0x7fff_ffff);
    let mut largest = a.max(b).max(c.max(d));
    let mut distance = ACTIVATION_GROUP / Q8_ROWS_ELEMENTS / 2;
    while distance > 0 {
        // SAFETY: the caller's.
        let other = unsafe { shuffle_xor(f32::from_bits(largest), distance) };
        largest = largest.max(other.to_bits());
        distance /= 2;
    }
    f32::from_bits(largest)
}

/// Where four elements of a row go, as [`Q8Vectors`](crate::abi::Q8Vectors) says.
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
        let place = step * tiles + tile;
        let (pair, which) = (unit / 2, unit % 2);
        // At most 32 rows are far below 2^32 words.
        let word = place * WORDS + 128 * pair + 4 * (4 * g + t) + 2 * which + half;
        let scale = place * SCALES + 16 * pair + 4 * (g / 2) + 2 * which + g % 2;
        Self {
            word: word as usize,
            scale: scale as usize,
            sum: (place * SCALES + 8 * unit + g) as usize,
        }
    }
}
