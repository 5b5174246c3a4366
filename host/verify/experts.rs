//! Mixtures of experts: whether a backend took the right ones, and what rounding costs their products.
//!
//! Scores that nearly tie decide about whole networks, so the reference goes on with the backend's choice. Where that is
//! not its own, the scores of the experts that were swapped must be closer than what a router may be off.

use serde::Serialize;

use super::noise::{Q8Rounding, RoundedProduct};
use crate::model::ExpertMatrix;

/// The largest share of tokens whose experts may be others than the reference's.
const MOST_SWAPPED: f64 = 0.01;

/// Choices of experts, a token and a block each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ExpertChoices {
    /// How many there were.
    pub total: usize,
    /// Those that the reference would have made otherwise.
    pub swapped: usize,
    /// Those of them whose scores are too far apart for that.
    pub beyond: usize,
}

impl ExpertChoices {
    /// The choices `ids` (`[tokens, used]`, the best first) by the reference's `scores` (`[tokens, count]`), of which each
    /// may be off by `bound` of the length of all.
    pub fn of(scores: &[f32], count: usize, ids: &[f32], used: usize, bound: f64) -> ExpertChoices {
        let mut choices = ExpertChoices::default();
        for (scores, ids) in scores.chunks(count.max(1)).zip(ids.chunks(used.max(1))) {
            choices.total += 1;
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
            let is_own = |(&own, &id): (&usize, &f32)| own as f32 == id;
            if order.iter().zip(ids).all(is_own) {
                continue;
            }
            choices.swapped += 1;
            let length = scores.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>();
            let allowed = 2.0 * bound * length.sqrt();
            if !is_near(scores, &order, ids, allowed) {
                choices.beyond += 1;
            }
        }
        choices
    }

    /// Adds those of another operation.
    pub fn add(&mut self, other: ExpertChoices) {
        self.total += other.total;
        self.swapped += other.swapped;
        self.beyond += other.beyond;
    }

    /// Whether too many were made otherwise.
    pub fn are_too_many(&self) -> bool {
        self.swapped as f64 > MOST_SWAPPED * self.total as f64
    }
}

/// Whether `ids` are different experts, each with a score as high as that of the same rank in `order`, up to `allowed`.
fn is_near(scores: &[f32], order: &[usize], ids: &[f32], allowed: f64) -> bool {
    let mut seen = vec![false; scores.len()];
    order.iter().zip(ids).all(|(&own, &id)| {
        let index = id as usize;
        let is_expert = id.fract() == 0.0 && id >= 0.0 && index < scores.len();
        if !is_expert || std::mem::replace(&mut seen[index], true) {
            return false;
        }
        f64::from(scores[own]) - f64::from(scores[index]) <= allowed
    })
}

/// The products of chosen experts' matrices, with inputs that are rounded to 8 bits.
#[derive(Clone)]
pub struct RoundedExperts {
    /// Of all experts.
    pub matrix: ExpertMatrix,
    /// Whether each expert of a token has an input of its own.
    pub has_own_inputs: bool,
}

impl RoundedExperts {
    /// The length (2-norm) that the error in the products of the experts `ids` (`[tokens, used]`) may well have.
    pub fn q8_error(&self, x: &[f32], ids: &[f32], used: usize) -> f64 {
        let n_in = self.matrix.n_in();
        let squares = ids.iter().enumerate().map(|(pair, &id)| {
            let row = if self.has_own_inputs {
                pair
            } else {
                pair / used
            };
            let (index, x) = (id as usize, x.get(row * n_in..(row + 1) * n_in));
            match x {
                Some(x) if index < self.matrix.count() => {
                    let product = RoundedProduct::of(&self.matrix.of(index));
                    product.q8_error(x, 1, Q8Rounding::Halves).powi(2)
                }
                _ => 0.0,
            }
        });
        squares.sum::<f64>().sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [f32; 4] = [3.0, 1.0, 2.0, 1.99];

    fn of(ids: &[f32], bound: f64) -> [usize; 2] {
        let choices = ExpertChoices::of(&SCORES, 4, ids, ids.len(), bound);
        assert_eq!(choices.total, 1);
        [choices.swapped, choices.beyond]
    }

    #[test]
    fn swaps_are_counted_and_judged() {
        assert_eq!(of(&[0.0, 2.0], 0.0), [0, 0]);
        // Scores of length 4.2 that differ by 0.01.
        assert_eq!(of(&[0.0, 3.0], 2e-3), [1, 0]);
        assert_eq!(of(&[0.0, 3.0], 1e-3), [1, 1]);
        assert_eq!(of(&[0.0, 1.0], 2e-3), [1, 1]);
        // In another order.
        assert_eq!(of(&[0.0, 3.0, 2.0], 2e-3), [1, 0]);
        assert_eq!(of(&[2.0, 0.0], 2e-3), [1, 1]);
        // One twice, and none.
        for wrong in [0.0, 4.0, -1.0, 0.5, f32::NAN] {
            assert_eq!(of(&[0.0, wrong], 1.0), [1, 1], "{wrong}");
        }
    }

    #[test]
    fn one_in_a_hundred_may_be_swapped() {
        let choices = |total, swapped| ExpertChoices {
            total,
            swapped,
            beyond: 0,
        };
        assert!(!choices(0, 0).are_too_many() && !choices(200, 2).are_too_many());
        assert!(choices(200, 3).are_too_many() && choices(50, 1).are_too_many());
    }
}
