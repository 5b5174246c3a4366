//! Choosing the next token: penalties, filters, temperature and a seeded draw, in llama.cpp's
//! default order; and the texts that end a generation.

mod filters;
mod params;
mod stop;

use std::collections::{HashMap, VecDeque};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::backend::Draw;
use filters::Candidate;
pub use params::{CheckedParams, SamplingParams};
pub use stop::{StopStrings, Stopped};

/// Errors of sampling.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SamplingError {
    /// A NaN or infinity among the model's logits: its numbers are broken, and any choice would
    /// hide it.
    #[error("the logit of token {token} is not finite: the model or the backend is broken")]
    NotFinite {
        /// The first such token.
        token: usize,
    },
    /// There are no logits, or the bias forbids all tokens.
    #[error("no token may be chosen: the logit bias forbids all {0}")]
    NothingAllowed(usize),
    /// A parameter outside its range.
    #[error("{name} is {value}; expected {expected}")]
    Parameter {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}

/// Chooses tokens of one sequence.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: CheckedParams,
    recent: VecDeque<u32>,
    random: ChaCha8Rng,
}

impl Sampler {
    /// A sampler for a vocabulary of `vocab` tokens.
    ///
    /// # Errors
    /// A parameter outside its range; see [`CheckedParams::new`].
    pub fn new(params: SamplingParams, vocab: usize) -> Result<Sampler, SamplingError> {
        let params = CheckedParams::new(params, vocab)?;
        Ok(Sampler {
            random: ChaCha8Rng::seed_from_u64(params.seed),
            recent: VecDeque::new(),
            params,
        })
    }

    /// Whether [`Sampler::sample`] is the largest logit and nothing else, so that a backend can
    /// choose by itself.
    pub fn is_argmax(&self) -> bool {
        // In full, as in `draw_elsewhere`.
        let SamplingParams {
            temperature,
            // Filters do nothing where the most probable token is always taken.
            top_k: _,
            top_p: _,
            min_p: _,
            typical_p: _,
            repeat_last_n: _,     // of the penalties
            repeat_penalty: _,    // in `penalizes`
            presence_penalty: _,  // in `penalizes`
            frequency_penalty: _, // in `penalizes`
            ref logit_bias,
            seed: _,
        } = *self.params;
        temperature <= 0.0 && logit_bias.is_empty() && !self.params.penalizes()
    }

    /// The next draw for a backend that draws by itself, which gives the same distribution; `None` where
    /// the parameters ask for more than it can.
    pub fn draw_elsewhere(&self) -> Option<Draw> {
        // In full, so that a parameter that a draw does not know cannot be forgotten: who adds one has to decide
        // here what a backend makes of it.
        let SamplingParams {
            temperature,
            top_k,
            top_p,
            min_p,
            typical_p,
            repeat_last_n: _,     // of the penalties
            repeat_penalty: _,    // in `penalizes`
            presence_penalty: _,  // in `penalizes`
            frequency_penalty: _, // in `penalizes`
            ref logit_bias,
            seed,
        } = *self.params;
        let plain = temperature > 0.0
            && typical_p >= 1.0
            && logit_bias.is_empty()
            && !self.params.penalizes();
        plain.then(|| Draw {
            temperature,
            // A vocabulary has fewer tokens than that.
            top_k: u32::try_from(top_k).unwrap_or(0),
            top_p,
            min_p,
            seed,
        })
    }

    /// Takes note of a token of the sequence, prompt included, for the penalties.
    pub fn accept(&mut self, token: u32) {
        if self.params.penalizes() {
            self.recent.push_back(token);
            if self.recent.len() > self.params.repeat_last_n {
                self.recent.pop_front();
            }
        }
    }

