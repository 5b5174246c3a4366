//! What can be chosen about sampling. Names and defaults are llama.cpp's; ranges are checked here and nowhere
//! else.

use std::ops::Deref;

use super::SamplingError;
use crate::backend::{Draw, OutOfRange};

/// Parameters of a [`Sampler`](super::Sampler). Each filter has a value that turns it off.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// How a token is drawn.
    pub draw: Draw,
    /// Recent tokens that the penalties look at; 0 turns them off, `usize::MAX` is all.
    pub repeat_last_n: usize,
    /// Divides positive logits of recent tokens and multiplies negative ones; 1 is off.
    pub repeat_penalty: f32,
    /// Subtracted from the logit of every recent token.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a recent token once for each occurrence.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens, before everything else; minus infinity forbids one.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for SamplingParams {
    fn default() -> SamplingParams {
        SamplingParams {
            draw: Draw::default(),
            repeat_last_n: 64,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
        }
    }
}

impl SamplingParams {
    /// Always the most probable token.
    pub fn greedy() -> SamplingParams {
        SamplingParams::drawn(Draw {
            temperature: 0.0,
            ..Draw::default()
        })
    }

    /// As `draw` says, and the defaults for all else.
    pub fn drawn(draw: Draw) -> SamplingParams {
        SamplingParams {
            draw,
            ..SamplingParams::default()
        }
    }
}

/// Parameters whose values are all in their ranges, for one vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedParams(SamplingParams);

impl Deref for CheckedParams {
    type Target = SamplingParams;

    fn deref(&self) -> &SamplingParams {
        &self.0
    }
}

/// Farther than any logit of a real model, and near enough that sums and products stay finite.
const LARGEST: f32 = 1e6;

impl SamplingParams {
    /// The first parameter that is out of its range, whatever the vocabulary is.
    pub fn out_of_range(&self) -> Option<OutOfRange> {
        // In full: who adds a parameter has to decide what is checked about it.
        let SamplingParams {
            draw,
            repeat_last_n: _,
            repeat_penalty,
            presence_penalty,
            frequency_penalty,
            ref logit_bias,
        } = *self;
        const PENALTY: &str = "a number from -1e6 to 1e6";
        const BIAS: &str = "a number from -1e6 to 1e6, or -inf to forbid the token";
        let is_moderate = |value: f32| (-LARGEST..=LARGEST).contains(&value);
        if let Some(of_draw) = draw.out_of_range() {
            return Some(of_draw);
        }
        if !(1.0 / LARGEST..=LARGEST).contains(&repeat_penalty) {
            let value = format!("{repeat_penalty:?}");
            return Some(("repeat_penalty", value, "a number from 1e-6 to 1e6"));
        }
        for (name, value) in [
            ("presence_penalty", presence_penalty),
            ("frequency_penalty", frequency_penalty),
        ] {
            if !is_moderate(value) {
                return Some((name, format!("{value:?}"), PENALTY));
            }
        }
        let is_wrong = |&&(_, bias): &&(u32, f32)| !is_moderate(bias) && bias != f32::NEG_INFINITY;
        let (token, bias) = logit_bias.iter().find(is_wrong)?;
        Some(("logit_bias", format!("{bias:?} for token {token}"), BIAS))
    }
}

impl CheckedParams {
    /// Checks `params` for a vocabulary of `vocab` tokens.
    ///
    /// # Errors
    /// [`SamplingError::Parameter`] with the first value that is outside its range, and the range.
    pub fn new(params: SamplingParams, vocab: usize) -> Result<CheckedParams, SamplingError> {
        let out_of_range = |(name, value, expected)| SamplingError::Parameter {
            name,
            value,
            expected,
        };
        if let Some(wrong) = params.out_of_range() {
            return Err(out_of_range(wrong));
        }
        let mut tokens = params.logit_bias.iter().map(|(token, _)| *token);
        if let Some(token) = tokens.find(|&token| token as usize >= vocab) {
            let value = format!("for token {token}");
            let expected = "tokens of the vocabulary";
            return Err(out_of_range(("logit_bias", value, expected)));
        }
        Ok(CheckedParams(params))
    }

