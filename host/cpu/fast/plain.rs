//! Rows that are not quantized times vectors, in f32.
//!
//! A product is sixteen sums side by side, of every sixteenth column in order, whatever is multiplied beside it.

use crate::gguf::quant::simd::{Kernel, LANES, Simd};

/// Rows times vectors.
pub struct Rows<'a> {
    /// `[rows, n_in]`.
    pub rows: &'a [f32],
    /// `[vectors, n_in]`.
    pub x: &'a [f32],
    /// Columns.
    pub n_in: usize,
    /// `[rows, vectors]`.
    pub out: &'a mut [f32],
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Rows { rows, x, n_in, out } = self;
        let n_vectors = x.len() / n_in;
        let rows_of_out = out.chunks_mut(2 * n_vectors);
        for (rows, out) in rows.chunks(2 * n_in).zip(rows_of_out) {
            let (first, second) = rows.split_at(n_in);
            let (out_first, out_second) = out.split_at_mut(n_vectors);
            for (v, x) in x.chunks(2 * n_in).enumerate() {
                let (x_first, x_second) = x.split_at(n_in);
                match (second.is_empty(), x_second.is_empty()) {
                    (false, false) => {
                        let found = dots(simd, [first, second], [x_first, x_second]);
                        out_first[2 * v..2 * v + 2].copy_from_slice(&found[0]);
                        out_second[2 * v..2 * v + 2].copy_from_slice(&found[1]);
                    }
                    (false, true) => {
                        let found = dots(simd, [first, second], [x_first]);
                        out_first[2 * v] = found[0][0];
                        out_second[2 * v] = found[1][0];
                    }
                    (true, false) => {
                        let found = dots(simd, [first], [x_first, x_second]);
                        out_first[2 * v..2 * v + 2].copy_from_slice(&found[0]);
                    }
                    (true, true) => out_first[2 * v] = dots(simd, [first], [x_first])[0][0],
                }
            }
        }
    }
}

/// The products of each of `a` with each of `b`, all of one length.
#[inline(always)]
fn dots<S: Simd, const R: usize, const C: usize>(
    simd: S,
    a: [&[f32]; R],
    b: [&[f32]; C],
) -> [[f32; C]; R] {
    let (chunks, len) = (a[0].len() / LANES, a[0].len());
    // All of one length, so that one bound check serves all.
    let a_chunks: [&[[f32; LANES]]; R] = a.map(|a| &a.as_chunks().0[..chunks]);
    let b_chunks: [&[[f32; LANES]]; C] = b.map(|b| &b.as_chunks().0[..chunks]);
    let mut sums = [[simd.splat(0.0); C]; R];
    for chunk in 0..chunks {
        for r in 0..R {
            let row = simd.load(&a_chunks[r][chunk]);
            for c in 0..C {
                sums[r][c] = simd.mul_add(row, simd.load(&b_chunks[c][chunk]), sums[r][c]);
            }
        }
    }
    let mut out = [[0.0; C]; R];
    for r in 0..R {
        for c in 0..C {
            out[r][c] = simd.sum(sums[r][c]);
            for i in chunks * LANES..len {
                out[r][c] += a[r][i] * b[c][i];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::quant::simd::dispatch;

    #[test]
    fn any_shape_adds_up_to_the_same_bits() {
        for (n_rows, n_in, n_vectors) in [(1, 1, 1), (3, 37, 5), (16, 576, 4)] {
            let wave = |n: usize, step: f32| -> Vec<f32> {
                (0..n).map(|i| (i as f32 * step).sin()).collect()
            };
            let (rows, x) = (wave(n_rows * n_in, 0.37), wave(n_vectors * n_in, 0.71));
            let product = |rows: &[f32], x: &[f32]| {
                let mut out = vec![f32::NAN; rows.len() / n_in * (x.len() / n_in)];
                let out_of = &mut out;
                dispatch(Rows {
                    rows,
                    x,
                    n_in,
                    out: out_of,
                });
                out
            };
            let all = product(&rows, &x);
            for (r, row) in rows.chunks(n_in).enumerate() {
                for (v, x) in x.chunks(n_in).enumerate() {
                    let found = all[r * n_vectors + v];
                    assert_eq!(found.to_bits(), product(row, x)[0].to_bits());
                    let exact: f64 = row.iter().zip(x).map(|(a, b)| f64::from(a * b)).sum();
                    assert!(
                        (f64::from(found) - exact).abs() < 1e-4,
                        "{found} is not {exact}"
                    );
                }
            }
        }
    }
}
