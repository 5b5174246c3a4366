//! Matrix products with quantized weights.
//!
//! Several tokens are multiplied in f64, so that a prompt's values do not depend on the order of the
//! sums. A single token, where speed counts, is multiplied in f32.

use rayon::prelude::*;

use crate::gguf::quant;
use crate::gguf::quant::simd::{Kernel, Simd, dispatch};
use crate::model::Linear;

/// Rows of weights that a task takes: enough work to outweigh its scheduling, few enough that all
/// cores get some even in the smallest matrices.
const ROWS_PER_TASK: usize = 16;

/// `x W^T + bias` for `x` of `[tokens, n_in]`: `[tokens, n_out]`.
pub fn linear(linear: &Linear, x: &[f64]) -> Vec<f64> {
    let (n_in, n_out) = (linear.n_in(), linear.n_out());
    let n_tokens = x.len() / n_in;
    let mut out = match n_tokens {
        0 => return Vec::new(),
        1 => product_with_vector(linear, x),
        _ => transpose(&product_with_tokens(linear, x, n_tokens), n_out, n_tokens),
    };
    if let Some(bias) = &linear.bias {
        for row in out.chunks_exact_mut(n_out) {
            row.iter_mut()
                .zip(bias)
                .for_each(|(value, &bias)| *value += f64::from(bias));
        }
    }
    out
}

/// One token: each row is decoded on its way through the dot product. `[n_out]`.
fn product_with_vector(linear: &Linear, x: &[f64]) -> Vec<f64> {
    let x: Vec<f32> = x.iter().map(|&value| value as f32).collect();
    let mut out = vec![0.0; linear.n_out()];
    out.par_chunks_mut(ROWS_PER_TASK)
        .enumerate()
        .for_each(|(task, out)| {
            for (index, out) in out.iter_mut().enumerate() {
                let row = linear.weight.row_bytes(task * ROWS_PER_TASK + index);
                *out = f64::from(quant::dot(linear.weight.ty(), row, &x));
            }
        });
    out
}

/// Several tokens: rows are decoded once and multiplied with every token. `[n_out, n_tokens]`.
fn product_with_tokens(linear: &Linear, x: &[f64], n_tokens: usize) -> Vec<f64> {
    let (n_in, n_out) = (linear.n_in(), linear.n_out());
    let mut out = vec![0.0; n_out * n_tokens];
    out.par_chunks_mut(ROWS_PER_TASK * n_tokens)
        .enumerate()
        .for_each_init(Vec::new, |rows, (task, out)| {
            let first = task * ROWS_PER_TASK;
            let last = (first + ROWS_PER_TASK).min(n_out);
            rows.resize((last - first) * n_in, 0.0);
            linear.weight.dequantize_rows(first..last, rows);
            dispatch(Product {
                rows,
                x,
                n_in,
                n_tokens,
                out,
            });
        });
    out
}

fn transpose(matrix: &[f64], n_rows: usize, n_columns: usize) -> Vec<f64> {
    let mut out = vec![0.0; matrix.len()];
    out.par_chunks_exact_mut(n_rows)
        .enumerate()
        .for_each(|(column, out)| {
            for (row, out) in out.iter_mut().enumerate() {
                *out = matrix[row * n_columns + column];
            }
        });
    out
}

/// `rows` (`[n, n_in]`, decoded) times `x` (`[n_tokens, n_in]`) into `out` (`[n, n_tokens]`).
struct Product<'a> {
    rows: &'a [f32],
    x: &'a [f64],
    n_in: usize,
    n_tokens: usize,
    out: &'a mut [f64],
}

/// Tokens multiplied with a row at once: each loaded weight serves four fused multiply-adds.
const TILE: usize = 4;

/// Partial sums for each of them; four times eight doubles fit the registers of every CPU with
/// vectors of 256 bits.
const WIDTH: usize = 8;

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Product {
            rows,
            x,
            n_in,
            n_tokens,
            out,
        } = self;
        for (row, out) in rows.chunks_exact(n_in).zip(out.chunks_exact_mut(n_tokens)) {
            let (tiles, rest) = out.as_chunks_mut::<TILE>();
            let mut tokens = x.chunks_exact(n_in);
            let mut next = || tokens.next().unwrap_or_default();
            for tile in tiles {
                *tile = dot_tile(row, [next(), next(), next(), next()]);
            }
            for out in rest {
                [*out] = dot_tile(row, [next()]);
            }
        }
    }
}

/// The products of `row` with each of `x`. For use inside a [`Kernel`].
#[inline(always)]
pub fn dot_tile<T: Copy + Into<f64>, const N: usize>(row: &[T], x: [&[f64]; N]) -> [f64; N] {
    let (row_chunks, row_rest) = row.as_chunks::<WIDTH>();
    let x_chunks: [&[[f64; WIDTH]]; N] = x.map(|x| &x.as_chunks::<WIDTH>().0[..row_chunks.len()]);
    let mut sums = [[0.0; WIDTH]; N];
    for (chunk, row) in row_chunks.iter().enumerate() {
        let row = row.map(Into::into);
        for (sums, x) in sums.iter_mut().zip(x_chunks) {
            for i in 0..WIDTH {
                sums[i] += row[i] * x[chunk][i];
            }
        }
    }
    let mut out = [0.0; N];
    for token in 0..N {
        let x_rest = &x[token][row_chunks.len() * WIDTH..];
        let rest = row_rest.iter().zip(x_rest).map(|(&a, &b)| a.into() * b);
        out[token] = sums[token].iter().sum::<f64>() + rest.sum::<f64>();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_add_up_in_any_shape() {
        for (n_rows, n_in, n_tokens) in [(1, 1, 2), (5, 16, 4), (3, 37, 7), (16, 576, 9)] {
            let rows: Vec<f32> = (0..n_rows * n_in)
                .map(|i| (i as f32 * 0.37).sin())
                .collect();
            let x: Vec<f64> = (0..n_tokens * n_in)
                .map(|i| (i as f64 * 0.71).sin())
                .collect();
            let mut out = vec![f64::NAN; n_rows * n_tokens];
            dispatch(Product {
                rows: &rows,
                x: &x,
                n_in,
                n_tokens,
                out: &mut out,
            });
            for row in 0..n_rows {
                for token in 0..n_tokens {
                    let (a, b) = (&rows[row * n_in..][..n_in], &x[token * n_in..][..n_in]);
                    let exact: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * b).sum();
                    let found = out[row * n_tokens + token];
                    assert!((found - exact).abs() < 1e-12, "{found} is not {exact}");
                }
            }
        }
    }
}
