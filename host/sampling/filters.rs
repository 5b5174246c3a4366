//! The filters of a sampling chain, over candidates sorted by falling logit.

/// A token that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Its id.
    pub token: u32,
    /// Its logit.
    pub logit: f32,
}

/// The `k` candidates with the largest logits, sorted; all of them where `k` is 0.
pub fn top_k(mut candidates: Vec<Candidate>, k: usize) -> Vec<Candidate> {
    let falling = |a: &Candidate, b: &Candidate| {
        // Equal logits in the order of their ids, so that a seed decides the text; -0 + 0 is 0, and both are equal.
        let order = (b.logit + 0.0).total_cmp(&(a.logit + 0.0));
        order.then(a.token.cmp(&b.token))
    };
    if k > 0 && k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, falling);
        candidates.truncate(k);
    }
    candidates.sort_unstable_by(falling);
    candidates
}

/// Probabilities of the candidates: the softmax of their logits. `libm`, because the standard
/// library's functions differ between platforms and a seed should give the same text on all.
pub fn softmax(candidates: &[Candidate]) -> Vec<f64> {
    let max = candidates
        .iter()
        .fold(f32::NEG_INFINITY, |max, candidate| max.max(candidate.logit));
    let exponent = |candidate: &Candidate| libm::exp(f64::from(candidate.logit) - f64::from(max));
    let mut probabilities: Vec<f64> = candidates.iter().map(exponent).collect();
    let sum: f64 = probabilities.iter().sum();
    probabilities.iter_mut().for_each(|p| *p /= sum);
    probabilities
}

/// Keeps the first candidates whose probabilities together reach `p`, at least one.
pub fn top_p(candidates: &mut Vec<Candidate>, p: f32) {
    if p < 1.0 {
        let kept = reaching(softmax(candidates), p);
        candidates.truncate(kept);
    }
}

/// Keeps the candidates at least `p` times as probable as the first, at least one.
pub fn min_p(candidates: &mut Vec<Candidate>, p: f32) {
    let Some(first) = candidates.first().filter(|_| p > 0.0) else {
        return;
    };
    let least = first.logit + libm::logf(p);
    let kept = candidates.partition_point(|candidate| candidate.logit >= least);
    candidates.truncate(kept.max(1));
}

/// Keeps the candidates whose surprise is nearest to the entropy until they reach `p`; the order of
/// the others stays.
pub fn typical(candidates: &mut Vec<Candidate>, p: f32) {
    if p >= 1.0 || candidates.is_empty() {
        return;
    }
    let probabilities = softmax(candidates);
    let surprise = |p: f64| {
        if p > 0.0 {
            -libm::log(p)
        } else {
            f64::INFINITY
        }
    };
    let entropy: f64 = probabilities
        .iter()
        .filter(|&&p| p > 0.0)
        .map(|&p| p * surprise(p))
        .sum();
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    let distance = |index: usize| (surprise(probabilities[index]) - entropy).abs();
    order.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)));
    let kept = reaching(order.iter().map(|&index| probabilities[index]), p);
    order.truncate(kept);
    order.sort_unstable();
    *candidates = order.iter().map(|&index| candidates[index]).collect();
}

/// How many of `probabilities` it takes to reach `p`.
fn reaching(probabilities: impl IntoIterator<Item = f64>, p: f32) -> usize {
    let mut sum = 0.0;
    let mut count = 0;
    for probability in probabilities {
        sum += probability;
        count += 1;
        if sum >= f64::from(p) {
            break;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(probabilities: &[f64]) -> Vec<Candidate> {
        let logits = probabilities.iter().map(|p| p.ln() as f32);
        let all = logits.enumerate().map(|(index, logit)| Candidate {
            token: index as u32,
            logit,
        });
        top_k(all.collect(), 0)
    }

    fn tokens(candidates: &[Candidate]) -> Vec<u32> {
        candidates.iter().map(|candidate| candidate.token).collect()
    }

    #[test]
    fn top_k_keeps_the_largest_in_order() {
        let all = candidates(&[0.1, 0.4, 0.2, 0.3]);
        assert_eq!(tokens(&top_k(all.clone(), 2)), [1, 3]);
        assert_eq!(tokens(&top_k(all.clone(), 0)), [1, 3, 2, 0]);
        assert_eq!(tokens(&top_k(all, 9)), [1, 3, 2, 0]);
        let equal = candidates(&[0.25; 4]);
        assert_eq!(tokens(&top_k(equal, 2)), [0, 1]);
        let logits = [-1.0, -0.0, 0.0].into_iter().zip(0..);
        let zeros = logits.map(|(logit, token)| Candidate { token, logit });
        assert_eq!(tokens(&top_k(zeros.collect(), 1)), [1]);
    }

    #[test]
    fn top_p_keeps_until_the_sum_is_reached() {
        for (p, expected) in [(0.0, 1), (0.4, 1), (0.5, 2), (0.75, 3), (1.0, 4)] {
            let mut kept = candidates(&[0.45, 0.25, 0.2, 0.1]);
            top_p(&mut kept, p);
            assert_eq!(kept.len(), expected, "top_p {p}");
        }
    }

    #[test]
    fn min_p_is_relative_to_the_best() {
        let mut kept = candidates(&[0.5, 0.3, 0.15, 0.05]);
        min_p(&mut kept, 0.25);
        assert_eq!(tokens(&kept), [0, 1, 2]);
        min_p(&mut kept, 2.0);
        assert_eq!(tokens(&kept), [0]);
    }

    #[test]
    fn typical_prefers_expected_surprise_to_the_best_token() {
        // Entropy 1.09 nats: 0.25 (1.39) and 0.2 (1.61) are nearer to it than 0.55 (0.60).
        let mut kept = candidates(&[0.55, 0.25, 0.2]);
        typical(&mut kept, 0.3);
        assert_eq!(tokens(&kept), [0, 1]);
        typical(&mut kept, 1.0);
        assert_eq!(kept.len(), 2);
    }
}
