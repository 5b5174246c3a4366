//! What requests for conversations and for texts have in common: how tokens are chosen, and when an answer ends.

use serde_json::{Map, Value};

use super::ApiError;
use super::fields::{Field, Fields, wrong};
use crate::backend::{Draw, MAX_LOGPROBS};
use crate::engine::{Limits, Request};
use crate::sampling::SamplingParams;

/// Each costs a search in the text of every token.
pub const MAX_STOP_STRINGS: usize = 64;

/// Answers to one prompt that a request may ask for, as many as OpenAI's API makes.
pub const MAX_CHOICES: usize = 128;

/// How an answer is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The model that the client asks for.
    pub model: Option<String>,
    /// How tokens are chosen; without a seed.
    pub sampling: SamplingParams,
    /// Of the random numbers, where the request says which.
    pub seed: Option<u64>,
    /// When to end.
    pub limits: Limits,
    /// Whether the limit of tokens is the endpoint's own, because the request names none.
    pub has_default_limit: bool,
    /// How many of the likeliest tokens are told at each position; `None` for no log-probabilities at all.
    pub logprobs: Option<usize>,
    /// Answers to each prompt.
    pub n: usize,
    /// Whether the answer is wanted in pieces.
    pub stream: bool,
    /// Whether the last piece tells how many tokens it took.
    pub include_usage: bool,
}

/// What OpenAI's API does where a request does not say: it draws from all tokens as they are. The penalties, where
/// there are any, look at the whole text so far.
fn defaults() -> SamplingParams {
    SamplingParams {
        draw: Draw::UNFILTERED,
        repeat_last_n: usize::MAX,
        repeat_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        logit_bias: Vec::new(),
    }
}

impl Settings {
    /// Takes them out of `fields`; the limit of tokens and log-probabilities differ between endpoints and are the
    /// caller's.
    pub(super) fn take(fields: &mut Fields) -> Result<Settings, ApiError> {
        let stream = fields.take("stream")?.unwrap_or(false);
        Ok(Settings {
            model: fields.take("model")?,
            sampling: take_sampling(fields)?,
            seed: take_seed(fields)?,
            limits: Limits {
                max_tokens: None,
                stop: take_stop(fields)?,
                ignore_end: fields.take("ignore_eos")?.unwrap_or(false),
            },
            has_default_limit: true,
            logprobs: None,
            n: take_n(fields)?,
            stream,
            include_usage: take_stream_options(fields, stream)?,
        })
    }

    /// The engine's request for one answer to `prompt`, of which it is number `choice`: the seeds of answers follow one
    /// another, and `seed` is the first one where none is named.
    pub(super) fn request(&self, prompt: Vec<u32>, choice: usize, seed: u64) -> Request {
        let first = self.seed.unwrap_or(seed);
        Request {
            prompt,
            sampling: SamplingParams {
                draw: Draw {
                    seed: first.wrapping_add(choice as u64),
                    ..self.sampling.draw
                },
                ..self.sampling.clone()
            },
            limits: self.limits.clone(),
            logprobs: self.logprobs,
            ..Request::default()
        }
    }
}

fn take_n(fields: &mut Fields) -> Result<usize, ApiError> {
    let expected = format!("a whole number from 1 to {MAX_CHOICES}");
    let n = fields.take_within("n", 1..=MAX_CHOICES as i128, &expected)?;
    Ok(n.map_or(1, |n| n as usize))
}

fn take_sampling(fields: &mut Fields) -> Result<SamplingParams, ApiError> {
    let default = defaults();
    let mut draw = default.draw;
    draw.temperature = fields.take("temperature")?.unwrap_or(draw.temperature);
    for (names, share) in draw.shares() {
        *share = fields.take_any(names)?.unwrap_or(*share);
    }
    let repeat_penalty = fields.take_any(&["repeat_penalty", "repetition_penalty"])?;
    let all_or = |n: i128| usize::try_from(n).unwrap_or(usize::MAX);
    let top_k = fields.take_within(
        "top_k",
        -1..=i128::from(u32::MAX),
        "a number of tokens; 0 or -1 keeps all",
    )?;
    let last_n = fields.take_within(
        "repeat_last_n",
        -1..=i128::from(u32::MAX),
        "a number of tokens; -1 is the whole text",
    )?;
    draw.top_k = top_k.map_or(draw.top_k, |k| u32::try_from(k).unwrap_or(0));
    let params = SamplingParams {
        draw,
        repeat_last_n: last_n.map_or(default.repeat_last_n, all_or),
        repeat_penalty: repeat_penalty.unwrap_or(default.repeat_penalty),
        presence_penalty: fields
            .take("presence_penalty")?
            .unwrap_or(default.presence_penalty),
        frequency_penalty: fields
            .take("frequency_penalty")?
            .unwrap_or(default.frequency_penalty),
        logit_bias: take_bias(fields)?,
    };
    match params.out_of_range() {
        Some((name, value, expected)) => Err(wrong(name, &value, expected)),
        None => Ok(params),
    }
}

