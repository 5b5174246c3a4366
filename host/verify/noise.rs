//! What rounding the inputs of a product must be expected to cost, given those inputs.
//!
//! Where a block of 32 activations shares a scale `d = max |x| / 127`, each is off by up to `d / 2`,
//! evenly spread: a variance of `d^2 / 12`. The result's squared error is then expected to be
//! `sum over blocks (d^2 / 12 * sum of the squared weights of the block's columns)`. A model with
//! outliers in its activations pays much more than one without, so a constant would either refuse
//! the one or hide faults of the other.

use crate::model::Linear;

/// Activations that share a scale.
const BLOCK: usize = 32;

/// Rows of a matrix that stand for all.
const SAMPLE: usize = 128;

/// Squared weights of a matrix, summed over the columns of each block of activations and all rows.
#[derive(Debug, Clone)]
pub struct ColumnEnergy {
    n_in: usize,
    blocks: Vec<f64>,
}

impl ColumnEnergy {
    /// From rows spread over the matrix.
    pub fn of(linear: &Linear) -> ColumnEnergy {
        let (n_in, n_out) = (linear.n_in(), linear.n_out());
        let n_rows = n_out.min(SAMPLE);
        let mut blocks = vec![0.0; n_in.div_ceil(BLOCK)];
        let mut row = vec![0.0; n_in];
        for index in 0..n_rows {
            let at = index * n_out / n_rows;
            linear.weight.dequantize_rows(at..at + 1, &mut row);
            for (sum, weights) in blocks.iter_mut().zip(row.chunks(BLOCK)) {
                *sum += weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>();
            }
        }
        let scale = n_out as f64 / n_rows as f64;
        blocks.iter_mut().for_each(|sum| *sum *= scale);
        ColumnEnergy { n_in, blocks }
    }

    /// The expected error, in the 2-norm, of the products with the last `n_tokens` of `x` when these
    /// are rounded to 8 bits.
    pub fn q8_error(&self, x: &[f32], n_tokens: usize) -> f64 {
        let x = &x[x.len().saturating_sub(n_tokens * self.n_in)..];
        let mut square = 0.0;
        for token in x.chunks(self.n_in) {
            for (energy, block) in self.blocks.iter().zip(token.chunks(BLOCK)) {
                let max = block.iter().fold(0f32, |max, v| max.max(v.abs()));
                let step = f64::from(max) / 127.0;
                square += step * step / 12.0 * energy;
            }
        }
        square.sqrt()
    }
}
