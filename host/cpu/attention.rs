//! Causal attention with grouped heads over the paged cache.

use rayon::prelude::*;

use super::kv_cache::{KvCache, Row};
use super::linear::dot;
use crate::backend::{PAGE_TOKENS, SequenceStep};
use crate::gguf::quant::simd::{Kernel, Simd, dispatch};
use crate::model::Config;

/// `softmax(scale * q . K) V` for every row and head: `q` and the result are
/// `[rows, n_heads * head_dim]`. A row sees its own position and those before it, at most `window`
/// of them. Scores, softmax and the mixture are computed in f64 and rounded once: this is the
/// reference.
pub fn attend(
    config: &Config,
    cache: &KvCache,
    layer: usize,
    window: Option<usize>,
    q: &[f32],
    rows: &[Row],
    sequences: &[SequenceStep<'_>],
) -> Vec<f32> {
    let dim = config.head_dim;
    let mut out = vec![0.0; q.len()];
    let heads = out
        .par_chunks_exact_mut(dim)
        .zip(q.par_chunks_exact(dim))
        .enumerate();
    heads.for_each_init(
        Scratch::default,
        |Scratch { scores, mixture }, (index, (out, q))| {
            let row = &rows[index / config.n_heads];
            let kv_head = index % config.n_heads / config.group_size();
            let first = window.map_or(0, |window| (row.position + 1).saturating_sub(window));
            let pages = sequences[row.sequence].pages;
            let visible = first..=row.position;
            let key_value = |position: usize| {
                let (keys, values) = cache.head(layer, pages[position / PAGE_TOKENS], kv_head);
                let at = position % PAGE_TOKENS * dim;
                (&keys[at..at + dim], &values[at..at + dim])
            };

            scores.clear();
            let scale = f64::from(config.attention_scale);
            scores.extend(
                visible
                    .clone()
                    .map(|position| scale * dot(q, key_value(position).0)),
            );
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            scores
                .iter_mut()
                .for_each(|score| *score = (*score - max).exp());
            let sum: f64 = scores.iter().sum();
            mixture.clear();
            mixture.resize(dim, 0.0);
            for (position, &score) in visible.zip(scores.iter()) {
                dispatch(AddScaled {
                    sum: mixture,
                    factor: score,
                    values: key_value(position).1,
                });
            }
            out.iter_mut()
                .zip(mixture.iter())
                .for_each(|(out, value)| *out = (value / sum) as f32);
        },
    );
    out
}

/// Buffers that a thread keeps from head to head.
#[derive(Default)]
struct Scratch {
    scores: Vec<f64>,
    mixture: Vec<f64>,
}

/// `sum += factor * values`.
struct AddScaled<'a> {
    sum: &'a mut [f64],
    factor: f64,
    values: &'a [f32],
}

impl Kernel for AddScaled<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (sum, &value) in self.sum.iter_mut().zip(self.values) {
            *sum += self.factor * f64::from(value);
        }
    }
}
