//! The reference's arithmetic: f64 between operations, and every sum in one order.

mod attention;
mod dot;
mod linear;

use rayon::prelude::*;

use super::arithmetic::Arithmetic;
use super::attention::Attention;
use super::interrupt::Interrupt;
use super::kv_cache::KeyOrder;
use crate::model::{GateFunction, Linear};

/// What proofs stand on.
pub struct Reference;

impl Arithmetic for Reference {
    type Value = f64;

    const KEYS: KeyOrder = KeyOrder::TokenByToken;

    fn linears<const N: usize>(
        &self,
        matrices: [&Linear; N],
        x: &[f64],
        interrupt: Interrupt,
    ) -> [Vec<f64>; N] {
        let mut out = [const { Vec::new() }; N];
        matrices
            .into_par_iter()
            .zip(&mut out)
            .for_each(|(matrix, out)| *out = linear::linear(matrix, x, interrupt));
        out
    }

    fn attend(&self, attention: &Attention<'_, f64>) -> Vec<f64> {
        attention::attend(attention)
    }

    fn gate(&self, function: GateFunction, gate: &mut [f64], up: &[f64]) {
        let function: fn(f64) -> f64 = match function {
            GateFunction::Silu => silu,
            GateFunction::GeluTanh => gelu_tanh,
        };
        let pairs = gate.par_iter_mut().zip(up).with_min_len(4096);
        pairs.for_each(|(gate, up)| *gate = function(*gate) * up);
    }
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn gelu_tanh(x: f64) -> f64 {
    const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
    0.5 * x * (1.0 + (SQRT_2_OVER_PI * x * (1.0 + 0.044_715 * x * x)).tanh())
}
