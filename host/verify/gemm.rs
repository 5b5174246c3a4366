//! Matrix products by hand: rows of each product recomputed in f64 from the file's own bytes and
//! the backend's own input, and held against the backend's own result. The input of a product that
//! is fused with the norm before it is what the reference makes of the backend's residual stream.

use serde::Serialize;

use super::bounds::Bounds;
use super::products::products;
use super::run::ObservedStep;
use crate::backend::{RecordedTensor, TensorName};
use crate::device::{GemmCall, GemmType};
use crate::gguf::quant;
use crate::model::{Linear, Model};

/// One product of one step.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedProduct {
    /// Its step, counted from 0.
    pub step: usize,
    /// The tensor that it wrote.
    pub output: String,
    /// The matrix.
    pub tensor: String,
    /// The matrix's type.
    #[serde(rename = "type")]
    pub ty: String,
    /// Row-major shapes of input, matrix and result.
    pub shapes: [[usize; 2]; 3],
    /// What cuBLAS is given for these shapes, where the backend leaves the product to it.
    pub call: String,
    /// Rows of the matrix that were recomputed.
    pub rows: Vec<usize>,
    /// `|found - expected| / |expected|` in the 2-norm over these rows and all tokens.
    pub relative: f64,
    /// The value that is off most: row, token, found, expected.
    pub worst: (usize, usize, f64, f64),
    /// Largest relative error that passes.
    pub bound: f64,
    /// Whether it is within the bound.
    pub passed: bool,
}

/// Why a product was not recomputed.
#[derive(Debug, Clone, Serialize)]
pub struct Skipped {
    /// Its result.
    pub output: String,
    /// The tensor that the backend did not report.
    pub missing: String,
}

/// Recomputes `n_rows` rows, spread over each matrix, of every product of `model` in `step`, which
/// is number `index`.
pub fn check_step(
    model: &Model,
    bounds: &Bounds,
    step: &ObservedStep<'_>,
    index: usize,
    n_rows: usize,
) -> (Vec<CheckedProduct>, Vec<Skipped>) {
    let find = |name: TensorName| step.tensors.iter().find(|tensor| tensor.name == name);
    let (mut checked, mut skipped) = (Vec::new(), Vec::new());
    for product in products(model) {
        let mut inputs = product.inputs.iter();
        let input = inputs.find_map(|base| step.computed.inputs.get(&product.input(base)));
        let (input, output) = match (input, find(product.output)) {
            (Some(input), Some(output)) => (input, output),
            (input, _) => {
                let name = match input {
                    Some(_) => product.output,
                    None => product.input(product.inputs[0]),
                };
                skipped.push(Skipped {
                    output: product.output.to_string(),
                    missing: name.to_string(),
                });
                continue;
            }
        };
        if output.data.is_empty() {
            continue;
        }
        let after = match product.output.layer {
            Some(_) => After::NOTHING,
            None => After::logits(model),
        };
        let mut recomputed = Recomputed::new(product.linear, input, output, n_rows, after);
        // The bound is a share of the whole result. A few rows may happen to be short, but their errors are as
        // large as those of other rows.
        let squares = output.data.iter().map(|&y| f64::from(y).powi(2));
        let share = recomputed.rows.len() as f64 / product.linear.n_out() as f64;
        recomputed.norm = recomputed.norm.max(squares.sum::<f64>() * share);
        let tokens = output.data.len() / product.linear.n_out();
        let mut bound = bounds.of(product.output, tokens, step.computed).relative;
        let of_rows = bounds.of_rows(product.output, &recomputed.rows, tokens, step.computed);
        if of_rows > 0.0 && recomputed.norm > 0.0 {
            // What 8 bits cost differs from row to row, and chance seldom takes the mean of a few random errors
            // further than three of its deviations.
            let n_results = (recomputed.rows.len() * tokens) as f64;
            bound = bound.max(of_rows / recomputed.norm.sqrt()) * (1.0 + 3.0 / n_results.sqrt());
        }
        checked.push(recomputed.checked(product.linear, index, bound));
    }
    (checked, skipped)
}

/// What happens to a product before it is reported.
#[derive(Clone, Copy)]
struct After {
    factor: f64,
    softcap: Option<f64>,
}