/// Negative seeds are other ones than positive; -1 is none, as in llama.cpp.
fn take_seed(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    let range = i128::from(i64::MIN)..=i128::from(u64::MAX);
    let seed = fields.take_within("seed", range, "a whole number of 64 bits")?;
    Ok(seed.filter(|&seed| seed != -1).map(|seed| seed as u64))
}

/// `{"token id": bias}`, where `false` forbids a token (llama.cpp).
fn take_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(map) = fields.take::<Map<String, Value>>("logit_bias")? else {
        return Ok(Vec::new());
    };
    let biases = map.into_iter().map(|(token, bias)| {
        let id: Result<u32, _> = token.parse();
        let id = id.map_err(|_| wrong("a key of logit_bias", &token, "a token's id"));
        let id = id.map_err(|error| ApiError {
            param: Some("logit_bias".to_owned()),
            ..error
        })?;
        let bias = match bias {
            Value::Bool(false) => Ok(f32::NEG_INFINITY),
            bias => f32::of(bias),
        };
        let place = format!("logit_bias.{id}");
        let bias = bias.map_err(|bias| wrong(&place, &bias, "a number, or false"))?;
        Ok((id, bias))
    });
    let mut biases: Vec<(u32, f32)> = biases.collect::<Result<_, ApiError>>()?;
    biases.sort_by_key(|(id, _)| *id);
    // "7" and "07" are one token.
    if let Some(twice) = biases.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let message = format!("logit_bias names token {} twice", twice[0].0);
        return Err(ApiError::field("logit_bias", message));
    }
    Ok(biases)
}

fn take_stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    const EXPECTED: &str = "a string, or a list of at most 64";
    let stops = match fields.take::<Value>("stop")? {
        None => return Ok(Vec::new()),
        Some(Value::String(stop)) => vec![stop],
        Some(Value::Array(items)) => {
            let stops = items.into_iter().enumerate().map(|(index, item)| {
                let place = format!("stop[{index}]");
                String::of(item).map_err(|item| wrong(&place, &item, "a string"))
            });
            stops.collect::<Result<_, ApiError>>()?
        }
        Some(other) => return Err(fields.wrong("stop", &other, EXPECTED)),
    };
    if stops.len() > MAX_STOP_STRINGS {
        let message = format!("stop has {} items; expected {EXPECTED}", stops.len());
        return Err(ApiError::field("stop", message));
    }
    Ok(stops.into_iter().filter(|stop| !stop.is_empty()).collect())
}

/// Whether the tokens are counted at the end of a stream.
fn take_stream_options(fields: &mut Fields, stream: bool) -> Result<bool, ApiError> {
    let Some(options) = fields.take::<Value>("stream_options")? else {
        return Ok(false);
    };
    let mut options = Fields::new(options, "stream_options", "stream_options.".to_owned())?;
    let include_usage = options.take("include_usage")?.unwrap_or(false);
    options.finish()?;
    if include_usage && !stream {
        let message = "stream_options.include_usage is for requests with stream: true";
        return Err(ApiError::field("stream_options", message));
    }
    Ok(include_usage)
}

/// Takes the limit of tokens, which has several names; -1 is none.
pub(super) fn take_max_tokens(
    fields: &mut Fields,
    names: &[&str],
) -> Result<Option<i128>, ApiError> {
    let mut limit: Option<(&str, i128)> = None;
    for &name in names {
        let expected = "0 or more, or -1 for no limit";
        let Some(given) = fields.take_within(name, -1..=i128::from(u32::MAX), expected)? else {
            continue;
        };
        match limit {
            Some((before, other)) if other != given => {
                let message = format!("{before} and {name} are the same and have different values");
                return Err(ApiError::field(name, message));
            }
            _ => limit = Some((name, given)),
        }
    }
    Ok(limit.map(|(_, limit)| limit))
}