    /// Whether the penalties do anything.
    pub(super) fn penalizes(&self) -> bool {
        self.repeat_last_n > 0
            && (self.repeat_penalty != 1.0
                || self.presence_penalty != 0.0
                || self.frequency_penalty != 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value for a parameter, and what the message must say of it.
    type Case = (fn(&mut SamplingParams, f32), f32, [&'static str; 3]);

    const TEMPERATURE_IS: fn(&mut SamplingParams, f32) =
        |params, value| params.draw.temperature = value;
    const PENALTY_IS: fn(&mut SamplingParams, f32) = |params, value| params.repeat_penalty = value;
    const BIAS_IS: fn(&mut SamplingParams, f32) =
        |params, value| params.logit_bias = vec![(3, value)];

    fn check(set: fn(&mut SamplingParams, f32), value: f32) -> Result<(), String> {
        let mut params = SamplingParams::default();
        set(&mut params, value);
        let checked = CheckedParams::new(params, 4);
        checked.map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_out_of_range_is_named_with_the_range() {
        let cases: [Case; 16] = [
            (
                TEMPERATURE_IS,
                1e-39,
                ["temperature is 1e-39", "0 ", "1e-37 to 1e37"],
            ),
            (
                TEMPERATURE_IS,
                -1.0,
                ["temperature is -1.0", "0 (", "1e-37 to 1e37"],
            ),
            (
                TEMPERATURE_IS,
                1e38,
                ["temperature is 1e38", "", "1e-37 to 1e37"],
            ),
            (
                TEMPERATURE_IS,
                f32::NEG_INFINITY,
                ["temperature is -inf", "", ""],
            ),
            (
                |p, v| p.draw.top_p = v,
                1.5,
                ["top_p is 1.5", "from 0 to 1", ""],
            ),
            (
                |p, v| p.draw.min_p = v,
                -0.1,
                ["min_p is -0.1", "from 0 to 1", ""],
            ),
            (
                |p, v| p.draw.typical_p = v,
                2.0,
                ["typical_p is 2", "from 0 to 1", ""],
            ),
            (PENALTY_IS, 0.0, ["repeat_penalty is 0", "1e-6 to 1e6", ""]),
            (
                PENALTY_IS,
                1e-45,
                ["repeat_penalty is 1e-45", "1e-6 to 1e6", ""],
            ),
            (
                PENALTY_IS,
                f32::INFINITY,
                ["repeat_penalty is inf", "1e-6 to 1e6", ""],
            ),
            (
                |p, v| p.presence_penalty = v,
                1e38,
                ["presence_penalty is 1e38", "1e6", ""],
            ),
            (
                |p, v| p.frequency_penalty = v,
                -1e38,
                ["frequency_penalty is -1e38", "-1e6", ""],
            ),
            (
                BIAS_IS,
                f32::INFINITY,
                ["logit_bias is inf for token 3", "1e6", "-inf to forbid"],
            ),
            (BIAS_IS, 3e38, ["logit_bias is 3e38 for token 3", "1e6", ""]),
            (BIAS_IS, f32::NAN, ["logit_bias is NaN for token 3", "", ""]),
            (
                |p, _| p.logit_bias = vec![(4, 1.0)],
                0.0,
                ["for token 4", "vocabulary", ""],
            ),
        ];
        for (set, value, parts) in cases {
            let error = check(set, value).expect_err(parts[0]);
            for part in parts {
                assert!(error.contains(part), "{part:?} is not in {error:?}");
            }
        }
    }

    #[test]
    fn not_a_number_is_none_of_any_parameter() {
        let all: [fn(&mut SamplingParams, f32); 8] = [
            TEMPERATURE_IS,
            |p, v| p.draw.top_p = v,
            |p, v| p.draw.min_p = v,
            |p, v| p.draw.typical_p = v,
            PENALTY_IS,
            |p, v| p.presence_penalty = v,
            |p, v| p.frequency_penalty = v,
            BIAS_IS,
        ];
        for set in all {
            let error = check(set, f32::NAN).expect_err("NaN");
            assert!(error.contains("NaN"), "{error}");
        }
    }

    #[test]
    fn the_ends_of_the_ranges_are_inside() {
        for value in [0.0, -0.0, 1e-37, 1e37] {
            check(TEMPERATURE_IS, value).expect("a temperature");
            assert!((1.0 / value.max(1e-37)).is_finite());
        }
        for value in [1e-6, 1.0, 1e6] {
            check(PENALTY_IS, value).expect("a penalty");
        }
        for value in [f32::NEG_INFINITY, -1e6, 0.0, 1e6] {
            check(BIAS_IS, value).expect("a bias");
        }
    }
}
