//! Integer products against f64, and the same bits from every kernel on every instruction set.

use std::marker::PhantomData;

use proptest::prelude::*;

use super::activations::{Quantized, n_chunks, quantize};
use super::panel::{self, Panel, PanelProduct};
use super::vector;
use crate::gguf::GgmlType;
use crate::gguf::quant::chunk::{Chunk, Levels, WithChunk, chunks_of, place_of, with_chunk};
use crate::gguf::quant::dequantize;
use crate::gguf::quant::simd::integers::{GROUP, GROUPS};
use crate::gguf::quant::simd::{Kernel, Simd, dispatch, on_each};

/// Rows of random blocks and random vectors.
#[derive(Debug)]
struct Case {
    ty: GgmlType,
    n_in: usize,
    row_bytes: usize,
    rows: Vec<u8>,
    vectors: Vec<Quantized>,
}

impl Case {
    fn new(ty: GgmlType, n_in: usize, n_rows: usize, n_vectors: usize, seed: u64) -> Case {
        let mut state = seed;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as u32
        };
        let row_bytes = ty.bytes_of(n_in).expect("whole blocks");
        let mut rows = Vec::new();
        while rows.len() < n_rows * row_bytes {
            let block: Vec<u8> = (0..ty.block_bytes()).map(|_| random() as u8).collect();
            let mut values = vec![0.0; ty.block_elements()];
            dequantize(ty, &block, &mut values).expect("a block");
            // Broken and huge scales aside.
            if values.iter().all(|value| value.abs() < 1e9) {
                rows.extend(block);
            }
        }
        let element = |_| {
            let magnitude = f32::powi(2.0, (random() % 12) as i32 - 6);
            magnitude * (random() as f32 / f32::powi(2.0, 30) - 1.0)
        };
        let x: Vec<f32> = (0..n_vectors * n_in).map(element).collect();
        Case {
            ty,
            n_in,
            row_bytes,
            rows,
            vectors: x.chunks(n_in).flat_map(quantize).collect(),
        }
    }

    fn n_rows(&self) -> usize {
        self.rows.len() / self.row_bytes
    }

    /// Each vector's chunks.
    fn vectors(&self) -> impl Iterator<Item = &[Quantized]> {
        self.vectors.chunks(n_chunks(self.n_in))
    }

    /// An element of a vector.
    fn x(&self, vector: &[Quantized], i: usize) -> f64 {
        let (chunk, g) = place_of(i / GROUP, self.n_in / GROUP);
        let chunk = &vector[chunk];
        let scale = chunk.scales[i % GROUP / (GROUP / 2)][g];
        f64::from(scale) * f64::from(chunk.levels[g][i % GROUP])
    }
}

/// `[rows, vectors]` by `vector.rs`.
struct ByVector<'a, C>(&'a Case, PhantomData<C>);

impl<C: Chunk> Kernel for ByVector<'_, C> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<f32> {
        let case = self.0;
        let mut out = vec![f32::NAN; case.n_rows() * case.vectors().count()];
        let rows = vector::Rows {
            bytes: &case.rows,
            row_bytes: case.row_bytes,
            vectors: &case.vectors,
            n_chunks: n_chunks(case.n_in),
            out: &mut out,
        };
        vector::Product::<C>(rows, PhantomData).run(simd);
        out
    }
}

/// The same by `panel.rs`.
struct ByPanel<'a, C>(&'a Case, PhantomData<C>);

impl<C: Chunk> Kernel for ByPanel<'_, C> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<f32> {
        let case = self.0;
        let n_vectors = case.vectors().count();
        let pairs: Vec<_> = case.vectors.iter().map(panel::pairs).collect();
        let mut out = Vec::new();
        for rows in case.rows.chunks(panel::ROWS * case.row_bytes) {
            let mut of_panel = vec![[f32::NAN; panel::ROWS]; n_vectors];
            let product = PanelProduct {
                panel: &mut Panel::default(),
                bytes: rows,
                row_bytes: case.row_bytes,
                n_in: case.n_in,
                vectors: &case.vectors,
                pairs: &pairs,
                out: &mut of_panel,
            };
            panel::Product::<C>(product, PhantomData).run(simd);
            for row in 0..rows.len() / case.row_bytes {
                out.extend(of_panel.iter().map(|vector| vector[row]));
            }
        }
        out
    }
}

