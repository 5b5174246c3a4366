//! What rounding the inputs of gate and up costs their gated product.
//!
//! Where few results are far longer than all others, or rows repeat, the product's relative error is not that of its
//! factors, but theirs at these few places. So it is followed through every row, which costs as much as the product itself.

use super::noise::{DEVIATIONS, Error, RoundedProduct, square_variance};
use crate::model::GateFunction;

/// Results whose errors are taken as they depend on each other; those of the others as independent.
const PAIRED: usize = 32;

/// For the derivative of the gate's function, which is smooth around 1.
const STEP: f64 = 1e-4;

/// The length (2-norm) that the error of `function(gate x) * (up x)` has, or may well have, where `errors` are those of
/// the elements of `x`, a token behind the other.
pub fn gated_error(
    [gate, up]: [&RoundedProduct; 2],
    function: GateFunction,
    x: &[f32],
    errors: &[Error],
) -> f64 {
    let n_in = gate.n_in();
    let (mut square, mut variance, mut squared_deviations) = (0.0, 0.0, 0.0);
    for (x, errors) in x.chunks(n_in).zip(errors.chunks(n_in)) {
        // By how much a result moves with each element of `x`, and the variance of its error.
        let mut longest: Vec<(f64, Vec<f32>)> = Vec::new();
        for at in 0..gate.n_out() {
            let slope = slope([&gate.row(at), &up.row(at)], function, x);
            let (mut error, mut own) = (0.0, 0.0);
            for (&slope, e) in slope.iter().zip(errors) {
                error += f64::from(slope) * f64::from(e.value);
                own += f64::from(slope).powi(2) * f64::from(e.variance);
            }
            square += error * error;
            variance += own;
            let place = longest.partition_point(|(longer, _)| *longer >= own);
            if place < PAIRED {
                longest.insert(place, (own, slope));
                longest.truncate(PAIRED);
            }
        }
        let longest: Vec<Vec<f32>> = longest.into_iter().map(|(_, slope)| slope).collect();
        squared_deviations += square_variance(&longest, longest.len(), errors);
    }
    let deviation = squared_deviations.sqrt();
    f64::max(square, variance + DEVIATIONS * deviation).sqrt()
}

/// The derivative of `function(gate x) * (up x)`, for a row of each, by `x`.
fn slope([gate, up]: [&[f32]; 2], function: GateFunction, x: &[f32]) -> Vec<f32> {
    let product = |row: &[f32]| -> f64 {
        let terms = row.iter().zip(x);
        terms.map(|(&w, &x)| f64::from(w) * f64::from(x)).sum()
    };
    let (at, factor) = (product(gate), product(up));
    let step = STEP * at.abs().max(1.0);
    let derivative = (function.of(at + step) - function.of(at - step)) / (2.0 * step);
    let (by_gate, by_up) = (derivative * factor, function.of(at));
    let slopes = gate.iter().zip(up);
    slopes
        .map(|(&gate, &up)| (by_gate * f64::from(gate) + by_up * f64::from(up)) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_differences() {
        let (gate, up, x) = ([0.5, -2.0, 1.0], [1.5, 0.25, -1.0], [0.3, 0.2, 0.9]);
        for function in [GateFunction::Silu, GateFunction::GeluTanh] {
            let value = |x: [f32; 3]| {
                let of = |row: [f32; 3]| -> f64 {
                    row.iter().zip(x).map(|(w, x)| f64::from(w * x)).sum()
                };
                function.of(of(gate)) * of(up)
            };
            let slope = slope([&gate, &up], function, &x);
            for i in 0..3 {
                let mut moved = x;
                moved[i] += 1e-3;
                let expected = (value(moved) - value(x)) / 1e-3;
                assert!(
                    (f64::from(slope[i]) - expected).abs() < 2e-3,
                    "{function:?}, {i}"
                );
            }
        }
    }
}
