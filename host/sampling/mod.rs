//! Choosing the next token: penalties, filters, temperature and a seeded draw, in llama.cpp's
//! default order; and the texts that end a generation.

mod choose;
mod params;
mod stop;

use std::collections::VecDeque;

use crate::backend::{Choice, Penalties};
pub use choose::{argmax, check_finite, choose, choose_behind, logprobs};
pub use kernels_gpu::prim::random::uniform;
pub use params::{CheckedParams, SamplingParams};
pub use stop::{StopStrings, Stopped};

/// A seed that nobody chose, small enough that every client's numbers hold it (53 bits).
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The random keys of the hash map are the standard library's one source of randomness.
    RandomState::new().hash_one(0) >> 11
}

/// Errors of sampling parameters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SamplingError {
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

/// How the tokens of one sequence are chosen: its parameters, and what the penalties remember of its tokens.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: CheckedParams,
    recent: VecDeque<u32>,
    /// How often each of `recent` occurs there, in the order of the tokens.
    counts: Vec<(u32, u32)>,
}

impl Sampler {
    /// A sampler for a vocabulary of `vocab` tokens.
    ///
    /// # Errors
    /// A parameter outside its range; see [`CheckedParams::new`].
    pub fn new(params: SamplingParams, vocab: usize) -> Result<Sampler, SamplingError> {
        Ok(Sampler {
            params: CheckedParams::new(params, vocab)?,
            recent: VecDeque::new(),
            counts: Vec::new(),
        })
    }

    /// How the next token is chosen.
    pub fn choice(&self) -> Choice<'_> {
        // In full, so that a parameter cannot be forgotten: who adds one has to decide here what becomes of it.
        let SamplingParams {
            draw,
            repeat_last_n: _, // in `accept`
            repeat_penalty,
            presence_penalty,
            frequency_penalty,
            ref logit_bias,
        } = *self.params;
        Choice {
            draw: (draw.temperature > 0.0).then_some(draw),
            mask: None,
            bias: logit_bias,
            counts: &self.counts,
            penalties: Penalties {
                repeat: repeat_penalty,
                presence: presence_penalty,
                frequency: frequency_penalty,
            },
            drafts: &[],
        }
    }

    /// Whether the choice of a token depends on the token before it other than through the model.
    pub fn remembers(&self) -> bool {
        self.params.penalizes()
    }

    /// Takes note of a token of the sequence, prompt included, for the penalties.
    pub fn accept(&mut self, token: u32) {
        if !self.params.penalizes() {
            return;
        }
        self.recent.push_back(token);
        match self.place(token) {
            Ok(at) => self.counts[at].1 += 1,
            Err(at) => self.counts.insert(at, (token, 1)),
        }
        if self.recent.len() > self.params.repeat_last_n
            && let Some(oldest) = self.recent.pop_front()
            && let Ok(at) = self.place(oldest)
        {
            self.counts[at].1 -= 1;
            if self.counts[at].1 == 0 {
                self.counts.remove(at);
            }
        }
    }

    fn place(&self, token: u32) -> Result<usize, usize> {
        self.counts
            .binary_search_by_key(&token, |&(token, _)| token)
    }
}

#[cfg(test)]
mod tests {
    use super::choose::adjusted;
    use super::*;
    use crate::backend::{Draw, NotFinite, RowError};

    const LOGITS: [f32; 4] = [1.0, 3.0, 2.0, 0.0];

    fn sampler(params: SamplingParams) -> Sampler {
        Sampler::new(params, LOGITS.len()).unwrap()
    }

    fn sample(sampler: &Sampler, logits: &[f32], position: usize) -> Result<u32, RowError> {
        choose(logits, &sampler.choice(), position)
    }

