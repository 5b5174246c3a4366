//! Norms, rotation and elementwise operations on `[tokens, width]` activations.
//!
//! All of it in f64, whatever the values between operations are: the reference's own rounding should not show in a
//! comparison.

use rayon::prelude::*;

use super::arithmetic::Value;
use super::kv_cache::Token;
use crate::model::{QueryTemperature, Rope, RopePairing};

/// `x * weight / sqrt(mean(x^2) + eps)` for every row of `weight.len()` elements.
pub fn rms_norm<V: Value>(x: &[V], weight: &[f32], eps: f32) -> Vec<V> {
    let mut out = x.to_vec();
    rms_norm_heads(&mut out, weight, eps);
    out
}

/// [`rms_norm`] in place, over every head of `weight.len()` elements.
pub fn rms_norm_heads<V: Value>(x: &mut [V], weight: &[f32], eps: f32) {
    x.par_chunks_exact_mut(weight.len())
        .with_min_len(16)
        .for_each(|row| {
            let square = |&value: &V| value.into() * value.into();
            let sum: f64 = row.iter().map(square).sum();
            let scale = 1.0 / (sum / row.len() as f64 + f64::from(eps)).sqrt();
            for (value, weight) in row.iter_mut().zip(weight) {
                *value = V::of((*value).into() * (scale * f64::from(*weight)));
            }
        });
}

/// Rotates the heads of `x`, `[rows, n_heads * head_dim]`, by their tokens' positions.
pub fn rotate<V: Value>(
    x: &mut [V],
    tokens: &[Token<'_>],
    n_heads: usize,
    head_dim: usize,
    rope: &Rope,
) {
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
                let (a, b): (f64, f64) = (head[first].into(), head[second].into());
                head[first] = V::of(a * cos - b * sin);
                head[second] = V::of(a * sin + b * cos);
            }
        }
    });
}

/// Multiplies the queries `x`, `[rows, width]`, by their tokens' factors.
pub fn temper<V: Value>(
    x: &mut [V],
    tokens: &[Token<'_>],
    width: usize,
    temperature: QueryTemperature,
) {
    for (x, token) in x.chunks_exact_mut(width).zip(tokens) {
        let factor = temperature.factor(token.position);
        for value in x {
            *value = V::of((*value).into() * factor);
        }
    }
}

/// `x *= factor`.
pub fn scale<V: Value>(x: &mut [V], factor: f32) {
    for value in x {
        *value = V::of((*value).into() * f64::from(factor));
    }
}

/// `x += scale * y`.
pub fn add_scaled<V: Value>(x: &mut [V], y: &[V], scale: f32) {
    let scale = f64::from(scale);
    for (x, &y) in x.iter_mut().zip(y) {
        *x = V::of((*x).into() + scale * y.into());
    }
}
