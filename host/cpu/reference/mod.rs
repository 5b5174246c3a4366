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
        let pairs = gate.par_iter_mut().zip(up).with_min_len(4096);
        pairs.for_each(|(gate, up)| *gate = function.of(*gate) * up);
    }
}
