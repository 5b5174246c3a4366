//! Sampling flags, shared by every command that generates.

use clap::Args;

use super::count::count_or_all;
use crate::backend::Draw;
use crate::sampling::{SamplingParams, random_seed};

/// Names and defaults are llama.cpp's.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Temperature; 0 always takes the most probable token
    #[arg(long, value_name = "T", default_value_t = 0.8, value_parser = checked(|to, t| to.draw.temperature = t))]
    pub temp: f32,
    /// Keep the K most probable tokens; 0 or -1 keeps all
    #[arg(long, value_name = "K", default_value_t = 40, value_parser = count_or_all())]
    pub top_k: i64,
    /// Keep the most probable tokens that together reach probability P
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = checked(|to, p| to.draw.top_p = p))]
    pub top_p: f32,
    /// Keep tokens at least P times as probable as the best
    #[arg(long, value_name = "P", default_value_t = 0.05, value_parser = checked(|to, p| to.draw.min_p = p))]
    pub min_p: f32,
    /// Keep tokens whose surprise is close to the expected one, up to probability P
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = checked(|to, p| to.draw.typical_p = p))]
    pub typical: f32,
    /// Divide the logits of recent tokens by this
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = checked(|to, x| to.repeat_penalty = x))]
    pub repeat_penalty: f32,
    /// Tokens that the penalties look back at; 0 turns them off, -1 is the whole context
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count_or_all())]
    pub repeat_last_n: i64,
    /// Subtract this from the logit of every recent token
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = checked(|to, x| to.presence_penalty = x))]
    pub presence_penalty: f32,
    /// Subtract this from the logit of a recent token once for each time it occurs
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = checked(|to, x| to.frequency_penalty = x))]
    pub frequency_penalty: f32,
    /// Add BIAS to the logit of token ID; may be given several times
    #[arg(long, value_name = "ID=BIAS", value_parser = parse_bias)]
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed; the same seed gives the same text, and -1 is a random one
    #[arg(long, short, value_parser = parse_seed)]
    pub seed: Option<u64>,
}

impl SamplingArgs {
    /// The parameters; without `--seed` each run draws another one.
    pub fn params(&self) -> SamplingParams {
        // In full, so that no flag can be without effect.
        let SamplingArgs {
            temp: temperature,
            top_k,
            top_p,
            min_p,
            typical: typical_p,
            repeat_penalty,
            repeat_last_n,
            presence_penalty,
            frequency_penalty,
            ref logit_bias,
            seed,
        } = *self;
        SamplingParams {
            draw: Draw {
                temperature,
                top_k: u32::try_from(top_k).unwrap_or(0),
                top_p,
                min_p,
                typical_p,
                seed: seed.unwrap_or_else(random_seed),
            },
            repeat_penalty,
            repeat_last_n: usize::try_from(repeat_last_n).unwrap_or(usize::MAX),
            presence_penalty,
            frequency_penalty,
            logit_bias: logit_bias.clone(),
        }
    }
}

/// Reads a number that `set` makes one of the parameters, within its range.
pub fn checked<S>(set: S) -> impl Fn(&str) -> Result<f32, String> + Clone + Send + Sync
where
    S: Fn(&mut SamplingParams, f32) + Clone + Send + Sync,
{
    move |text| {
        let value = text.parse().map_err(|_| "expected a number")?;
        let mut params = SamplingParams::default();
        set(&mut params, value);
        within_range(&params).map(|()| value)
    }
}

fn within_range(params: &SamplingParams) -> Result<(), String> {
    let wrong = params.out_of_range();
    wrong.map_or(Ok(()), |(_, _, expected)| {
        Err(format!("expected {expected}"))
    })
}

fn parse_seed(text: &str) -> Result<u64, String> {
    match text {
        "-1" => Ok(random_seed()),
        text => text
            .parse()
            .map_err(|_| "expected a whole number from 0, or -1".to_owned()),
    }
}

fn parse_bias(text: &str) -> Result<(u32, f32), String> {
    let (id, bias) = text
        .split_once('=')
        .ok_or("expected ID=BIAS, such as 42=-1.5")?;
    let id = id
        .parse()
        .map_err(|_| format!("{id:?} is not a token id"))?;
    let bias = bias
        .parse()
        .map_err(|_| format!("{bias:?} is not a number"))?;
    within_range(&SamplingParams {
        logit_bias: vec![(id, bias)],
        ..SamplingParams::default()
    })?;
    Ok((id, bias))
}
