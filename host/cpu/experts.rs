//! Mixtures of experts: the router, the products of the networks that tokens take, their weighted sum.
//!
//! A network is multiplied with all tokens that take it together. A token's results are added in the order of its
//! ranking, so that its bits do not depend on its neighbours.

use super::arithmetic::{Arithmetic, Value};
use super::ops::rms_norm;
use super::pass::Pass;
use crate::backend::Tracer;
use crate::model::{ExpertCounts, ExpertMatrix, Experts};

impl<A: Arithmetic> Pass<'_, A> {
    /// What the experts add to the tokens `x`, `[tokens, width]`.
    pub(super) fn experts(
        &self,
        experts: &Experts,
        x: &[A::Value],
        norm: Option<&Vec<f32>>,
        trace: &mut Tracer,
    ) -> Vec<A::Value> {
        let config = &self.model.config;
        // Blocks whose experts are read have counts.
        let Some(counts) = &config.experts else {
            return vec![A::Value::of(0.0); x.len()];
        };
        // What decides about whole networks reads what no backend has rounded: scores may nearly tie.
        let mut normed = match norm {
            Some(norm) => rms_norm(x, norm, config.rms_eps),
            None => x.to_vec(),
        };
        let [mut scores] = self.linears([&experts.router], &normed);
        trace.tensor("ffn_moe_logits", counts.count, &mut scores);
        let chosen = Chosen::of(&scores, counts, trace);
        let shared = experts.shared.as_ref().map(|shared| {
            let tokens = normed.chunks_exact(config.width);
            let factors = tokens.map(|x| A::Value::of(sigmoid(product(&shared.gate, x))));
            let mut factors: Vec<A::Value> = factors.collect();
            trace.tensor("ffn_shexp_gate", 1, &mut factors);
            (&shared.network, factors)
        });
        trace.tensor("ffn_norm", config.width, &mut normed);

        let mut gate = self.products(&experts.gate, &chosen, &normed, 1);
        let mut up = self.products(&experts.up, &chosen, &normed, 1);
        let of_token = counts.used * counts.width;
        trace.tensor("ffn_moe_gate", of_token, &mut gate);
        trace.tensor("ffn_moe_up", of_token, &mut up);
        self.arithmetic.gate(config.gate_function(), &mut gate, &up);
        trace.tensor("ffn_moe_swiglu", of_token, &mut gate);
        let mut parts = self.products(&experts.down, &chosen, &gate, counts.used);
        trace.tensor("ffn_moe_down", counts.used * config.width, &mut parts);

        let mut out = chosen.weighted_sums(&parts, config.width);
        trace.tensor("ffn_moe_out", config.width, &mut out);
        if let Some((network, factors)) = shared {
            let part = self.network(network, &normed, "ffn_shexp", trace);
            let tokens = out.chunks_exact_mut(config.width);
            for ((out, part), factor) in tokens.zip(part.chunks_exact(config.width)).zip(factors) {
                add_times(out, part, factor.into());
            }
        }
        trace.tensor("ffn_out", config.width, &mut out);
        out
    }

    /// The products of the chosen experts' matrices with `x`, whose rows are those of a token, or one for each of its
    /// experts: `[tokens, used, n_out]`.
    fn products(
        &self,
        matrix: &ExpertMatrix,
        chosen: &Chosen,
        x: &[A::Value],
        rows_of_token: usize,
    ) -> Vec<A::Value> {
        let (n_in, n_out) = (matrix.n_in(), matrix.n_out);
        let mut out = vec![A::Value::of(0.0); chosen.ids.len() * n_out];
        for expert in 0..matrix.count() {
            let places = chosen.ids.iter().enumerate();
            let places = places.filter(|&(_, &id)| id == expert);
            let places: Vec<usize> = places.map(|(place, _)| place).collect();
            if places.is_empty() {
                continue;
            }
            let rows = places.iter().flat_map(|place| {
                let row = place * rows_of_token / chosen.used;
                &x[row * n_in..][..n_in]
            });
            let rows: Vec<A::Value> = rows.copied().collect();
            let [products] = self.linears([&matrix.of(expert)], &rows);
            for (place, product) in places.iter().zip(products.chunks_exact(n_out)) {
                out[place * n_out..][..n_out].copy_from_slice(product);
            }
        }
        out
    }
}

/// Which experts each token takes, the best first, and how much each counts.
struct Chosen {
    used: usize,
    /// `[tokens, used]`.
    ids: Vec<usize>,
    /// `[tokens, used]`.
    weights: Vec<f64>,
}