/// Takes the number of likeliest tokens `name`.
pub(super) fn take_top_logprobs(
    fields: &mut Fields,
    name: &str,
) -> Result<Option<usize>, ApiError> {
    let most = MAX_LOGPROBS as i128;
    let expected = format!("a whole number from 0 to {most}");
    let n = fields.take_within(name, 0..=most, &expected)?;
    Ok(n.map(|n| n as usize))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::openai::CompletionRequest;
    use crate::sampling::CheckedParams;

    /// The settings of a text with the field `name`.
    fn read(name: &str, value: Value) -> Result<Settings, ApiError> {
        let request = CompletionRequest::from_body(json!({"prompt": "a", name: value}))?;
        let settings = request.settings;
        CheckedParams::new(settings.sampling.clone(), 10)?;
        Ok(settings)
    }

    #[test]
    fn without_a_word_all_tokens_are_drawn_from() {
        let settings = read("model", json!("any")).expect("settings");
        assert_eq!(settings.sampling, defaults());
        assert_eq!((settings.seed, settings.limits.stop.len()), (None, 0));
        let seed = |settings: &Settings, choice| {
            let request = settings.request(vec![1], choice, 7);
            request.sampling.draw.seed
        };
        assert_eq!((seed(&settings, 0), seed(&settings, 2)), (7, 9));
        let seeded = read("seed", json!(3)).expect("settings");
        assert_eq!((seed(&seeded, 0), seed(&seeded, 1)), (3, 4));
    }

    #[test]
    fn every_sampler_is_obeyed() {
        type Get = fn(&SamplingParams) -> f32;
        let cases: [(&str, f32, Get); 11] = [
            ("temperature", 0.5, |of| of.draw.temperature),
            ("top_k", 5.0, |of| of.draw.top_k as f32),
            ("top_p", 0.5, |of| of.draw.top_p),
            ("min_p", 0.25, |of| of.draw.min_p),
            ("typical_p", 0.5, |of| of.draw.typical_p),
            ("typ_p", 0.5, |of| of.draw.typical_p),
            ("repeat_penalty", 1.5, |of| of.repeat_penalty),
            ("repetition_penalty", 1.5, |of| of.repeat_penalty),
            ("repeat_last_n", 9.0, |of| of.repeat_last_n as f32),
            ("presence_penalty", -2.0, |of| of.presence_penalty),
            ("frequency_penalty", 2.0, |of| of.frequency_penalty),
        ];
        for (name, value, get) in cases {
            let settings = read(name, json!(value)).expect(name);
            assert_eq!(get(&settings.sampling), value, "{name}");
            // Null is as if it were not there.
            assert_eq!(read(name, json!(null)).expect(name).sampling, defaults());
        }
        for all in [0, -1] {
            assert_eq!(
                read("top_k", json!(all)).expect("all").sampling.draw.top_k,
                0
            );
        }
    }

    #[test]
    fn what_is_out_of_range_is_named_with_the_range() {
        for (name, value, expected) in [
            ("temperature", json!(-1), "expected 0 ("),
            ("temperature", json!(1e300), "1e37"),
            ("temperature", json!("hot"), "a number"),
            ("top_p", json!(1.5), "from 0 to 1"),
            ("top_k", json!(-2), "0 or -1 keeps all"),
            ("top_k", json!(1.5), "a whole number"),
            ("min_p", json!(-0.1), "from 0 to 1"),
            ("repeat_penalty", json!(0), "1e-6"),
            ("presence_penalty", json!(1e39), "1e6"),
            ("n", json!(0), "from 1 to 128"),
            ("n", json!(129), "from 1 to 128"),
            ("n", json!("two"), "a whole number"),
            ("best_of", json!(2), "not supported"),
            ("seed", json!(1e19), "a whole number"),
            ("logit_bias", json!({"10": 1}), "vocabulary"),
            ("logit_bias", json!({"x": 1}), "a token's id"),
            ("logit_bias", json!({"1": true}), "a number"),
            ("logit_bias", json!({"1": 1, "01": 2}), "twice"),
            ("stop", json!([1]), "a string"),
            ("stop", json!(vec!["a"; 65]), "at most 64"),
            (
                "stream_options",
                json!({"include_usage": true}),
                "stream: true",
            ),
            ("ignore_eos", json!(1), "true or false"),
            (
                "response_format",
                json!({"type": "json_object"}),
                "not supported",
            ),
        ] {
            let error = read(name, value.clone()).expect_err(name);
            assert!(error.message.contains(expected), "{name} {value}: {error}");
            assert!(error.message.contains(name), "{name} {value}: {error}");
            assert_eq!(error.status, 400);
        }
    }

    #[test]
    fn options_of_streams_that_ask_for_nothing_need_no_stream() {
        for options in [json!({}), json!({"include_usage": false})] {
            let settings = read("stream_options", options).expect("settings");
            assert!(!settings.stream && !settings.include_usage);
        }
    }

    #[test]
    fn biases_are_numbers_or_forbid() {
        let settings = read("logit_bias", json!({"7": -1.5, "3": false})).expect("biases");
        assert_eq!(
            settings.sampling.logit_bias,
            [(3, f32::NEG_INFINITY), (7, -1.5)]
        );
    }

    #[test]
    fn seeds_have_64_bits() {
        for (given, seed) in [
            (json!(5), Some(5)),
            (json!(u64::MAX), Some(u64::MAX)),
            (json!(-2), Some(-2_i64 as u64)),
            (json!(-1), None),
        ] {
            assert_eq!(read("seed", given).expect("a seed").seed, seed);
        }
    }

    #[test]
    fn stops_are_one_or_several() {
        let stops = |value| read("stop", value).map(|settings| settings.limits.stop);
        assert_eq!(stops(json!("a")), Ok(vec!["a".to_owned()]));
        assert_eq!(
            stops(json!(["a", "", "b"])),
            Ok(vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(stops(json!("")), Ok(Vec::new()));
    }
}
