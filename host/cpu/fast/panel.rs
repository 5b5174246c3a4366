//! Sixteen rows of quantized weights, unpacked to 16-bit integers side by side, times many vectors in 8 bits: what
//! prompts do.
//!
//! A lane is a row, so that a sum over columns needs no sums over lanes. Sums of half a group are exact, and the floats
//! are added in the order of `vector.rs`: the same bits.

// Several arrays have an element for each query, vector or half.
#![allow(clippy::needless_range_loop)]

use std::marker::PhantomData;

use super::activations::Quantized;
use crate::gguf::quant::chunk::{Chunk, Each, Levels, WithChunk, chunks_of};
use crate::gguf::quant::simd::integers::{GROUP, GROUPS, eight};
use crate::gguf::quant::simd::{Kernel, LANES, Simd, dispatch};

/// Rows of a panel.
pub const ROWS: usize = LANES;

/// Two neighbouring elements make a pair.
const PAIRS: usize = GROUP / 2;

/// The levels of a chunk's groups as 16-bit integers, two in a word.
pub type Pairs = [[i32; PAIRS]; GROUPS];

/// The levels of a chunk in pairs.
pub fn pairs(x: &Quantized) -> Pairs {
    let pair = |[low, high]: [i8; 2]| i32::from(low) & 0xffff | i32::from(high) << 16;
    let group = |levels: &[i8; GROUP]| {
        let pairs = levels.as_chunks::<2>().0;
        std::array::from_fn(|p| pair(pairs[p]))
    };
    x.levels.each_ref().map(group)
}

/// A group of all rows.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Group {
    /// `factor * (level - center)`: of each pair of columns two elements of each row.
    weights: [[i16; 2 * ROWS]; PAIRS],
    scales: [f32; ROWS],
    offsets: [[f32; ROWS]; 2],
}

impl Group {
    const ZERO: Group = Group {
        weights: [[0; 2 * ROWS]; PAIRS],
        scales: [0.0; ROWS],
        offsets: [[0.0; ROWS]; 2],
    };
}

/// Unpacked rows; kept between uses for its memory.
#[derive(Default)]
pub struct Panel(Vec<Group>);

/// At most [`ROWS`] rows times all vectors.
pub struct PanelProduct<'a> {
    /// Where the rows are unpacked.
    pub panel: &'a mut Panel,
    /// The rows' bytes.
    pub bytes: &'a [u8],
    /// Bytes of a row.
    pub row_bytes: usize,
    /// Elements of a row.
    pub n_in: usize,
    /// Of each vector its chunks, one vector after the other.
    pub vectors: &'a [Quantized],
    /// [`pairs`] of them.
    pub pairs: &'a [Pairs],
    /// `[vectors, ROWS]`.
    pub out: &'a mut [[f32; ROWS]],
}

impl WithChunk for PanelProduct<'_> {
    type Output = ();

    fn run<C: Chunk>(self) {
        dispatch(Product::<C>(self, PhantomData));
    }
}

/// [`PanelProduct`] of chunks of a type.
pub struct Product<'a, C>(pub PanelProduct<'a>, pub PhantomData<C>);

impl<C: Chunk> Kernel for Product<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let product = self.0;
        let panel = &mut product.panel.0;
        panel.resize(product.n_in / GROUP, Group::ZERO);
        let rows = product.bytes.chunks_exact(product.row_bytes);
        for (row, bytes) in rows.enumerate() {
            let parts = chunks_of::<C>(bytes);
            let (whole, last) = panel.split_at_mut(parts[0].len() * GROUPS);
            for (chunk, groups) in parts[0].iter().zip(whole.chunks_exact_mut(GROUPS)) {
                unpack(simd, chunk, row, groups);
            }
            for chunk in &*parts[1] {
                unpack(simd, chunk, row, last);
            }
        }
        let (vectors, pairs, out) = (product.vectors, product.pairs, product.out);
        match S::SUMS_HELD {
            8.. => tiles::<S, C, 8>(simd, panel, vectors, pairs, out),
            4.. => tiles::<S, C, 4>(simd, panel, vectors, pairs, out),
            _ => tiles::<S, C, 1>(simd, panel, vectors, pairs, out),
        }
    }
}

