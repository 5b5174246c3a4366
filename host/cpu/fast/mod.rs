//! The fast path: f32 between operations, and integer products of quantized weights with activations in 8 bits.
//!
//! - `activations` rounds the inputs of a product to 8 bits, in groups of 32 with a scale each.
//! - `gguf::quant::chunk` gives quantized weights as integers, with `gguf::quant::simd::integers` for AVX2, AVX-512 with
//!   VNNI, NEON and any other CPU.
//! - `vector` multiplies rows with a few vectors straight from the blocks; `panel` unpacks sixteen rows, each into a lane,
//!   for many vectors. Both add in one order, so a vector's products have the same bits beside any others.
//! - `plain` multiplies what is not quantized, in f32.
//! - `linear` chooses among them and shares rows out among the threads.
//! - `attention` and `math` are what is left: f32, keys of a page side by side.

mod activations;
mod attention;
mod linear;
mod math;
mod panel;
mod plain;
#[cfg(test)]
mod products_test;
mod vector;

use super::arithmetic::Arithmetic;
use super::attention::Attention;
use super::interrupt::Interrupt;
use super::kv_cache::KeyOrder;
use crate::model::{GateFunction, Linear};

/// What users wait for.
pub struct Fast;

impl Arithmetic for Fast {
    type Value = f32;

    const KEYS: KeyOrder = KeyOrder::ElementByElement;

    fn linears<const N: usize>(
        &self,
        matrices: [&Linear; N],
        x: &[f32],
        interrupt: Interrupt,
    ) -> [Vec<f32>; N] {
        linear::linears(matrices, x, interrupt)
    }

    fn attend(&self, attention: &Attention<'_, f32>) -> Vec<f32> {
        attention::attend(attention)
    }

    fn gate(&self, function: GateFunction, gate: &mut [f32], up: &[f32]) {
        math::gate(function, gate, up);
    }
}