    /// Chooses the next token from the logits of all tokens.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, SamplingError> {
        // The model's own, before a bias forbids anything.
        if let Some(token) = logits.iter().position(|logit| !logit.is_finite()) {
            return Err(SamplingError::NotFinite { token });
        }
        let mut candidates = self.penalized(logits);
        // What is forbidden must not come back as the rounding error of a draw.
        candidates.retain(|candidate| candidate.logit > f32::NEG_INFINITY);
        if candidates.is_empty() {
            return Err(SamplingError::NothingAllowed(logits.len()));
        }
        let params = &self.params;
        if params.temperature <= 0.0 {
            return Ok(filters::top_k(candidates, 1)[0].token);
        }
        let mut candidates = filters::top_k(candidates, params.top_k);
        filters::typical(&mut candidates, params.typical_p);
        filters::top_p(&mut candidates, params.top_p);
        filters::min_p(&mut candidates, params.min_p);
        // Relative to the largest, so that a small temperature cannot make infinities.
        let max = candidates[0].logit;
        for candidate in &mut candidates {
            candidate.logit = (candidate.logit - max) / params.temperature;
        }
        let probabilities = filters::softmax(&candidates);
        Ok(candidates[self.draw(&probabilities)].token)
    }

    /// All tokens with bias and penalties applied. The ranges of the parameters keep real logits far from
    /// overflow; larger ones saturate, so that minus infinity always means forbidden, and nothing becomes NaN.
    fn penalized(&self, logits: &[f32]) -> Vec<Candidate> {
        let with_token = |(token, &logit)| Candidate {
            token: token as u32,
            logit,
        };
        let mut candidates: Vec<Candidate> = logits.iter().enumerate().map(with_token).collect();
        for &(token, bias) in &self.params.logit_bias {
            if let Some(candidate) = candidates.get_mut(token as usize) {
                candidate.logit = match bias {
                    f32::NEG_INFINITY => bias,
                    bias => saturated(candidate.logit, candidate.logit + bias),
                };
            }
        }
        let mut counts: HashMap<u32, u32> = HashMap::new();
        for &token in &self.recent {
            *counts.entry(token).or_default() += 1;
        }
        for (token, count) in counts {
            let Some(candidate) = candidates.get_mut(token as usize) else {
                continue;
            };
            let logit = match candidate.logit > 0.0 {
                true => candidate.logit / self.params.repeat_penalty,
                false => candidate.logit * self.params.repeat_penalty,
            };
            let frequency = count as f32 * self.params.frequency_penalty;
            let penalized = logit - frequency - self.params.presence_penalty;
            candidate.logit = saturated(candidate.logit, penalized);
        }
        candidates
    }

    /// An index with the given probabilities.
    fn draw(&mut self, probabilities: &[f64]) -> usize {
        // 53 random bits: every double in [0, 1) of that spacing is equally likely.
        let uniform = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut sum = 0.0;
        let chosen = probabilities.iter().position(|probability| {
            sum += probability;
            uniform < sum
        });
        // Rounding can leave the sum just below one.
        chosen.unwrap_or(probabilities.len() - 1)
    }
}

/// `changed`, no farther out than f32 reaches; what was forbidden stays so.
fn saturated(logit: f32, changed: f32) -> f32 {
    match logit {
        f32::NEG_INFINITY => logit,
        _ => changed.clamp(f32::MIN, f32::MAX),
    }
}

