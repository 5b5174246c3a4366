//! Queries, keys and values that f16 does not hold: a backend brings them to the largest number that it does, which
//! no bound of a rounding covers.

use kernels_gpu::prim::scale::F16_MAX;

/// How many of a backend's f16 `values` stand for larger ones of the reference.
pub fn saturated(values: &[f32], reference: &[f32]) -> usize {
    let pairs = values.iter().zip(reference);
    let saturated =
        pairs.filter(|(value, reference)| value.abs() == F16_MAX && reference.abs() >= ROUNDED_UP);
    saturated.count()
}

/// How many of `values`, which go into the cache, it does not hold.
pub fn saturated_values(values: &[f32]) -> usize {
    values.iter().filter(|x| x.abs() >= ROUNDED_UP).count()
}

/// The smallest number that f16 rounds to infinity.
const ROUNDED_UP: f32 = 65_520.0;

/// What is said of an operation with `count` of them.
pub fn describe(base: &str, count: usize) -> String {
    let what = match base {
        "Qcur" => "queries",
        "Kcur" => "keys",
        _ => "values",
    };
    format!(
        "{count} elements of {what} are beyond {F16_MAX}, the largest f16, to which they are saturated"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_f16_does_not_hold_is_saturated() {
        let reference = [65_504.0, 65_519.0, 70_000.0, -1e9, 1.0];
        let values = [65_504.0, 65_504.0, 65_504.0, -65_504.0, 65_504.0];
        assert_eq!(saturated(&values, &reference), 2);
        assert_eq!(saturated_values(&reference), 2);
        assert_eq!(saturated_values(&[f32::NAN]), 0);
    }
}
