//! Causal attention with grouped heads over the paged cache.

use rayon::prelude::*;

use super::dot::{add_scaled, dots};
use crate::backend::PAGE_TOKENS;
use crate::cpu::attention::Attention;
use crate::cpu::kv_cache::Token;
use crate::gguf::quant::simd::{Kernel, Simd, dispatch};

/// `softmax(scale * q . K) V` for every token and head, `[tokens, n_heads * head_dim]`. A token sees its
/// own position and those before it, at most the layer's window of them.
pub fn attend(attention: &Attention<'_, f64>) -> Vec<f64> {
    let config = attention.config;
    let dim = config.head_dim;
    let mut out = vec![0.0; attention.q.len()];
    let heads = out
        .par_chunks_exact_mut(dim)
        .zip(attention.q.par_chunks_exact(dim))
        .enumerate();
    heads.for_each_init(Vec::new, |scores, (index, (out, q))| {
        if attention.interrupt.is_requested() {
            return;
        }
        let token = &attention.tokens[index / config.n_heads];
        let kv_head = index % config.n_heads / config.group_size();
        attention.head(token, kv_head, q, scores, out);
    });
    out
}

impl Attention<'_, f64> {
    fn head(
        &self,
        token: &Token<'_>,
        kv_head: usize,
        q: &[f64],
        scores: &mut Vec<f64>,
        out: &mut [f64],
    ) {
        let visible = self.visible(token.position);
        let first = visible.start;
        scores.clear();
        scores.resize(visible.len(), 0.0);
        dispatch(Scores {
            q,
            key: |i| self.cached(token, first + i, kv_head).0,
            out: scores,
        });
        softmax(scores, f64::from(self.config.attention_scale));
        dispatch(Mix {
            factors: scores,
            value: |i| self.cached(token, first + i, kv_head).1,
            out,
        });
    }

    /// Key and value at a position of the token's sequence.
    #[inline]
    fn cached(&self, token: &Token<'_>, position: usize, kv_head: usize) -> (&[f32], &[f32]) {
        let dim = self.config.head_dim;
        let page = token.pages[position / PAGE_TOKENS];
        let (keys, values) = self.cache.head(self.layer, page, kv_head);
        let at = position % PAGE_TOKENS * dim;
        (&keys[at..at + dim], &values[at..at + dim])
    }
}

/// `softmax(scale * scores)` in place.
fn softmax(scores: &mut [f64], scale: f64) {
    scores.iter_mut().for_each(|score| *score *= scale);
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - max).exp();
        sum += *score;
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

/// Positions handled together.
const TILE: usize = 4;

/// `out[i] = q . key(i)`.
struct Scores<'a, F> {
    q: &'a [f64],
    key: F,
    out: &'a mut [f64],
}

impl<'k, F: Fn(usize) -> &'k [f32]> Kernel for Scores<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Scores { q, key, out } = self;
        let (tiles, rest) = out.as_chunks_mut::<TILE>();
        let first_of_rest = tiles.len() * TILE;
        for (index, tile) in tiles.iter_mut().enumerate() {
            let mut keys = [&[] as &[f32]; TILE];
            for (i, slot) in keys.iter_mut().enumerate() {
                *slot = key(index * TILE + i);
            }
            let products = dots(simd, keys, [q]);
            for i in 0..TILE {
                tile[i] = products[i][0];
            }
        }
        for (i, out) in rest.iter_mut().enumerate() {
            let [[product]] = dots(simd, [key(first_of_rest + i)], [q]);
            *out = product;
        }
    }
}

/// `out += sum of factors[i] * value(i)`.
struct Mix<'a, F> {
    factors: &'a [f64],
    value: F,
    out: &'a mut [f64],
}

impl<'v, F: Fn(usize) -> &'v [f32]> Kernel for Mix<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Mix {
            factors,
            value,
            out,
        } = self;
        let (tiles, rest) = factors.as_chunks::<TILE>();
        let first_of_rest = tiles.len() * TILE;
        for (index, &tile) in tiles.iter().enumerate() {
            let mut values = [&[] as &[f32]; TILE];
            for (i, slot) in values.iter_mut().enumerate() {
                *slot = value(index * TILE + i);
            }
            add_scaled(simd, out, tile, values);
        }
        for (i, &factor) in rest.iter().enumerate() {
            add_scaled(simd, out, [factor], [value(first_of_rest + i)]);
        }
    }
}
