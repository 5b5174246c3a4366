//! Norms, rotation and elementwise operations on `[tokens, width]` activations.
//!
//! All of it in f64: the reference's own rounding should not show in a comparison.

use rayon::prelude::*;

use super::kv_cache::Token;
use crate::model::{GateFunction, Rope, RopePairing};

/// `x * weight / sqrt(mean(x^2) + eps)` for every row of `weight.len()` elements.
pub fn rms_norm(x: &[f64], weight: &[f32], eps: f32) -> Vec<f64> {
    let mut out = x.to_vec();
    rms_norm_heads(&mut out, weight, eps);
    out
}

/// [`rms_norm`] in place, over every head of `weight.len()` elements.
pub fn rms_norm_heads(x: &mut [f64], weight: &[f32], eps: f32) {
    x.par_chunks_exact_mut(weight.len())
        .with_min_len(16)
        .for_each(|row| {
            let sum: f64 = row.iter().map(|v| v * v).sum();
            let scale = 1.0 / (sum / row.len() as f64 + f64::from(eps)).sqrt();
            for (value, weight) in row.iter_mut().zip(weight) {
                *value *= scale * f64::from(*weight);
            }
        });
}

/// Rotates the heads of `x`, `[rows, n_heads * head_dim]`, by their tokens' positions.
pub fn rotate(x: &mut [f64], tokens: &[Token<'_>], n_heads: usize, head_dim: usize, rope: &Rope) {
    let half = rope.rotated() / 2;
    let vectors = x.par_chunks_exact_mut(n_heads * head_dim).zip(tokens);
    vectors.with_min_len(4).for_each(|(x, token)| {
        let angles: Vec<[f64; 2]> = rope.cos_sin(token.position).collect();
        for head in x.chunks_exact_mut(head_dim) {
            for (pair, [cos, sin]) in angles.iter().enumerate() {
                let (first, second) = match rope.pairing {
                    RopePairing::Adjacent => (2 * pair, 2 * pair + 1),
                    RopePairing::Halves => (pair, pair + half),
                };
                let (a, b) = (head[first], head[second]);
                head[first] = a * cos - b * sin;
                head[second] = a * sin + b * cos;
            }
        }
    });
}

/// `x += scale * y`.
pub fn add_scaled(x: &mut [f64], y: &[f64], scale: f32) {
    let scale = f64::from(scale);
    x.iter_mut().zip(y).for_each(|(x, y)| *x += scale * y);
}

/// `gate = activation(gate) * up`; gives llama.cpp's name of the result.
pub fn gated_activation(activation: GateFunction, gate: &mut [f64], up: &[f64]) -> &'static str {
    let (function, name): (fn(f64) -> f64, _) = match activation {
        GateFunction::Silu => (silu, "ffn_swiglu"),
        GateFunction::GeluTanh => (gelu_tanh, "ffn_geglu"),
    };
    let pairs = gate.par_iter_mut().zip(up).with_min_len(4096);
    pairs.for_each(|(gate, up)| *gate = function(*gate) * up);
    name
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn gelu_tanh(x: f64) -> f64 {
    const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
    0.5 * x * (1.0 + (SQRT_2_OVER_PI * x * (1.0 + 0.044_715 * x * x)).tanh())
}
