//! Which token a choice takes, in float64 and without a look at how the engine does it.

use hyperion::backend::{Choice, Draw, Penalties};
use hyperion::sampling::uniform;

/// Logits as mask, bias and penalties leave them.
fn adjusted(logits: &[f32], choice: &Choice<'_>) -> Vec<f64> {
    let mut adjusted: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    for (token, logit) in adjusted.iter_mut().enumerate() {
        if let Some(mask) = choice.mask
            && mask[token / 32] & (1 << (token % 32)) == 0
        {
            *logit = f64::NEG_INFINITY;
        }
    }
    for &(token, bias) in choice.bias {
        adjusted[token as usize] += f64::from(bias);
    }
    let Penalties {
        repeat,
        presence,
        frequency,
    } = choice.penalties;
    for &(token, count) in choice.counts {
        let logit = &mut adjusted[token as usize];
        let factor = f64::from(repeat);
        *logit = if *logit > 0.0 {
            *logit / factor
        } else {
            *logit * factor
        };
        *logit -= f64::from(count) * f64::from(frequency) + f64::from(presence);
    }
    adjusted
}

/// The random numbers that draw `token`, none where it is filtered out. The tokens share them in the order of their
/// ids, whether the device chooses or, for what else is asked, the host.
fn numbers_of(token: u32, logits: &[f64], draw: Draw) -> std::ops::Range<f64> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order.retain(|&token| logits[token].is_finite());
    if draw.top_k > 0 {
        order.truncate(draw.top_k as usize);
    }
    let weights = |order: &[usize], temperature: f64| -> Vec<f64> {
        let best = order
            .iter()
            .map(|&token| logits[token])
            .fold(f64::NEG_INFINITY, f64::max);
        let weight = |&token: &usize| ((logits[token] - best) / temperature).exp();
        let weights: Vec<f64> = order.iter().map(weight).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    };
    if draw.typical_p < 1.0 {
        // Those whose surprise is nearest to the one that is expected, until they have that share.
        let shares = weights(&order, 1.0);
        let entropy: f64 = shares.iter().map(|share| -share * share.ln()).sum();
        let mut nearest: Vec<(f64, usize)> = shares.into_iter().zip(order).collect();
        nearest.sort_by(|a, b| {
            let off = |share: f64| (-share.ln() - entropy).abs();
            off(a.0).total_cmp(&off(b.0))
        });
        let mut sum = 0.0;
        nearest.retain(|&(share, _)| {
            let is_kept = sum < f64::from(draw.typical_p);
            sum += share;
            is_kept
        });
        order = nearest.into_iter().map(|(_, token)| token).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    }
    let mut sum = 0.0;
    let before_top_p = weights(&order, 1.0).into_iter().take_while(|weight| {
        let is_kept = sum < f64::from(draw.top_p);
        sum += weight;
        is_kept
    });
    order.truncate(before_top_p.count());
    let best = logits[order[0]];
    order.retain(|&token| (logits[token] - best).exp() >= f64::from(draw.min_p));
    order.sort_unstable();
    let Some(place) = order.iter().position(|&other| other == token as usize) else {
        return 2.0..2.0;
    };
    let weights = weights(&order, f64::from(draw.temperature));
    let before: f64 = weights[..place].iter().sum();
    before..before + weights[place]
}

/// How far a token may be from being the one that `choice` takes behind `position`: 0 where it is that one.
pub fn distance(token: u32, logits: &[f32], choice: &Choice<'_>, position: usize) -> f64 {
    let adjusted = adjusted(logits, choice);
    match choice.draw {
        None => {
            let best = adjusted.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            best - adjusted[token as usize]
        }
        Some(draw) => {
            let number = f64::from(uniform(draw.seed, position as u32));
            let numbers = numbers_of(token, &adjusted, draw);
            (numbers.start - number).max(number - numbers.end).max(0.0)
        }
    }
}

/// The token that `choice` takes.
pub fn chosen(logits: &[f32], choice: &Choice<'_>, position: usize) -> u32 {
    let tokens = 0..logits.len() as u32;
    let distances = tokens.map(|token| (distance(token, logits, choice, position), token));
    let nearest = distances.min_by(|a, b| a.0.total_cmp(&b.0));
    nearest.expect("a token").1
}

/// Log-probabilities.
pub fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let best = f64::from(best);
    let terms = logits.iter().map(|&logit| (f64::from(logit) - best).exp());
    let log_sum = best + terms.sum::<f64>().ln();
    let log = |&logit: &f32| f64::from(logit) - log_sum;
    logits.iter().map(log).collect()
}
