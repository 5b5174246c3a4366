//! Exponentials, and the functions of gates that are made of them.

use rayon::prelude::*;

use crate::gguf::quant::simd::{Kernel, LANES, Simd, dispatch};
use crate::model::GateFunction;

/// Elements that a task takes.
const PER_TASK: usize = 4096;

/// `e^x` to three units in the last place; what lies outside of f32's normal numbers becomes the nearest of them, NaN
/// stays NaN.
///
/// `e^x = 2^n e^r` with `|r| <= ln 2 / 2`, and a polynomial for `e^r` whose coefficients are those of Cephes' `expf`.
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: S::Floats) -> S::Floats {
    // Added and taken away again, it rounds to a whole number.
    const WHOLE: f32 = 12_582_912.0;
    // ln 2 in two parts, of which the first has few bits.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const POLYNOMIAL: [f32; 6] = [
        1.987_569_1e-4,
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        5e-1,
    ];
    let x = simd.max(simd.splat(-87.3), x);
    let x = simd.min(simd.splat(88.3), x);
    let whole = simd.splat(WHOLE);
    let n = simd.mul_add(x, simd.splat(std::f32::consts::LOG2_E), whole);
    let n = simd.sub(n, whole);
    let mut r = simd.mul_add(n, simd.splat(-LN_2[0]), x);
    r = simd.mul_add(n, simd.splat(-LN_2[1]), r);
    let mut sum = simd.splat(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        sum = simd.mul_add(sum, r, simd.splat(*coefficient));
    }
    let one = simd.splat(1.0);
    let sum = simd.mul_add(sum, simd.mul(r, r), simd.add(r, one));
    simd.mul(sum, simd.power_of_two(n))
}

/// `gate = function(gate) * up`.
pub fn gate(function: GateFunction, gate: &mut [f32], up: &[f32]) {
    let tasks = gate.par_chunks_mut(PER_TASK).zip(up.par_chunks(PER_TASK));
    tasks.for_each(|(gate, up)| match function {
        GateFunction::Silu => dispatch(Gate::<Silu>(gate, up, Silu)),
        GateFunction::GeluTanh => dispatch(Gate::<GeluTanh>(gate, up, GeluTanh)),
    });
}

/// A function of a gate.
trait Function {
    fn of<S: Simd>(simd: S, x: S::Floats) -> S::Floats;
}

struct Silu;

impl Function for Silu {
    /// `x / (1 + e^-x)`.
    #[inline(always)]
    fn of<S: Simd>(simd: S, x: S::Floats) -> S::Floats {
        let exp = exp(simd, simd.sub(simd.splat(0.0), x));
        simd.div(x, simd.add(simd.splat(1.0), exp))
    }
}

struct GeluTanh;

impl Function for GeluTanh {
    /// `x / 2 (1 + tanh y)` with `y = sqrt(2 / pi) (x + 0.044715 x^3)`, which is `x / (1 + e^-2y)`.
    #[inline(always)]
    fn of<S: Simd>(simd: S, x: S::Floats) -> S::Floats {
        const SQRT_8_OVER_PI: f32 = 1.595_769;
        let cubic = simd.mul(simd.mul(x, x), simd.splat(0.044_715));
        let y = simd.mul(simd.mul_add(cubic, x, x), simd.splat(-SQRT_8_OVER_PI));
        simd.div(x, simd.add(simd.splat(1.0), exp(simd, y)))
    }
}

struct Gate<'a, F>(&'a mut [f32], &'a [f32], F);

impl<F: Function> Kernel for Gate<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (gate, gate_rest) = self.0.as_chunks_mut::<LANES>();
        let (up, up_rest) = self.1.as_chunks::<LANES>();
        for (gate, up) in gate.iter_mut().zip(up) {
            let product = simd.mul(F::of(simd, simd.load(gate)), simd.load(up));
            simd.store(product, gate);
        }
        if !gate_rest.is_empty() {
            let mut lanes = [[0.0; LANES]; 2];
            lanes[0][..gate_rest.len()].copy_from_slice(gate_rest);
            lanes[1][..up_rest.len()].copy_from_slice(up_rest);
            let product = simd.mul(F::of(simd, simd.load(&lanes[0])), simd.load(&lanes[1]));
            simd.store(product, &mut lanes[0]);
            gate_rest.copy_from_slice(&lanes[0][..gate_rest.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Exp(Vec<f32>);

    impl Kernel for Exp {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(mut self, simd: S) -> Vec<f32> {
            for x in self.0.as_chunks_mut::<LANES>().0 {
                simd.store(exp(simd, simd.load(x)), x);
            }
            self.0
        }
    }

    #[test]
    fn exponentials_are_close() {
        let x: Vec<f32> = (-8720..8820).map(|i| i as f32 / 100.0).collect();
        let x = [&x[..], &x[..LANES - x.len() % LANES]].concat();
        for (x, found) in x.iter().zip(dispatch(Exp(x.clone()))) {
            let exact = f64::from(*x).exp();
            let error = (f64::from(found) - exact).abs() / exact;
            assert!(
                error < 3.0 * f64::exp2(-23.0),
                "e^{x}: {found}, not {exact}"
            );
        }
    }

    #[test]
    fn exponentials_beyond_the_ends() {
        let ends = [f32::NAN, f32::NEG_INFINITY, -1000.0, f32::INFINITY, 1000.0];
        let ends = [&ends[..], &[0.0; 11]].concat();
        let found = dispatch(Exp(ends));
        assert!(found[0].is_nan());
        assert!(found[1] == found[2] && found[1] < 2e-38, "{found:?}");
        assert!(found[3] == found[4] && found[3] > 1e38, "{found:?}");
        assert_eq!(found[5], 1.0);
    }

    #[test]
    fn gates_of_any_length() {
        type Exact = fn(f64) -> f64;
        let silu: Exact = |x| x / (1.0 + (-x).exp());
        let gelu: Exact =
            |x| 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x * x * x)).tanh());
        let functions = [(GateFunction::Silu, silu), (GateFunction::GeluTanh, gelu)];
        for (function, exact) in functions {
            for n in [1, 15, 16, 37, PER_TASK + 5] {
                let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin() * 12.0).collect();
                let up: Vec<f32> = (0..n).map(|i| (i as f32 * 0.71).cos()).collect();
                let mut found = x.clone();
                gate(function, &mut found, &up);
                for i in 0..n {
                    let exact = exact(f64::from(x[i])) * f64::from(up[i]);
                    // Where e^-2y is large the cube's rounding is that many times as large.
                    let error = (f64::from(found[i]) - exact).abs();
                    assert!(
                        error <= 1e-5 * exact.abs() + 1e-9,
                        "{} is not {exact}",
                        found[i]
                    );
                }
            }
        }
    }
}
