//! Matrix products with quantized weights.
//!
//! All of them in f64, and the same way for one token as for many: an element's sum runs over the columns in one
//! order, whatever is multiplied beside it, so that a token's values do not depend on the step that it is in.

use rayon::prelude::*;

use super::dot::dots;
use crate::cpu::interrupt::Interrupt;
use crate::gguf::quant::simd::{Kernel, Simd, dispatch};
use crate::model::Linear;

/// Rows of weights that a task takes: enough work to outweigh its scheduling, few enough that all
/// cores get some even in the smallest matrices.
const ROWS_PER_TASK: usize = 16;
/// Rows that are multiplied together with a single token.
const ROWS_OF_VECTOR: usize = 4;

/// `x W^T + bias` for `x` of `[tokens, n_in]`: `[tokens, n_out]`. Rows are missing once `interrupt` is requested.
pub fn linear(linear: &Linear, x: &[f64], interrupt: Interrupt) -> Vec<f64> {
    let (n_in, n_out) = (linear.n_in(), linear.n_out());
    let n_tokens = x.len() / n_in;
    let mut out = match n_tokens {
        0 => return Vec::new(),
        1 => product(linear, x, 1, interrupt),
        _ => transpose(&product(linear, x, n_tokens, interrupt), n_out, n_tokens),
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

/// Rows are unpacked once and multiplied with every token. `[n_out, n_tokens]`.
fn product(linear: &Linear, x: &[f64], n_tokens: usize, interrupt: Interrupt) -> Vec<f64> {
    let (n_in, n_out) = (linear.n_in(), linear.n_out());
    let mut out = vec![0.0; n_out * n_tokens];
    // What is unpacked for a single token is used once: as few rows as the registers take stay in the first cache.
    let at_a_time = match n_tokens {
        1 => ROWS_OF_VECTOR,
        _ => ROWS_PER_TASK,
    };
    out.par_chunks_mut(ROWS_PER_TASK * n_tokens)
        .enumerate()
        .for_each_init(Vec::new, |rows, (task, out)| {
            if interrupt.is_requested() {
                return;
            }
            let parts = out.chunks_mut(at_a_time * n_tokens).enumerate();
            for (part, out) in parts {
                let first = task * ROWS_PER_TASK + part * at_a_time;
                let last = (first + at_a_time).min(n_out);
                rows.resize((last - first) * n_in, 0.0);
                linear.weight.dequantize_rows(first..last, rows);
                dispatch(Product {
                    rows,
                    x,
                    n_in,
                    n_tokens,
                    out,
                });
            }
        });
    out
}

/// `[n_rows, n_columns]` to `[n_columns, n_rows]`, a few columns at a time: what the cache fetches
/// is used whole.
fn transpose(matrix: &[f64], n_rows: usize, n_columns: usize) -> Vec<f64> {
    const COLUMNS: usize = 8;
    let mut out = vec![0.0; matrix.len()];
    out.par_chunks_mut(n_rows * COLUMNS)
        .enumerate()
        .for_each(|(task, out)| {
            for (row, from) in matrix.chunks_exact(n_columns).enumerate() {
                let from = from[task * COLUMNS..].iter().take(COLUMNS);
                for (column, &value) in from.enumerate() {
                    out[column * n_rows + row] = value;
                }
            }
        });
    out
}

/// `rows` (`[n, n_in]`, unpacked) times `x` (`[n_tokens, n_in]`) into `out` (`[n, n_tokens]`).
struct Product<'a> {
    rows: &'a [f32],
    x: &'a [f64],
    n_in: usize,
    n_tokens: usize,
    out: &'a mut [f64],
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        // As many sums as the registers hold beside what is multiplied.
        match S::DOUBLES_HELD {
            32.. => self.tiles::<S, 4, 4>(simd),
            8.. => self.tiles::<S, 2, 2>(simd),
            _ => self.tiles::<S, 1, 2>(simd),
        }
    }
}

impl Product<'_> {
    /// `R` rows and `C` tokens at a time. The rows stay in the cache while the tokens pass.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const C: usize>(&mut self, simd: S) {
        let whole = self.n_tokens / C * C;
        for token in (0..whole).step_by(C) {
            self.columns::<S, R, C>(simd, token);
        }
        for token in whole..self.n_tokens {
            self.columns::<S, R, 1>(simd, token);
        }
    }

    /// All rows times `C` tokens.
    #[inline(always)]
    fn columns<S: Simd, const R: usize, const C: usize>(&mut self, simd: S, token: usize) {
        let n_rows = self.rows.len() / self.n_in;
        let whole = n_rows / R * R;
        for row in (0..whole).step_by(R) {
            self.tile::<S, R, C>(simd, row, token);
        }
        for row in whole..n_rows {
            self.tile::<S, 1, C>(simd, row, token);
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const C: usize>(&mut self, simd: S, row: usize, token: usize) {
        let n_in = self.n_in;
        // Not by closures: they would be compiled for the baseline.
        let mut rows = [&[] as &[f32]; R];
        for (r, slot) in rows.iter_mut().enumerate() {
            *slot = &self.rows[(row + r) * n_in..][..n_in];
        }
        let mut tokens = [&[] as &[f64]; C];
        for (c, slot) in tokens.iter_mut().enumerate() {
            *slot = &self.x[(token + c) * n_in..][..n_in];
        }
        let products: [[f64; C]; R] = dots(simd, rows, tokens);
        for (r, products) in products.iter().enumerate() {
            self.out[(row + r) * self.n_tokens + token..][..C].copy_from_slice(products);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tiles of the instruction sets that this machine does not choose.
    struct Tiled<'a, const R: usize, const C: usize>(Product<'a>);

    impl<const R: usize, const C: usize> Kernel for Tiled<'_, R, C> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(mut self, simd: S) {
            self.0.tiles::<S, R, C>(simd);
        }
    }

    #[test]
    fn tiles_add_up_in_any_shape() {
        add_up(|product| dispatch(product));
        add_up(|product| dispatch(Tiled::<4, 4>(product)));
        add_up(|product| dispatch(Tiled::<2, 2>(product)));
        add_up(|product| dispatch(Tiled::<1, 2>(product)));
    }

    fn add_up(multiply: impl Fn(Product)) {
        for (n_rows, n_in, n_tokens) in [(1, 1, 2), (5, 16, 4), (3, 37, 7), (16, 576, 9)] {
            let rows: Vec<f32> = (0..n_rows * n_in)
                .map(|i| (i as f32 * 0.37).sin())
                .collect();
            let x: Vec<f64> = (0..n_tokens * n_in)
                .map(|i| (i as f64 * 0.71).sin())
                .collect();
            let mut out = vec![f64::NAN; n_rows * n_tokens];
            multiply(Product {
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
