//! Causal attention with grouped heads over the paged cache.

use rayon::prelude::*;

use super::kv_cache::{KvCache, Row};
use super::linear::dot_tile;
use crate::backend::{PAGE_TOKENS, SequenceStep};
use crate::gguf::quant::simd::{Kernel, Simd, dispatch};
use crate::model::Config;

/// What [`attend`] works on.
pub struct Attention<'a> {
    /// The model's shape.
    pub config: &'a Config,
    /// The running block.
    pub layer: usize,
    /// Keys and values of earlier steps.
    pub cache: &'a KvCache,
    /// The tokens of this step.
    pub rows: &'a [Row],
    /// Their sequences.
    pub sequences: &'a [SequenceStep<'a>],
    /// Queries, `[rows, n_heads * head_dim]`.
    pub q: &'a [f64],
    /// Keys of this step, `[rows, n_kv_heads * head_dim]`: before the cache rounds them to f32.
    pub k: &'a [f64],
    /// Values of this step, likewise.
    pub v: &'a [f64],
}

/// `softmax(scale * q . K) V` for every row and head, `[rows, n_heads * head_dim]`. A row sees its
/// own position and those before it, at most the layer's window of them.
pub fn attend(attention: &Attention<'_>) -> Vec<f64> {
    let config = attention.config;
    let dim = config.head_dim;
    let mut out = vec![0.0; attention.q.len()];
    let heads = out
        .par_chunks_exact_mut(dim)
        .zip(attention.q.par_chunks_exact(dim))
        .enumerate();
    heads.for_each_init(Vec::new, |scores, (index, (out, q))| {
        let row = index / config.n_heads;
        let kv_head = index % config.n_heads / config.group_size();
        attention.head(row, kv_head, q, scores, out);
    });
    out
}

impl Attention<'_> {
    fn head(&self, row: usize, kv_head: usize, q: &[f64], scores: &mut Vec<f64>, out: &mut [f64]) {
        let position = self.rows[row].position;
        let window = self.config.layers[self.layer].window;
        let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
        let start = self.sequences[self.rows[row].sequence].start;
        let cached = first..start.max(first);
        let own = first.max(start)..position + 1;

        let scale = f64::from(self.config.attention_scale);
        scores.clear();
        for position in cached.clone() {
            let (key, _) = self.cached(row, position, kv_head);
            scores.push(scale * dispatch(Dot { q, key }));
        }
        for position in own.clone() {
            let key = self.own(self.k, row, position, kv_head);
            scores.push(scale * dispatch(Dot { q, key }));
        }
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        scores
            .iter_mut()
            .for_each(|score| *score = (*score - max).exp());
        let sum: f64 = scores.iter().sum();
        let mut factors = scores.iter().map(|score| score / sum);
        for (position, factor) in cached.zip(&mut factors) {
            let (_, value) = self.cached(row, position, kv_head);
            dispatch(AddScaled { out, factor, value });
        }
        for (position, factor) in own.zip(factors) {
            let value = self.own(self.v, row, position, kv_head);
            dispatch(AddScaled { out, factor, value });
        }
    }

    /// Key and value of an earlier step.
    fn cached(&self, row: usize, position: usize, kv_head: usize) -> (&[f32], &[f32]) {
        let dim = self.config.head_dim;
        let pages = self.sequences[self.rows[row].sequence].pages;
        let page = pages[position / PAGE_TOKENS];
        let (keys, values) = self.cache.head(self.layer, page, kv_head);
        let at = position % PAGE_TOKENS * dim;
        (&keys[at..at + dim], &values[at..at + dim])
    }

    /// Key or value of this step: a sequence's rows follow one another.
    fn own<'b>(&self, of: &'b [f64], row: usize, position: usize, kv_head: usize) -> &'b [f64] {
        let dim = self.config.head_dim;
        let row = row - (self.rows[row].position - position);
        &of[(row * self.config.n_kv_heads + kv_head) * dim..][..dim]
    }
}

struct Dot<'a, T> {
    q: &'a [f64],
    key: &'a [T],
}

impl<T: Copy + Into<f64>> Kernel for Dot<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let [sum] = dot_tile(self.key, [self.q]);
        sum
    }
}

/// `out += factor * value`.
struct AddScaled<'a, T> {
    out: &'a mut [f64],
    factor: f64,
    value: &'a [T],
}

impl<T: Copy + Into<f64>> Kernel for AddScaled<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (out, &value) in self.out.iter_mut().zip(self.value) {
            *out += self.factor * value.into();
        }
    }
}
