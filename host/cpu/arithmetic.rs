//! What the reference and the fast path do differently.

use super::attention::Attention;
use super::interrupt::Interrupt;
use super::kv_cache::KeyOrder;
use crate::model::{GateFunction, Linear};

/// A number of the activations between operations.
pub trait Value: Copy + Send + Sync + Into<f64> + From<f32> {
    /// The nearest one.
    fn of(value: f64) -> Self;
}

impl Value for f64 {
    #[inline]
    fn of(value: f64) -> f64 {
        value
    }
}

impl Value for f32 {
    #[inline]
    fn of(value: f64) -> f32 {
        value as f32
    }
}

/// How the expensive operations are computed. In every one of them a token's bits depend on that token and on what
/// came before it alone.
pub trait Arithmetic {
    /// What is rounded to between operations.
    type Value: Value;

    /// How its attention wants to find the keys.
    const KEYS: KeyOrder;

    /// `x W^T + bias` for `x` of `[tokens, n_in]` and each of the matrices, which are of one width: `[tokens, n_out]`.
    /// Rows are missing once `interrupt` is requested.
    fn linears<const N: usize>(
        &self,
        matrices: [&Linear; N],
        x: &[Self::Value],
        interrupt: Interrupt,
    ) -> [Vec<Self::Value>; N];

    /// `softmax(scale * q . K) V` for every token and head, `[tokens, n_heads * head_dim]`. A token sees its own
    /// position and those before it, at most the layer's window of them.
    fn attend(&self, attention: &Attention<'_, Self::Value>) -> Vec<Self::Value>;

    /// `gate = function(gate) * up`.
    fn gate(&self, function: GateFunction, gate: &mut [Self::Value], up: &[Self::Value]);
}
