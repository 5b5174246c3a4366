//! How far a tensor is from its reference.

use serde::Serialize;

/// The difference of two tensors of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// Largest `|value - reference|`.
    pub max: f64,
    /// `|values - reference| / |reference|` in the 2-norm.
    pub relative: f64,
    /// Cosine of the angle between both.
    pub cosine: f64,
    /// Values that are NaN or infinite.
    pub non_finite: usize,
    /// Index of the value with the largest difference, or of the first that is not finite.
    pub worst: usize,
}

impl Difference {
    /// Compares `values` with `reference`.
    ///
    /// # Panics
    /// Where the lengths differ.
    pub fn of(values: &[f32], reference: &[f32]) -> Difference {
        assert_eq!(
            values.len(),
            reference.len(),
            "tensors of different lengths"
        );
        let (mut max, mut worst, mut first_bad, mut non_finite) = (0.0, 0, None, 0);
        let (mut square_error, mut square_value, mut square_reference, mut product) =
            (0.0, 0.0, 0.0, 0.0);
        for (index, (&value, &expected)) in values.iter().zip(reference).enumerate() {
            let (value, expected) = (f64::from(value), f64::from(expected));
            if !value.is_finite() {
                non_finite += 1;
                first_bad.get_or_insert(index);
                continue;
            }
            let error = (value - expected).abs();
            if error > max {
                (max, worst) = (error, index);
            }
            square_error += error * error;
            square_value += value * value;
            square_reference += expected * expected;
            product += value * expected;
        }
        let ratio = |a: f64, b: f64| if a == 0.0 && b == 0.0 { 0.0 } else { a / b };
        let lengths = (square_value * square_reference).sqrt();
        Difference {
            max,
            relative: ratio(square_error.sqrt(), square_reference.sqrt()),
            cosine: if square_value == 0.0 && square_reference == 0.0 {
                1.0
            } else {
                ratio(product, lengths)
            },
            non_finite,
            worst: first_bad.unwrap_or(worst),
        }
    }

    /// Whether all values are finite and the relative error is at most `bound`. Written so that a
    /// NaN anywhere is a failure.
    pub fn within(&self, bound: f64) -> bool {
        self.non_finite == 0 && self.relative <= bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_tensors_do_not_differ() {
        let difference = Difference::of(&[1.0, -2.0], &[1.0, -2.0]);
        assert_eq!((difference.max, difference.relative), (0.0, 0.0));
        assert!((difference.cosine - 1.0).abs() < 1e-12);
        assert!(difference.within(0.0));
        assert!(Difference::of(&[0.0], &[0.0]).within(0.0));
    }

    #[test]
    fn the_worst_value_is_found() {
        let difference = Difference::of(&[1.0, 2.5, 3.0], &[1.0, 2.0, 3.1]);
        assert_eq!(difference.worst, 1);
        assert!((difference.max - 0.5).abs() < 1e-12);
    }

    #[test]
    fn nothing_that_is_not_finite_passes() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let difference = Difference::of(&[1.0, bad], &[1.0, 1.0]);
            assert!(!difference.within(f64::INFINITY));
            assert_eq!((difference.non_finite, difference.worst), (1, 1));
            let difference = Difference::of(&[1.0, 1.0], &[1.0, bad]);
            assert!(!difference.within(1e9), "a reference of {bad} passed");
        }
        assert!(!Difference::of(&[1.0], &[0.0]).within(1e9));
    }
}
