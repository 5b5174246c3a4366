//! What rounding the inputs of a product costs, given those inputs.
//!
//! A backend that rounds activations to 8 bits multiplies `Q8(x)` where the reference multiplies `x`: the
//! result is off by `W (Q8(x) - x)`. Its length is computed here instead of estimated, because the
//! rounding errors are not always independent: where all elements of a block but one are small and of
//! one sign, they are all rounded the same way, and weights with a common mean add that up.

use crate::gguf::Tensor;
use crate::model::Linear;

/// Activations that share a scale.
const BLOCK: usize = 16;

/// Rows of a matrix that stand for all: the length of their result is within a tenth of what all rows
/// would give.
const SAMPLE: usize = 128;

/// A product whose inputs are rounded to 8 bits.
#[derive(Debug, Clone)]
pub struct RoundedProduct {
    weight: Tensor,
    n_in: usize,
    n_out: usize,
}

impl RoundedProduct {
    /// The product with a matrix.
    pub fn of(linear: &Linear) -> RoundedProduct {
        RoundedProduct {
            weight: linear.weight.clone(),
            n_in: linear.n_in(),
            n_out: linear.n_out(),
        }
    }

    /// The length (2-norm) of the error in the products with the last `n_tokens` of `x`.
    pub fn q8_error(&self, x: &[f32], n_tokens: usize) -> f64 {
        let n_rows = self.n_out.min(SAMPLE);
        let rows: Vec<usize> = (0..n_rows).map(|i| i * self.n_out / n_rows).collect();
        let sample = self.q8_error_of(&rows, x, n_tokens);
        sample * (self.n_out as f64 / n_rows as f64).sqrt()
    }

    /// The same for these rows of the matrix alone.
    pub fn q8_error_of(&self, rows: &[usize], x: &[f32], n_tokens: usize) -> f64 {
        let x = &x[x.len().saturating_sub(n_tokens * self.n_in)..];
        let errors: Vec<Error> = x.chunks(BLOCK).flat_map(rounding_errors).collect();
        let mut row = vec![0.0; self.n_in];
        let (mut square, mut variance) = (0.0, 0.0);
        for &at in rows {
            self.weight.dequantize_rows(at..at + 1, &mut row);
            for error in errors.chunks(self.n_in) {
                let mut product = 0.0;
                for (&w, e) in row.iter().zip(error) {
                    product += f64::from(w) * f64::from(e.value);
                    variance += f64::from(w * w) * f64::from(e.variance);
                }
                square += product * product;
            }
        }
        // These inputs may happen to lose little, and the backend's, whose last bits differ, as much as others.
        f64::max(square, variance).sqrt()
    }
}

/// What rounding costs an element.
struct Error {
    /// As it is for this input.
    value: f32,
    /// As it is for inputs nearby: the last bit of a block's scale decides how its largest element is rounded.
    variance: f32,
}

/// `Q8(x) - x` for a block: integers up to 127 times a scale, halves rounded to even. The scale is the least
/// bfloat16 that suffices.
fn rounding_errors(block: &[f32]) -> impl Iterator<Item = Error> {
    let max = block.iter().fold(0f32, |max, v| max.max(v.abs()));
    let scale = f32::from_bits(((max / 127.0).to_bits() + 0xffff) & 0xffff_0000);
    let rounded = move |&x: &f32| Error {
        value: match scale > 0.0 {
            true => (x / scale).round_ties_even() * scale - x,
            false => 0.0,
        },
        // Evenly within half a step.
        variance: scale * scale / 12.0,
    };
    block.iter().map(rounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_block() {
        let errors = |block: &[f32]| -> Vec<f32> {
            rounding_errors(block).map(|error| error.value).collect()
        };
        assert_eq!(
            errors(&[127.0, -126.0, 3.25, -0.5, 0.75]),
            [0.0, 0.0, -0.25, 0.5, 0.25]
        );
        assert_eq!(errors(&[0.0; 4]), [0.0; 4]);
    }
}
