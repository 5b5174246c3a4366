//! The choice of a token from logits, as the backends on the CPU make it and as the kernels are held against.

use kernels_gpu::abi::sample_order;

use super::uniform;
use crate::backend::{
    Candidate, Choice, Draw, Logprobs, NotFinite, Output, Penalties, Report, RowError, RowResult,
    softmax, top_k,
};

/// The token that `choice` takes behind position `position` of a sequence with these logits.
///
/// # Errors
/// Logits that are not finite, or a choice that forbids all of them.
pub fn choose(logits: &[f32], choice: &Choice<'_>, position: usize) -> Result<u32, RowError> {
    // The model's own, before anything is forbidden.
    check_finite(logits, position, logits.len())?;
    let mut candidates = adjusted(logits, choice);
    // What is forbidden must not come back as the rounding error of a draw.
    candidates.retain(|candidate| candidate.logit > f32::NEG_INFINITY);
    if candidates.is_empty() {
        return Err(RowError::NothingAllowed { position });
    }
    Ok(match choice.draw {
        None => top_k(candidates, 1)[0].token,
        Some(draw) => drawn(candidates, draw, position),
    })
}

/// What a row gets whose first choice is behind position `position` of its sequence and that has these `drafts`:
/// `logits` are those behind the position and behind each draft, and `report` says whether log-probabilities are told.
///
/// # Errors
/// Of the first choice. What fails behind a draft that was right ends the tokens.
pub fn choose_behind(
    logits: &[f32],
    choice: &Choice<'_>,
    (position, drafts): (usize, &[u32]),
    report: Report,
) -> RowResult {
    let mut output = Output::default();
    let vocab = logits.len() / (1 + drafts.len());
    for (at, logits) in logits.chunks_exact(vocab).enumerate() {
        let token = match choose(logits, &choice.behind(at), position + at) {
            Ok(token) => token,
            Err(error) if at == 0 => return Err(error),
            Err(_) => break,
        };
        output.tokens.push(token);
        if let Report::TopLogprobs(most) = report {
            output.logprobs.push(logprobs(logits, token, most));
        }
        if drafts.get(at) != Some(&token) {
            break;
        }
    }
    Ok(output)
}

/// Looks for what is not finite in the rows `logits` of `vocab` each, the first of which is of position `first`.
///
/// # Errors
/// There is one.
pub fn check_finite(logits: &[f32], first: usize, vocab: usize) -> Result<(), NotFinite> {
    match logits.iter().position(|logit| !logit.is_finite()) {
        None => Ok(()),
        Some(index) => Err(NotFinite {
            sequence: 0,
            position: first + index / vocab,
        }),
    }
}

/// A random one of `candidates`.
fn drawn(candidates: Vec<Candidate>, draw: Draw, position: usize) -> u32 {
    let mut candidates = draw.keep(candidates);
    // Relative to the largest, so that a small temperature cannot make infinities.
    let max = candidates[0].logit;
    for candidate in &mut candidates {
        candidate.logit = (candidate.logit - max) / draw.temperature;
    }
    // As the kernel draws: a row gets the same token whether the device chooses it or, for what else was asked or for
    // want of room, the host.
    candidates.sort_unstable_by_key(|candidate| sample_order(candidate.token));
    let uniform = f64::from(uniform(draw.seed, position as u32));
    let mut sum = 0.0;
    let chosen = softmax(&candidates).iter().position(|probability| {
        sum += probability;
        uniform < sum
    });
    // Rounding can leave the sum just below one.
    candidates[chosen.unwrap_or(candidates.len() - 1)].token
}

/// All tokens with mask, bias and penalties applied. The ranges of the parameters keep real logits far from
/// overflow; larger ones saturate, so that minus infinity always means forbidden, and nothing becomes NaN.
pub(super) fn adjusted(logits: &[f32], choice: &Choice<'_>) -> Vec<Candidate> {
    let is_allowed = |token: usize| {
        choice
            .mask
            .is_none_or(|mask| mask[token / 32] >> (token % 32) & 1 == 1)
    };
    let with_token = |(token, &logit): (usize, &f32)| Candidate {
        token: token as u32,
        logit: match is_allowed(token) {
            true => logit,
            false => f32::NEG_INFINITY,
        },
    };
    let mut candidates: Vec<Candidate> = logits.iter().enumerate().map(with_token).collect();
    for &(token, bias) in choice.bias {
        let candidate = &mut candidates[token as usize];
        candidate.logit = match bias {
            f32::NEG_INFINITY => bias,
            bias => saturated(candidate.logit, candidate.logit + bias),
        };
    }
    let Penalties {
        repeat,
        presence,
        frequency,
    } = choice.penalties;
    for &(token, count) in choice.counts.iter().filter(|&&(_, count)| count > 0) {
        let candidate = &mut candidates[token as usize];
        let logit = match candidate.logit > 0.0 {
            true => candidate.logit / repeat,
            false => candidate.logit * repeat,
        };
        let penalized = logit - count as f32 * frequency - presence;
        candidate.logit = saturated(candidate.logit, penalized);
    }
    candidates
}

/// `changed`, no farther out than f32 reaches; what was forbidden stays so.
fn saturated(logit: f32, changed: f32) -> f32 {
    match logit {
        f32::NEG_INFINITY => logit,
        _ => changed.clamp(f32::MIN, f32::MAX),
    }
}

/// Log-probabilities of `token` and of the `most` likeliest tokens by finite logits, lower tokens first among equals.
pub fn logprobs(logits: &[f32], token: u32, most: usize) -> Logprobs {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let terms = logits
        .iter()
        .map(|&logit| libm::exp(f64::from(logit) - f64::from(max)));
    let log_sum = f64::from(max) + libm::log(terms.sum::<f64>());
    let logprob = |logit: f32| (f64::from(logit) - log_sum) as f32;
    let with_token = |(token, &logit): (usize, &f32)| Candidate {
        token: token as u32,
        logit,
    };
    let top = match most {
        0 => Vec::new(),
        most => top_k(logits.iter().enumerate().map(with_token).collect(), most),
    };
    Logprobs {
        chosen: logprob(logits[token as usize]),
        top: top.iter().map(|c| (c.token, logprob(c.logit))).collect(),
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
