//! A random token: the parameters, what they may be, the filters as the host applies them, and what the device's
//! kernel (`ops/sample.rs`) is told of them.

use kernels_gpu::abi::SampleSettings;

/// How a token is drawn. The random number follows from the seed and the position alone
/// ([`crate::sampling::uniform`]), so that a text does not depend on what runs beside it. The names and the values of
/// [`default`](Default) are llama.cpp's; each filter has a value that turns it off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Divides the logits; at 0 the most probable token is always taken.
    pub temperature: f32,
    /// Keeps the `top_k` most probable tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps the most probable tokens whose probabilities together reach `top_p`; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least `min_p` times as probable as the most probable; 0 keeps all.
    pub min_p: f32,
    /// Keeps the tokens whose surprise is nearest to the expected surprise, until their
    /// probabilities together reach `typical_p` (Meister et al. 2022, arXiv 2202.00666); 1 keeps all.
    pub typical_p: f32,
    /// Of the random numbers.
    pub seed: u64,
}

/// A parameter outside of its range: its name, its value, and what it may be.
pub type OutOfRange = (&'static str, String, &'static str);

/// Temperatures other than 0 whose inverse, by which logits are multiplied, is finite.
const TEMPERATURES: std::ops::RangeInclusive<f32> = 1e-37..=1e37;

impl Default for Draw {
    fn default() -> Draw {
        Draw {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            seed: 0,
        }
    }
}

impl Draw {
    /// From all tokens as they are.
    pub const UNFILTERED: Draw = Draw {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        typical_p: 1.0,
        seed: 0,
    };

    /// The parameters that are shares of a probability, from 0 to 1, by all their names in requests.
    pub fn shares(&mut self) -> [(&'static [&'static str], &mut f32); 3] {
        // In full: who adds a parameter decides here how requests name it.
        let Draw {
            temperature: _,
            top_k: _,
            top_p,
            min_p,
            typical_p,
            seed: _,
        } = self;
        [
            (&["top_p"], top_p),
            (&["min_p"], min_p),
            (&["typical_p", "typ_p"], typical_p),
        ]
    }

    /// The first parameter that is out of its range.
    pub fn out_of_range(mut self) -> Option<OutOfRange> {
        let of = |name, value: f32, expected| Some((name, format!("{value:?}"), expected));
        let t = self.temperature;
        // Not-a-number must fail.
        if t != 0.0 && !TEMPERATURES.contains(&t) {
            const EXPECTED: &str =
                "0 (always the most probable token) or a number from 1e-37 to 1e37";
            return of("temperature", t, EXPECTED);
        }
        let mut shares = self.shares().into_iter();
        let (names, share) = shares.find(|(_, share)| !(0.0..=1.0).contains(*share))?;
        of(names[0], *share, "a number from 0 to 1")
    }

    /// What is kept of `candidates`, in llama.cpp's order of filters, by falling logit. There is at least one.
    pub fn keep(&self, candidates: Vec<Candidate>) -> Vec<Candidate> {
        let Draw {
            temperature: _,
            top_k: k,
            top_p: p,
            min_p: least,
            typical_p: share,
            seed: _,
        } = *self;
        let mut kept = top_k(candidates, k as usize);
        typical(&mut kept, share);
        top_p(&mut kept, p);
        min_p(&mut kept, least);
        kept
    }

    /// What the kernel is told; `None` where it cannot do it.
    pub fn settings(&self) -> Option<SampleSettings> {
        let Draw {
            temperature,
            top_k,
            top_p,
            min_p,
            typical_p,
            seed,
        } = *self;
        (typical_p >= 1.0).then_some(SampleSettings {
            temperature,
            top_k,
            top_p,
            min_p,
            seed: [seed as u32, (seed >> 32) as u32],
        })
    }
}

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
fn top_p(candidates: &mut Vec<Candidate>, p: f32) {
    if p < 1.0 {
        let kept = reaching(softmax(candidates), p);
        candidates.truncate(kept);
    }
}

/// Keeps the candidates at least `p` times as probable as the first, at least one.
fn min_p(candidates: &mut Vec<Candidate>, p: f32) {
    let Some(first) = candidates.first().filter(|_| p > 0.0) else {
        return;
    };
    let least = first.logit + libm::logf(p);
    let kept = candidates.partition_point(|candidate| candidate.logit >= least);
    candidates.truncate(kept.max(1));
}

/// Keeps the candidates whose surprise is nearest to the entropy until they reach `p`; the order of
/// the others stays.
fn typical(candidates: &mut Vec<Candidate>, p: f32) {
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