/// The last groups of a chunk, as many as there are in `groups`.
#[inline(always)]
fn unpack<S: Simd, C: Chunk>(simd: S, chunk: &C, row: usize, groups: &mut [Group]) {
    let scales = chunk.scales(simd);
    let (mut factors, mut offsets) = ([[0; GROUPS]; 2], [[0.0; GROUPS]; 2]);
    let mut scale = [0.0; GROUPS];
    simd.store_eight_floats(scales.scale, &mut scale);
    for half in 0..2 {
        simd.store_eight(scales.factors[half], &mut factors[half]);
        simd.store_eight_floats(scales.offsets[half], &mut offsets[half]);
    }
    let first = GROUPS - groups.len();
    for (g, group) in (first..GROUPS).zip(groups) {
        let mut levels = [0; GROUP];
        simd.store_group(chunk.levels(simd, g), &mut levels);
        let center = match C::LEVELS {
            Levels::Centered(shift) => 1 << shift,
            Levels::Signed | Levels::Unsigned => 0,
        };
        let mut weights = [0i16; GROUP];
        for (i, (weight, level)) in weights.iter_mut().zip(levels).enumerate() {
            let factor = factors[i / (GROUP / 2)][g] as i16;
            *weight = (i16::from(level as i8) - center).wrapping_mul(factor);
        }
        for (pair, to) in weights.as_chunks::<2>().0.iter().zip(&mut group.weights) {
            to.as_chunks_mut::<2>().0[row] = *pair;
        }
        group.scales[row] = scale[g];
        for half in 0..2 {
            group.offsets[half][row] = offsets[half][g];
        }
    }
}

/// `T` vectors at a time, and what is left one by one.
#[inline(always)]
fn tiles<S: Simd, C: Chunk, const T: usize>(
    simd: S,
    panel: &[Group],
    vectors: &[Quantized],
    pairs: &[Pairs],
    out: &mut [[f32; ROWS]],
) {
    let n_chunks = panel.len().div_ceil(GROUPS);
    let whole = out.len() / T * T;
    let (out, rest) = out.split_at_mut(whole);
    let (vectors, last_vectors) = vectors.split_at(whole * n_chunks);
    let (pairs, last_pairs) = pairs.split_at(whole * n_chunks);
    let of_tiles = vectors
        .chunks_exact(T * n_chunks)
        .zip(pairs.chunks_exact(T * n_chunks));
    for ((vectors, pairs), out) in of_tiles.zip(out.chunks_exact_mut(T)) {
        tile::<S, C, T>(simd, panel, vectors, pairs, out);
    }
    let of_rest = last_vectors
        .chunks_exact(n_chunks)
        .zip(last_pairs.chunks_exact(n_chunks));
    for ((vectors, pairs), out) in of_rest.zip(rest.chunks_exact_mut(1)) {
        tile::<S, C, 1>(simd, panel, vectors, pairs, out);
    }
}

/// All rows times `T` vectors.
#[inline(always)]
fn tile<S: Simd, C: Chunk, const T: usize>(
    simd: S,
    panel: &[Group],
    vectors: &[Quantized],
    pairs: &[Pairs],
    out: &mut [[f32; ROWS]],
) {
    let n_chunks = panel.len().div_ceil(GROUPS);
    let mut totals = [[simd.splat(0.0); T]; GROUPS];
    for (chunk, groups) in panel.chunks(GROUPS).enumerate() {
        for (g, group) in (GROUPS - groups.len()..GROUPS).zip(groups) {
            let totals = &mut totals[g];
            let mut x = [&[0; PAIRS]; T];
            for t in 0..T {
                x[t] = &pairs[t * n_chunks + chunk][g];
            }
            let halves = group.weights.as_chunks::<{ PAIRS / 2 }>().0;
            for (half, weights) in halves.iter().enumerate() {
                let mut sums = [simd.no_sums(); T];
                for (p, weights) in weights.iter().enumerate() {
                    for t in 0..T {
                        let x = x[t][half * (PAIRS / 2) + p];
                        sums[t] = simd.add_pairs(sums[t], weights, x);
                    }
                }
                for t in 0..T {
                    let scale = simd.splat(vectors[t * n_chunks + chunk].scales[half][g]);
                    let scale = simd.mul(simd.load(&group.scales), scale);
                    totals[t] = simd.fused(simd.sums_to_floats(sums[t]), scale, totals[t]);
                }
            }
            for t in 0..T {
                let x = &vectors[t * n_chunks + chunk];
                let mut total = totals[t];
                let [first, last] = &group.offsets;
                match C::OFFSETS {
                    Each::None => {}
                    Each::Group => {
                        let sum = simd.splat(x.scaled_group_sums[g]);
                        total = simd.fused(simd.load(first), sum, total);
                    }
                    Each::Half => {
                        let sums = [0, 1].map(|half| x.scaled_sums[half][g]);
                        total = simd.fused(simd.load(first), simd.splat(sums[0]), total);
                        total = simd.fused(simd.load(last), simd.splat(sums[1]), total);
                    }
                }
                totals[t] = total;
            }
        }
    }
    for t in 0..T {
        // Not by a closure: it would be compiled for the baseline.
        let [a, b, c, d, e, f, g, h] = eight!(|g| totals[g][t]);
        let even = simd.add(simd.add(a, e), simd.add(c, g));
        let odd = simd.add(simd.add(b, f), simd.add(d, h));
        // As in `vector.rs`, without a negative zero.
        simd.store(simd.add(simd.add(even, odd), simd.splat(0.0)), &mut out[t]);
    }
}