/// For each row and vector the sum of the magnitudes of all that is added.
struct Magnitudes<'a, C>(&'a Case, PhantomData<C>);

impl<C: Chunk> Kernel for Magnitudes<'_, C> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<f64> {
        let case = self.0;
        let mut out = Vec::new();
        for row in case.rows.chunks(case.row_bytes) {
            let parts = chunks_of::<C>(row);
            let chunks: Vec<&C> = parts.iter().flat_map(|part| part.iter()).collect();
            for vector in case.vectors() {
                let mut sum = 0.0;
                for i in 0..case.n_in {
                    let (chunk, g) = place_of(i / GROUP, case.n_in / GROUP);
                    let half = i % GROUP / (GROUP / 2);
                    let scales = chunks[chunk].scales(simd);
                    let (mut scale, mut offset) = ([0.0; GROUPS], [0.0; GROUPS]);
                    let (mut factor, mut levels) = ([0; GROUPS], [0; GROUP]);
                    simd.store_eight_floats(scales.scale, &mut scale);
                    simd.store_eight_floats(scales.offsets[half], &mut offset);
                    simd.store_eight(scales.factors[half], &mut factor);
                    simd.store_group(chunks[chunk].levels(simd, g), &mut levels);
                    let center = match C::LEVELS {
                        Levels::Centered(shift) => 1 << shift,
                        Levels::Signed | Levels::Unsigned => 0,
                    };
                    let level = i32::from(levels[i % GROUP] as i8) - center;
                    let weight = f64::from(scale[g]) * f64::from(factor[g] * level);
                    let x = case.x(vector, i);
                    sum += (weight * x).abs() + (f64::from(offset[g]) * x).abs();
                }
                out.push(sum);
            }
        }
        out
    }
}

struct Check<'a>(&'a Case);

impl WithChunk for Check<'_> {
    type Output = ();

    fn run<C: Chunk>(self) {
        let case = self.0;
        let by_vector = on_each(|| ByVector::<C>(case, PhantomData));
        let by_panel = on_each(|| ByPanel::<C>(case, PhantomData));
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let defined = &by_vector[0].1;
        for (set, found) in by_vector.iter().chain(&by_panel) {
            assert_eq!(bits(found), bits(defined), "{set}: {case:?}");
        }
        let magnitudes = dispatch(Magnitudes::<C>(case, PhantomData));
        // A lane adds three numbers for each of its groups; pairs of lanes, scaled sums and the weights' own rounding
        // add a few roundings more.
        let bound = (3 * n_chunks(case.n_in) + 9) as f64 * f64::exp2(-24.0);
        let mut weights = vec![0.0; case.n_in];
        for (r, row) in case.rows.chunks(case.row_bytes).enumerate() {
            dequantize(case.ty, row, &mut weights).expect("a row");
            for (v, vector) in case.vectors().enumerate() {
                let products = weights.iter().enumerate();
                let exact: f64 = products
                    .map(|(i, &w)| f64::from(w) * case.x(vector, i))
                    .sum();
                let at = r * case.vectors().count() + v;
                let error = (f64::from(defined[at]) - exact).abs();
                assert!(
                    error <= bound * magnitudes[at],
                    "{}: {} is not {exact}, of {}",
                    case.ty.name(),
                    defined[at],
                    magnitudes[at]
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn products_are_close_and_have_one_result(
        size in 1usize..20,
        n_rows in 1usize..19,
        n_vectors in 1usize..10,
        seed: u64,
    ) {
        for &ty in GgmlType::ALL {
            // As many groups as `size`, or super-blocks for up to two.
            let n_in = match ty.block_elements() {
                GROUP => size * GROUP,
                n => (1 + size % 2) * n,
            };
            // Types of plain numbers have no chunks.
            if ty.block_elements() > 1 {
                let case = Case::new(ty, n_in, n_rows, n_vectors, seed);
                prop_assert!(with_chunk(ty, Check(&case)).is_some(), "{}", ty.name());
            }
        }
    }
}