/// Index of the largest of finite logits, the first of equals.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = index;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [1.0, 3.0, 2.0, 0.0];

    fn sampler(params: SamplingParams) -> Sampler {
        Sampler::new(params, LOGITS.len()).unwrap()
    }

    #[test]
    fn temperature_zero_is_greedy() {
        let mut greedy = sampler(SamplingParams::greedy());
        assert!(greedy.is_argmax());
        assert_eq!(greedy.sample(&LOGITS), Ok(1));
        assert_eq!(
            greedy.sample(&[2.0, 5.0, 5.0, 1.0]),
            Ok(1),
            "the first of equals"
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_tokens() {
        let draw = |seed| {
            let mut sampler = sampler(SamplingParams {
                seed,
                ..SamplingParams::default()
            });
            (0..50)
                .map(|_| sampler.sample(&LOGITS).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn a_tiny_temperature_takes_the_likeliest() {
        let params = SamplingParams {
            temperature: 1e-37,
            ..SamplingParams::default()
        };
        assert_eq!(sampler(params).sample(&[30.0, 20.0, 40.0, -10.0]), Ok(2));
    }

    #[test]
    fn only_plain_draws_are_left_to_a_backend() {
        let seeded = SamplingParams {
            seed: 7,
            ..SamplingParams::default()
        };
        let draw = sampler(seeded).draw_elsewhere().unwrap();
        assert_eq!((draw.temperature, draw.top_k, draw.seed), (0.8, 40, 7));
        let others = [
            SamplingParams::greedy(),
            SamplingParams {
                presence_penalty: 0.5,
                ..SamplingParams::default()
            },
            SamplingParams {
                typical_p: 0.9,
                ..SamplingParams::default()
            },
            SamplingParams {
                logit_bias: vec![(1, 1.0)],
                ..SamplingParams::default()
            },
        ];
        for params in others {
            assert_eq!(sampler(params).draw_elsewhere(), None);
        }
    }

    /// Chi-squared with 3 degrees of freedom is above 16.3 once in a thousand times; the seed is
    /// fixed, so this never happens by chance.
    #[test]
    fn draws_follow_the_softmax() {
        let params = SamplingParams {
            temperature: 2.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 1,
            ..SamplingParams::default()
        };
        let mut sampler = sampler(params);
        let mut counts = [0f64; 4];
        let n = 20_000;
        for _ in 0..n {
            counts[sampler.sample(&LOGITS).unwrap() as usize] += 1.0;
        }
        let weights = LOGITS.map(|logit| (f64::from(logit) / 2.0).exp());
        let sum: f64 = weights.iter().sum();
        let expected = weights.map(|weight| f64::from(n) * weight / sum);
        let terms = counts
            .iter()
            .zip(expected)
            .map(|(c, e)| (c - e) * (c - e) / e);
        let chi_squared: f64 = terms.sum();
        assert!(
            chi_squared < 16.3,
            "chi-squared {chi_squared}, counts {counts:?}"
        );
    }

    #[test]
    fn penalties_look_at_recent_tokens_only() {
        let params = SamplingParams {
            repeat_last_n: 2,
            repeat_penalty: 2.0,
            presence_penalty: 0.25,
            frequency_penalty: 0.5,
            ..SamplingParams::greedy()
        };
        let mut sampler = sampler(params);
        [1, 2, 2]
            .into_iter()
            .for_each(|token| sampler.accept(token));
        let logits: Vec<f32> = sampler.penalized(&LOGITS).iter().map(|c| c.logit).collect();
        assert_eq!(logits, [1.0, 3.0, 2.0 / 2.0 - 2.0 * 0.5 - 0.25, 0.0]);
        assert!(!sampler.is_argmax());
    }

    #[test]
    fn bias_can_force_and_forbid() {
        let bias = |logit_bias| {
            let params = SamplingParams {
                logit_bias,
                ..SamplingParams::greedy()
            };
            sampler(params).sample(&LOGITS).unwrap()
        };
        assert_eq!(bias(vec![(3, 10.0)]), 3);
        assert_eq!(bias(vec![(1, f32::NEG_INFINITY)]), 2);
    }

    /// The largest logits that there are, and the largest parameters: never NaN, and no complaint about the model.
    #[test]
    fn extreme_parameters_saturate() {
        let logits = [f32::MAX, f32::MIN, 0.0, 1.0];
        let extremes = |repeat_penalty, penalty| SamplingParams {
            repeat_penalty,
            presence_penalty: penalty,
            frequency_penalty: penalty,
            logit_bias: vec![(0, 1e6), (1, -1e6), (2, f32::NEG_INFINITY), (2, 1e6)],
            ..SamplingParams::greedy()
        };
        for repeat_penalty in [1e-6, 1e6] {
            for penalty in [-1e6, 1e6] {
                let mut sampler = sampler(extremes(repeat_penalty, penalty));
                (0..40).for_each(|i| sampler.accept(i % 4));
                let found = sampler.penalized(&logits);
                for (index, candidate) in found.iter().enumerate() {
                    assert_eq!(candidate.logit.is_finite(), index != 2, "{candidate:?}");
                }
                assert_eq!(found[2].logit, f32::NEG_INFINITY);
                assert!(sampler.sample(&logits).is_ok());
            }
        }
    }

    #[test]
    fn logits_that_are_not_finite_are_an_error_even_where_forbidden() {
        let forbids = |token| SamplingParams {
            logit_bias: vec![(token, f32::NEG_INFINITY)],
            ..SamplingParams::default()
        };
        for params in [
            SamplingParams::greedy(),
            SamplingParams::default(),
            forbids(2),
        ] {
            let mut sampler = sampler(params);
            for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let found = sampler.sample(&[0.0, 1.0, broken, 0.0]);
                assert_eq!(found, Err(SamplingError::NotFinite { token: 2 }));
            }
            assert_eq!(sampler.sample(&[]), Err(SamplingError::NothingAllowed(0)));
        }
        let all = (0..4).map(|token| (token, f32::NEG_INFINITY)).collect();
        let mut nothing = sampler(SamplingParams {
            logit_bias: all,
            ..SamplingParams::default()
        });
        assert_eq!(
            nothing.sample(&LOGITS),
            Err(SamplingError::NothingAllowed(4))
        );
    }
}
