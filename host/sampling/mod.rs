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
pub use params::SamplingParams;
pub use stop::{StopStrings, Stopped};

/// Errors of sampling.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SamplingError {
    /// A NaN or infinity among the logits: the model's numbers are broken, and any choice would
    /// hide it.
    #[error("the logit of token {token} is not a number: the model or the backend is broken")]
    NotANumber {
        /// The first such token.
        token: usize,
    },
    /// There are no logits, or all are negative infinity.
    #[error("no token may be chosen: all {0} logits are negative infinity")]
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
    params: SamplingParams,
    recent: VecDeque<u32>,
    random: ChaCha8Rng,
}

impl Sampler {
    /// A sampler for a vocabulary of `vocab` tokens.
    pub fn new(params: SamplingParams, vocab: usize) -> Result<Sampler, SamplingError> {
        check(&params, vocab)?;
        Ok(Sampler {
            random: ChaCha8Rng::seed_from_u64(params.seed),
            recent: VecDeque::new(),
            params,
        })
    }

    /// Whether [`Sampler::sample`] is the largest logit and nothing else, so that a backend can
    /// choose by itself.
    pub fn is_argmax(&self) -> bool {
        let params = &self.params;
        params.temperature <= 0.0 && params.logit_bias.is_empty() && !params.penalizes()
    }

    /// The next draw for a backend that draws by itself, which gives the same distribution; `None` where
    /// the parameters ask for more than it can.
    pub fn draw_elsewhere(&mut self) -> Option<Draw> {
        let params = &self.params;
        let plain = params.temperature > 0.0
            && params.typical_p >= 1.0
            && params.logit_bias.is_empty()
            && !params.penalizes();
        plain.then(|| Draw {
            temperature: params.temperature,
            // A vocabulary has fewer tokens than that.
            top_k: u32::try_from(params.top_k).unwrap_or(0),
            top_p: params.top_p,
            min_p: params.min_p,
            // 24 random bits: every f32 in [0, 1) of that spacing is equally likely.
            uniform: (self.random.next_u32() >> 8) as f32 / (1u32 << 24) as f32,
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
        let mut candidates = self.penalized(logits);
        let broken = |c: &Candidate| c.logit.is_nan() || c.logit == f32::INFINITY;
        if let Some(token) = candidates.iter().position(broken) {
            return Err(SamplingError::NotANumber { token });
        }
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

    /// All tokens with bias and penalties applied.
    fn penalized(&self, logits: &[f32]) -> Vec<Candidate> {
        let with_token = |(token, &logit)| Candidate {
            token: token as u32,
            logit,
        };
        let mut candidates: Vec<Candidate> = logits.iter().enumerate().map(with_token).collect();
        for &(token, bias) in &self.params.logit_bias {
            if let Some(candidate) = candidates.get_mut(token as usize) {
                candidate.logit += bias;
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
            candidate.logit = logit - frequency - self.params.presence_penalty;
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

fn check(params: &SamplingParams, vocab: usize) -> Result<(), SamplingError> {
    let finite = "a finite number";
    let share = "a number from 0 to 1";
    let unit = |value: f32| (0.0..=1.0).contains(&value);
    let checks = [
        (
            "temperature",
            params.temperature,
            finite,
            params.temperature.is_finite(),
        ),
        ("top_p", params.top_p, share, unit(params.top_p)),
        ("min_p", params.min_p, share, unit(params.min_p)),
        ("typical_p", params.typical_p, share, unit(params.typical_p)),
        (
            "repeat_penalty",
            params.repeat_penalty,
            "a number above 0",
            params.repeat_penalty.is_finite() && params.repeat_penalty > 0.0,
        ),
        (
            "presence_penalty",
            params.presence_penalty,
            finite,
            params.presence_penalty.is_finite(),
        ),
        (
            "frequency_penalty",
            params.frequency_penalty,
            finite,
            params.frequency_penalty.is_finite(),
        ),
    ];
    for (name, value, expected, valid) in checks {
        if !valid {
            let value = value.to_string();
            return Err(SamplingError::Parameter {
                name,
                value,
                expected,
            });
        }
    }
    match params
        .logit_bias
        .iter()
        .find(|(token, _)| *token as usize >= vocab)
    {
        Some((token, _)) => Err(SamplingError::Parameter {
            name: "logit_bias",
            value: format!("for token {token}"),
            expected: "tokens of the vocabulary",
        }),
        None => Ok(()),
    }
}

/// Index of the largest logit, the first of equals; NaN is never the largest.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, &logit) in logits.iter().enumerate() {
        if logit > logits[best] || logits[best].is_nan() {
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
            temperature: f32::MIN_POSITIVE,
            ..SamplingParams::default()
        };
        assert_eq!(sampler(params).sample(&[30.0, 20.0, 40.0, -10.0]), Ok(2));
    }

    #[test]
    fn only_plain_draws_are_left_to_a_backend() {
        let mut plain = sampler(SamplingParams::default());
        let draw = plain.draw_elsewhere().unwrap();
        assert_eq!((draw.temperature, draw.top_k), (0.8, 40));
        assert!((0.0..1.0).contains(&draw.uniform));
        assert_ne!(plain.draw_elsewhere(), Some(draw), "the next random number");
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

    #[test]
    fn nan_and_impossible_parameters_are_errors() {
        let mut greedy = sampler(SamplingParams::greedy());
        let broken = [0.0, 1.0, f32::NAN, 0.0];
        assert_eq!(
            greedy.sample(&broken),
            Err(SamplingError::NotANumber { token: 2 })
        );
        for mut sampler in [greedy, sampler(SamplingParams::default())] {
            let infinite = sampler.sample(&[0.0, f32::INFINITY]);
            assert_eq!(infinite, Err(SamplingError::NotANumber { token: 1 }));
            assert_eq!(sampler.sample(&[]), Err(SamplingError::NothingAllowed(0)));
            let none = sampler.sample(&[f32::NEG_INFINITY; 3]);
            assert_eq!(none, Err(SamplingError::NothingAllowed(3)));
        }
        let bad = [
            SamplingParams {
                top_p: 1.5,
                ..SamplingParams::default()
            },
            SamplingParams {
                temperature: f32::NAN,
                ..SamplingParams::default()
            },
            SamplingParams {
                repeat_penalty: 0.0,
                ..SamplingParams::default()
            },
            SamplingParams {
                logit_bias: vec![(4, 1.0)],
                ..SamplingParams::default()
            },
        ];
        for params in bad {
            assert!(Sampler::new(params, LOGITS.len()).is_err());
        }
    }
}
