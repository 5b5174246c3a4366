//! Attention written down once more, with everything in it that can be got wrong as a parameter.

use std::collections::HashMap;

use hyperion::backend::TensorName;
use hyperion::model::Model;

use crate::engine::{Change, Seen};

/// What a faulty attention does.
#[derive(Clone, Copy)]
pub struct Choices {
    /// The key head of a query head, given `(query head, query heads, key heads)`.
    pub key_head: fn(usize, usize, usize) -> usize,
    /// The positions that a query at a position sees end before this one.
    pub end: fn(usize) -> usize,
}

/// What is right.
pub const RIGHT: Choices = Choices {
    key_head: |head, heads, key_heads| head / (heads / key_heads),
    end: |position| position + 1,
};

/// A rule that computes `kqv_out` by `choices` from the queries, keys and values of a sequence that
/// starts at position 0. For models without sliding windows.
pub fn rule(
    model: &Model,
    choices: Choices,
) -> impl FnMut(TensorName, &[f32], &Seen) -> Change + Send + 'static {
    let config = model.config.clone();
    let mut cache: HashMap<usize, (Vec<f32>, Vec<f32>)> = HashMap::new();
    move |name, data, seen| {
        let (Some(layer), "kqv_out") = (name.layer, name.base) else {
            return Change::Keep;
        };
        let tensor = |base| &seen[&TensorName { base, ..name }];
        let (keys, values) = cache.entry(layer).or_default();
        let (dim, kv_width) = (config.head_dim, config.kv_width());
        let start = keys.len() / kv_width;
        keys.extend(tensor("Kcur"));
        values.extend(tensor("Vcur"));
        let n_positions = keys.len() / kv_width;
        let q = tensor("Qcur");
        let mut out = vec![0.0; data.len()];
        for (index, (out, q)) in out.chunks_mut(dim).zip(q.chunks(dim)).enumerate() {
            let position = start + index / config.n_heads;
            let head = index % config.n_heads;
            let key_head = (choices.key_head)(head, config.n_heads, config.n_kv_heads);
            let end = (choices.end)(position).min(n_positions);
            let at = |position: usize| position * kv_width + key_head * dim;
            let scores: Vec<f64> = (0..end)
                .map(|position| {
                    let key = &keys[at(position)..][..dim];
                    let dot = |(&q, &k): (&f32, &f32)| f64::from(q) * f64::from(k);
                    let sum: f64 = q.iter().zip(key).map(dot).sum();
                    sum * f64::from(config.attention_scale)
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
            for (position, score) in scores.iter().enumerate() {
                let factor = (score - max).exp() / sum;
                let value = &values[at(position)..][..dim];
                out.iter_mut()
                    .zip(value)
                    .for_each(|(out, &value)| *out += (factor * f64::from(value)) as f32);
            }
        }
        Change::Report(out)
    }
}