impl Chosen {
    /// By the router's `scores`, `[tokens, count]`.
    fn of<V: Value>(scores: &[V], counts: &ExpertCounts, trace: &mut Tracer) -> Chosen {
        let scores: Vec<f64> = scores.iter().map(|&score| score.into()).collect();
        let tokens = || scores.chunks_exact(counts.count);
        let own: Vec<usize> = tokens().flat_map(|s| best(s, counts.used)).collect();
        let mut ids: Vec<f64> = own.iter().map(|&id| id as f64).collect();
        trace.tensor("ffn_moe_topk", counts.used, &mut ids);
        // What another backend chose may be no expert at all.
        let is_expert = |&id: &f64| id.fract() == 0.0 && (0.0..counts.count as f64).contains(&id);
        let ids = match ids.iter().all(is_expert) {
            true => ids.into_iter().map(|id| id as usize).collect(),
            false => own,
        };
        let of_tokens = tokens().zip(ids.chunks_exact(counts.used));
        let mut weights: Vec<f64> = of_tokens
            .flat_map(|(scores, ids)| weights(scores, ids, counts.normalizes))
            .collect();
        let name = match counts.normalizes {
            true => "ffn_moe_weights_norm",
            false => "ffn_moe_weights",
        };
        trace.tensor(name, counts.used, &mut weights);
        Chosen {
            used: counts.used,
            ids,
            weights,
        }
    }

    /// The sums of each token's `parts`, `[tokens, used, width]`, times their weights.
    fn weighted_sums<V: Value>(&self, parts: &[V], width: usize) -> Vec<V> {
        let mut out = vec![V::of(0.0); parts.len() / self.used];
        let of_tokens = parts.chunks_exact(self.used * width);
        let of_tokens = of_tokens.zip(self.weights.chunks_exact(self.used));
        for (out, (parts, weights)) in out.chunks_exact_mut(width).zip(of_tokens) {
            for (part, weight) in parts.chunks_exact(width).zip(weights) {
                add_times(out, part, *weight);
            }
        }
        out
    }
}

/// The `n` largest scores' indices, the largest first, and among equals the lower one.
fn best(scores: &[f64], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Both zeros are the same score.
    let score = |index: usize| scores[index] + 0.0;
    order.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
    order.truncate(n);
    order
}

/// The softmax over all `scores` of those with these `ids`, divided by their sum where that `normalizes`.
fn weights(scores: &[f64], ids: &[usize], normalizes: bool) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let all: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
    let chosen = ids.iter().map(|&id| (scores[id] - largest).exp() / all);
    let mut chosen: Vec<f64> = chosen.collect();
    if normalizes {
        let sum = chosen
            .iter()
            .sum::<f64>()
            .max(ExpertCounts::LEAST_SUM.into());
        chosen.iter_mut().for_each(|weight| *weight /= sum);
    }
    chosen
}

fn product<V: Value>(weights: &[f32], x: &[V]) -> f64 {
    let terms = weights.iter().zip(x);
    terms
        .map(|(&weight, &x)| f64::from(weight) * Into::<f64>::into(x))
        .sum()
}

/// `y += factor * x`.
fn add_times<V: Value>(y: &mut [V], x: &[V], factor: f64) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = V::of((*y).into() + factor * x.into());
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_index_wins_a_tie() {
        assert_eq!(best(&[1.0, 3.0, 3.0, 0.0, 3.0], 3), [1, 2, 4]);
        assert_eq!(best(&[-0.0, 0.0], 2), [0, 1]);
        assert_eq!(best(&[2.0], 1), [0]);
    }

    #[test]
    fn weights_are_shares_of_all_or_of_the_chosen() {
        let scores = [0.0, 2f64.ln(), 5f64.ln(), -f64::INFINITY];
        let close = |found: &[f64], expected: &[f64]| {
            let pairs = found.iter().zip(expected);
            assert!(
                pairs.clone().all(|(a, b)| (a - b).abs() < 1e-15),
                "{found:?}"
            );
        };
        close(&weights(&scores, &[2, 1], false), &[5.0 / 8.0, 2.0 / 8.0]);
        close(&weights(&scores, &[2, 1], true), &[5.0 / 7.0, 2.0 / 7.0]);
        // The least sum.
        close(
            &weights(&[0.0, -20.0], &[1], true),
            &[(-20f64).exp() / (1.0 + (-20f64).exp()) / f64::from(ExpertCounts::LEAST_SUM)],
        );
    }
}
