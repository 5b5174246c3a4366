//! What rounding the inputs of a product costs, given those inputs.
//!
//! A backend that rounds activations to 8 bits multiplies `Q8(x)` where the reference multiplies `x`: the
//! result is off by `W (Q8(x) - x)`. Its length is computed here instead of estimated, because the
//! rounding errors are not always independent: where all elements of a block but one are small and of
//! one sign, they are all rounded the same way, and weights with a common mean add that up.

use crate::gguf::Tensor;
use crate::model::Linear;

/// How a backend rounds vectors to 8 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Q8Rounding {
    /// 16 elements share a scale, the least bfloat16 that suffices.
    Halves,
    /// 32 elements share an f32 as scale.
    Groups,
}

impl Q8Rounding {
    /// Elements that share a scale.
    fn block(self) -> usize {
        match self {
            Q8Rounding::Halves => 16,
            Q8Rounding::Groups => 32,
        }
    }
}

/// Rows of a matrix that stand for all: the length of their result is within a tenth of what all rows
/// would give.
const SAMPLE: usize = 128;

/// Rows of which any two stand for all pairs.
const PAIRED: usize = 32;

/// Deviations of the squared length that are allowed beyond its mean. Where all rows are nearly parallel, as those of
/// an embedding may be, the length is that of one random number, which with this and the spread of the bound is
/// farther out once in 10,000 times.
pub const DEVIATIONS: f64 = 4.0;

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

    /// The length (2-norm) that the error in the products with the last `n_tokens` of `x` has, or may well have.
    pub fn q8_error(&self, x: &[f32], n_tokens: usize, rounding: Q8Rounding) -> f64 {
        let errors = self.errors(x, n_tokens, rounding);
        let rows = self.sample(SAMPLE);
        let scale = self.n_out as f64 / rows.len() as f64;
        let (square, variance) = self.squares(&rows, &errors);
        let paired = self.sample(PAIRED);
        let paired: Vec<Vec<f32>> = paired.iter().map(|&at| self.row(at)).collect();
        let of_token = |errors: &[Error]| square_variance(&paired, self.n_out, errors);
        let deviation = errors.chunks(self.n_in).map(of_token).sum::<f64>().sqrt();
        // These inputs may happen to lose little, and the backend's, whose last bits differ, as much as others.
        f64::max(scale * square, scale * variance + DEVIATIONS * deviation).sqrt()
    }

    /// The length of the error in these rows of the products, or its mean over inputs nearby where that is larger.
    pub fn q8_error_of(
        &self,
        rows: &[usize],
        x: &[f32],
        n_tokens: usize,
        rounding: Q8Rounding,
    ) -> f64 {
        let (square, variance) = self.squares(rows, &self.errors(x, n_tokens, rounding));
        f64::max(square, variance).sqrt()
    }

    /// The squared length of the error in these rows, and its mean over inputs nearby.
    fn squares(&self, rows: &[usize], errors: &[Error]) -> (f64, f64) {
        let (mut square, mut variance) = (0.0, 0.0);
        for &at in rows {
            let row = self.row(at);
            for error in errors.chunks(self.n_in) {
                let mut product = 0.0;
                for (&w, e) in row.iter().zip(error) {
                    product += f64::from(w) * f64::from(e.value);
                    variance += f64::from(w * w) * f64::from(e.variance);
                }
                square += product * product;
            }
        }
        (square, variance)
    }

    /// Elements of an input.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Results.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// The last `n_tokens` of `x`.
    pub fn last<'a>(&self, x: &'a [f32], n_tokens: usize) -> &'a [f32] {
        &x[x.len().saturating_sub(n_tokens * self.n_in)..]
    }

    /// What rounding costs the elements of the last `n_tokens` of `x`.
    pub fn errors(&self, x: &[f32], n_tokens: usize, rounding: Q8Rounding) -> Vec<Error> {
        let blocks = self.last(x, n_tokens).chunks(rounding.block());
        blocks
            .flat_map(|block| rounding_errors(block, rounding))
            .collect()
    }

    /// Evenly spaced rows, `most` or all.
    fn sample(&self, most: usize) -> Vec<usize> {
        let n = self.n_out.min(most);
        (0..n).map(|i| i * self.n_out / n).collect()
    }

    /// A row of the matrix.
    pub fn row(&self, at: usize) -> Vec<f32> {
        let mut row = vec![0.0; self.n_in];
        self.weight.dequantize_rows(at..at + 1, &mut row);
        row
    }
}

