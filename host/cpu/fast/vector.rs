//! Rows of quantized weights times a vector in 8 bits, straight from the blocks: what decoding does.
//!
//! A row's product is eight sums side by side, of every eighth group of 32 elements, each a chain of fused additions of
//! half groups in the order of the columns; in the end they are added in pairs. `panel.rs` keeps this order, so both give the same bits.

use std::marker::PhantomData;

use super::activations::Quantized;
use crate::gguf::quant::chunk::{Chunk, Each, Levels, WithChunk, chunks_of};
use crate::gguf::quant::simd::integers::{GROUPS, eight};
use crate::gguf::quant::simd::{Kernel, Simd, dispatch};

/// Rows times vectors.
pub struct Rows<'a> {
    /// The rows' bytes.
    pub bytes: &'a [u8],
    /// Bytes of a row.
    pub row_bytes: usize,
    /// Of each vector its chunks, one vector after the other.
    pub vectors: &'a [Quantized],
    /// Chunks of a vector.
    pub n_chunks: usize,
    /// `[rows, vectors]`.
    pub out: &'a mut [f32],
}

impl WithChunk for Rows<'_> {
    type Output = ();

    fn run<C: Chunk>(self) {
        dispatch(Product::<C>(self, PhantomData));
    }
}

/// [`Rows`] of chunks of a type.
pub struct Product<'a, C>(pub Rows<'a>, pub PhantomData<C>);

impl<C: Chunk> Kernel for Product<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self.0;
        let n_vectors = rows.vectors.len() / rows.n_chunks;
        let bytes = rows.bytes.chunks_exact(rows.row_bytes);
        for (row, out) in bytes.zip(rows.out.chunks_exact_mut(n_vectors)) {
            let parts = chunks_of::<C>(row);
            for (out, x) in out.iter_mut().zip(rows.vectors.chunks_exact(rows.n_chunks)) {
                let mut sums = simd.splat_eight(0.0);
                let (x_whole, x_last) = x.split_at(parts[0].len());
                for (chunk, x) in parts[0].iter().zip(x_whole) {
                    sums = add_products(simd, chunk, x, sums);
                }
                for (chunk, x) in parts[1].iter().zip(x_last) {
                    sums = add_products(simd, chunk, x, sums);
                }
                let mut lanes = [0.0; GROUPS];
                simd.store_eight_floats(sums, &mut lanes);
                *out = sum_of(lanes);
            }
        }
    }
}

/// The sum in pairs. There is no negative zero, whatever was filled up with zeros.
#[inline(always)]
fn sum_of([a, b, c, d, e, f, g, h]: [f32; GROUPS]) -> f32 {
    ((a + e) + (c + g)) + ((b + f) + (d + h)) + 0.0
}

/// `sums` and the products of a chunk, lane by lane.
#[inline(always)]
fn add_products<S: Simd, C: Chunk>(
    simd: S,
    chunk: &C,
    x: &Quantized,
    sums: S::EightFloats,
) -> S::EightFloats {
    let products = eight!(|g| {
        let levels = chunk.levels(simd, g);
        match C::LEVELS {
            Levels::Signed => simd.dot_signed(levels, &x.levels[g]),
            Levels::Unsigned | Levels::Centered(_) => simd.dot_unsigned(levels, &x.levels[g]),
        }
    });
    let mut halves = simd.sum_halves(products);
    if let Levels::Centered(shift) = C::LEVELS {
        for (half, sums) in halves.iter_mut().zip(&x.sums) {
            *half = simd.sub_eight(*half, simd.shift_eight(simd.load_eight(sums), shift));
        }
    }
    let scales = chunk.scales(simd);
    let mut sums = sums;
    for (half, x_scales) in x.scales.iter().enumerate() {
        let total = match C::FACTORS {
            Each::None => halves[half],
            Each::Group | Each::Half => simd.mul_eight(halves[half], scales.factors[half]),
        };
        let scale = simd.mul_eight_floats(scales.scale, simd.load_eight_floats(x_scales));
        sums = simd.fused_eight(simd.eight_to_floats(total), scale, sums);
    }
    match C::OFFSETS {
        Each::None => sums,
        Each::Group => simd.fused_eight(
            scales.offsets[0],
            simd.load_eight_floats(&x.scaled_group_sums),
            sums,
        ),
        Each::Half => {
            let [first, last] = &x.scaled_sums;
            let sums = simd.fused_eight(scales.offsets[0], simd.load_eight_floats(first), sums);
            simd.fused_eight(scales.offsets[1], simd.load_eight_floats(last), sums)
        }
    }
}
