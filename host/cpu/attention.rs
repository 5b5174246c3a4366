//! Causal attention with grouped heads over the paged cache.

use rayon::prelude::*;

use super::dot::{Element, add_scaled, dots};
use super::interrupt::Interrupt;
use super::kv_cache::{KvCache, Row};
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
    /// Once it is requested, heads are left out.
    pub interrupt: Interrupt,
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
        if attention.interrupt.is_requested() {
            return;
        }
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

        scores.clear();
        scores.resize(position + 1 - first, 0.0);
        let (of_cached, of_own) = scores.split_at_mut(cached.len());
        dispatch(Scores {
            q,
            key: |i| self.cached(row, cached.start + i, kv_head).0,
            out: of_cached,
        });
        dispatch(Scores {
            q,
            key: |i| self.own(self.k, row, own.start + i, kv_head),
            out: of_own,
        });
        softmax(scores, f64::from(self.config.attention_scale));
        let (of_cached, of_own) = scores.split_at(cached.len());
        dispatch(Mix {
            factors: of_cached,
            value: |i| self.cached(row, cached.start + i, kv_head).1,
            out,
        });
        dispatch(Mix {
            factors: of_own,
            value: |i| self.own(self.v, row, own.start + i, kv_head),
            out,
        });
    }

    /// Key and value of an earlier step.
    #[inline]
    fn cached(&self, row: usize, position: usize, kv_head: usize) -> (&[f32], &[f32]) {
        let dim = self.config.head_dim;
        let pages = self.sequences[self.rows[row].sequence].pages;
        let page = pages[position / PAGE_TOKENS];
        let (keys, values) = self.cache.head(self.layer, page, kv_head);
        let at = position % PAGE_TOKENS * dim;
        (&keys[at..at + dim], &values[at..at + dim])
    }

    /// Key or value of this step: a sequence's rows follow one another.
    #[inline]
    fn own<'b>(&self, of: &'b [f64], row: usize, position: usize, kv_head: usize) -> &'b [f64] {
        let dim = self.config.head_dim;
        let row = row - (self.rows[row].position - position);
        &of[(row * self.config.n_kv_heads + kv_head) * dim..][..dim]
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

impl<'k, T: Element + 'k, F: Fn(usize) -> &'k [T]> Kernel for Scores<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Scores { q, key, out } = self;
        let (tiles, rest) = out.as_chunks_mut::<TILE>();
        let first_of_rest = tiles.len() * TILE;
        for (index, tile) in tiles.iter_mut().enumerate() {
            let mut keys = [&[] as &[T]; TILE];
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

impl<'v, T: Element + 'v, F: Fn(usize) -> &'v [T]> Kernel for Mix<'_, F> {
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
            let mut values = [&[] as &[T]; TILE];
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