/// The variance of the squared length of `W e`, where `rows` stand for the `n_out` of `W` and the elements of `e` are
/// independent. For normal ones it is twice the sum of the squared covariances of all pairs of results.
pub fn square_variance(rows: &[Vec<f32>], n_out: usize, errors: &[Error]) -> f64 {
    let (mut own, mut paired) = (0.0, 0.0);
    for (i, a) in rows.iter().enumerate() {
        for b in &rows[..=i] {
            let products = a.iter().zip(b).zip(errors);
            let covariance: f64 = products
                .map(|((a, b), e)| f64::from(a * b) * f64::from(e.variance))
                .sum();
            match std::ptr::eq(a, b) {
                true => own += covariance.powi(2),
                false => paired += 2.0 * covariance.powi(2),
            }
        }
    }
    let (n, of) = (rows.len() as f64, n_out as f64);
    let pairs = (of * (of - 1.0)) / (n * (n - 1.0)).max(1.0);
    2.0 * (own * of / n + paired * pairs)
}

/// What rounding costs an element.
pub struct Error {
    /// As it is for this input.
    pub value: f32,
    /// As it is for inputs nearby: the last bit of a block's scale decides how its largest element is rounded.
    pub variance: f32,
}

/// `Q8(x) - x` for a block: integers up to 127 times a scale, halves rounded to even.
fn rounding_errors(block: &[f32], rounding: Q8Rounding) -> impl Iterator<Item = Error> {
    let max = block.iter().fold(0f32, |max, v| max.max(v.abs()));
    let scale = match rounding {
        Q8Rounding::Halves => f32::from_bits(((max / 127.0).to_bits() + 0xffff) & 0xffff_0000),
        Q8Rounding::Groups => max / 127.0,
    };
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
            let errors = rounding_errors(block, Q8Rounding::Halves);
            errors.map(|error| error.value).collect()
        };
        assert_eq!(
            errors(&[127.0, -126.0, 3.25, -0.5, 0.75]),
            [0.0, 0.0, -0.25, 0.5, 0.25]
        );
        assert_eq!(errors(&[0.0; 4]), [0.0; 4]);
        // 12.8 / 127 is no bfloat16.
        let of_largest = |rounding| {
            rounding_errors(&[12.8], rounding)
                .next()
                .map(|error| error.value)
        };
        assert!(of_largest(Q8Rounding::Halves).is_some_and(|error| error.abs() > 1e-3));
        assert!(of_largest(Q8Rounding::Groups).is_some_and(|error| error.abs() < 2e-6));
    }
    #[test]
    fn parallel_rows_vary_as_one_number() {
        let errors = [1.0, 2.0, 3.0].map(|variance| Error {
            value: 0.0,
            variance,
        });
        // Each result has variance 1 + 4 * 2 = 9, so the squared length of 100 equal ones has mean 900 and variance
        // 2 * 900^2.
        let parallel = vec![vec![1.0, 2.0, 0.0]; 4];
        assert_eq!(
            square_variance(&parallel, 100, &errors),
            2.0 * 900.0 * 900.0
        );
        // Independent results: their variances add up.
        let apart = [vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0]];
        assert_eq!(square_variance(&apart, 2, &errors), 2.0 * (1.0 + 4.0));
    }
}