impl After {
    const NOTHING: After = After {
        factor: 1.0,
        softcap: None,
    };

    fn logits(model: &Model) -> After {
        After {
            factor: model.config.logit_factor.into(),
            softcap: model.config.logit_softcap.map(f64::from),
        }
    }

    fn of(self, product: f64) -> f64 {
        let scaled = product * self.factor;
        match self.softcap {
            Some(cap) => cap * (scaled / cap).tanh(),
            None => scaled,
        }
    }
}

/// Rows of one product, found and expected.
struct Recomputed {
    output: String,
    tokens: usize,
    rows: Vec<usize>,
    error: f64,
    norm: f64,
    worst: (usize, usize, f64, f64),
}

impl Recomputed {
    fn new(
        linear: &Linear,
        input: &[f32],
        output: &RecordedTensor,
        n_rows: usize,
        after: After,
    ) -> Recomputed {
        let (n_in, n_out) = (linear.n_in(), linear.n_out());
        let tokens = output.data.len() / n_out;
        // The logits are those of the last positions.
        let x = &input[input.len().saturating_sub(tokens * n_in)..];
        let mut this = Recomputed {
            output: output.name.to_string(),
            tokens,
            rows: spread(n_out, n_rows),
            error: 0.0,
            norm: 0.0,
            worst: (0, 0, 0.0, 0.0),
        };
        let mut largest = -1.0;
        for &row in &this.rows {
            let weights = decode_row(linear, row);
            let bias = linear
                .bias
                .as_ref()
                .map_or(0.0, |bias| f64::from(bias[row]));
            for (token, x) in x.chunks_exact(n_in).enumerate() {
                let products = weights.iter().zip(x).map(|(w, &x)| w * f64::from(x));
                let expected = after.of(products.sum::<f64>() + bias);
                let found = f64::from(output.data[token * n_out + row]);
                let error = (found - expected).abs();
                this.error += error * error;
                this.norm += expected * expected;
                // A NaN is the worst there is, and stays.
                if error > largest || (error.is_nan() && !f64::is_nan(largest)) {
                    largest = error;
                    this.worst = (row, token, found, expected);
                }
            }
        }
        this
    }

    fn checked(self, linear: &Linear, step: usize, bound: f64) -> CheckedProduct {
        let (n_in, n_out) = (linear.n_in(), linear.n_out());
        let relative = match (self.error, self.norm) {
            (0.0, _) => 0.0,
            (error, norm) => (error / norm).sqrt(),
        };
        let call =
            GemmCall::row_major(self.tokens as u32, n_in as u32, n_out as u32, GemmType::F32);
        CheckedProduct {
            step,
            output: self.output,
            tensor: linear.weight.name().to_owned(),
            ty: linear.weight.ty().to_string(),
            shapes: [[self.tokens, n_in], [n_out, n_in], [self.tokens, n_out]],
            call: call.to_string(),
            rows: self.rows,
            relative,
            worst: self.worst,
            bound,
            passed: relative <= bound,
        }
    }
}

/// `n` of `0..total`, the first and the last among them, evenly spread.
fn spread(total: usize, n: usize) -> Vec<usize> {
    let n = n.clamp(1, total);
    let last = (n - 1).max(1);
    (0..n).map(|i| i * (total - 1) / last).collect()
}

/// One row of the file, block by block, each from its own bytes.
fn decode_row(linear: &Linear, row: usize) -> Vec<f64> {
    let ty = linear.weight.ty();
    let bytes = linear.weight.row_bytes(row);
    let mut block = vec![0.0; ty.block_elements()];
    let mut values = Vec::with_capacity(linear.n_in());
    for bytes in bytes.chunks_exact(ty.block_bytes()) {
        if quant::dequantize(ty, bytes, &mut block).is_err() {
            // A block's bytes and elements are the type's own.
            block.fill(f32::NAN);
        }
        values.extend(block.iter().map(|&value| f64::from(value)));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_reach_both_ends() {
        assert_eq!(spread(100, 4), [0, 33, 66, 99]);
        assert_eq!(spread(3, 8), [0, 1, 2]);
        assert_eq!(spread(7, 1), [0]);
    }
}