    #[test]
    fn temperature_zero_is_greedy() {
        let greedy = sampler(SamplingParams::greedy());
        assert_eq!(
            greedy.choice(),
            Choice {
                bias: &[],
                ..Choice::GREEDY
            }
        );
        assert_eq!(sample(&greedy, &LOGITS, 0), Ok(1));
        assert_eq!(
            sample(&greedy, &[2.0, 5.0, 5.0, 1.0], 0),
            Ok(1),
            "the first of equals"
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_tokens() {
        let draw = |seed| {
            let sampler = sampler(SamplingParams::drawn(Draw {
                seed,
                ..Draw::default()
            }));
            (0..50)
                .map(|position| sample(&sampler, &LOGITS, position).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn a_tiny_temperature_takes_the_likeliest() {
        let params = SamplingParams::drawn(Draw {
            temperature: 1e-37,
            ..Draw::default()
        });
        assert_eq!(
            sample(&sampler(params), &[30.0, 20.0, 40.0, -10.0], 0),
            Ok(2)
        );
    }

    #[test]
    fn a_mask_forbids() {
        let masked = |mask: u32| {
            let choice = Choice {
                mask: Some(&[mask]),
                ..Choice::GREEDY
            };
            choose(&LOGITS, &choice, 7)
        };
        assert_eq!([0b1111, 0b1101, 0b1001].map(masked), [Ok(1), Ok(2), Ok(0)]);
        assert_eq!(masked(0), Err(RowError::NothingAllowed { position: 7 }));
    }

    #[test]
    fn log_probabilities_add_up_to_one() {
        let found = logprobs(&LOGITS, 3, 9);
        let tokens: Vec<u32> = found.top.iter().map(|&(token, _)| token).collect();
        assert_eq!(tokens, [1, 2, 0, 3]);
        let sum: f32 = found.top.iter().map(|&(_, logprob)| logprob.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert_eq!(found.chosen, found.top[3].1);
        assert!(logprobs(&LOGITS, 3, 0).top.is_empty());
    }

    /// As the kernel has it, so that a row that the host chooses gets the token that the device would choose.
    #[test]
    fn a_number_draws_in_the_order_of_the_tokens() {
        let end = |is_there: fn(f32) -> bool| {
            let params = |seed| {
                SamplingParams::drawn(Draw {
                    temperature: 2.0,
                    top_k: 3,
                    seed,
                    ..Draw::UNFILTERED
                })
            };
            let seed = (0..).find(|&seed| is_there(uniform(seed, 0))).unwrap();
            sample(&sampler(params(seed)), &LOGITS, 0).unwrap()
        };
        // Token 1 is the likeliest; the top 3 are 0 to 2.
        assert_eq!(end(|uniform| uniform < 0.01), 0);
        assert_eq!(end(|uniform| uniform > 0.99), 2);
    }

    /// Chi-squared with 3 degrees of freedom is above 16.3 once in a thousand times; the seed is
    /// fixed, so this never happens by chance.
    #[test]
    fn draws_follow_the_softmax() {
        let params = SamplingParams::drawn(Draw {
            temperature: 2.0,
            seed: 1,
            ..Draw::UNFILTERED
        });
        let sampler = sampler(params);
        let mut counts = [0f64; 4];
        let n = 20_000;
        for position in 0..n as usize {
            counts[sample(&sampler, &LOGITS, position).unwrap() as usize] += 1.0;
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
        let logits = adjusted(&LOGITS, &sampler.choice());
        let logits: Vec<f32> = logits.iter().map(|c| c.logit).collect();
        assert_eq!(logits, [1.0, 3.0, 2.0 / 2.0 - 2.0 * 0.5 - 0.25, 0.0]);
        assert_eq!(sampler.choice().counts, [(2, 2)]);
    }

    #[test]
    fn bias_can_force_and_forbid() {
        let bias = |logit_bias| {
            let params = SamplingParams {
                logit_bias,
                ..SamplingParams::greedy()
            };
            sample(&sampler(params), &LOGITS, 0).unwrap()
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
                let found = adjusted(&logits, &sampler.choice());
                for (index, candidate) in found.iter().enumerate() {
                    assert_eq!(candidate.logit.is_finite(), index != 2, "{candidate:?}");
                }
                assert_eq!(found[2].logit, f32::NEG_INFINITY);
                assert!(sample(&sampler, &logits, 0).is_ok());
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
            let sampler = sampler(params);
            for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let found = sample(&sampler, &[0.0, 1.0, broken, 0.0], 5);
                let expected = NotFinite {
                    sequence: 0,
                    position: 5,
                };
                assert_eq!(found, Err(expected.into()));
            }
        }
        let all = (0..4).map(|token| (token, f32::NEG_INFINITY)).collect();
        let nothing = sampler(SamplingParams {
            logit_bias: all,
            ..SamplingParams::default()
        });
        assert_eq!(
            sample(&nothing, &LOGITS, 1),
            Err(RowError::NothingAllowed { position: 1 })
        );
    }
}
