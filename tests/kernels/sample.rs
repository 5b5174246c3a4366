//! Tests of `ops/sample.rs`: drawn with evenly spaced numbers, each token comes as often as its
//! probability says.

use kernels_gpu::abi::{NOT_FINITE, SAMPLE_THREADS, SampleParams, SampleSettings};
use kernels_gpu::ops::sample::SAMPLE;

use crate::harness::{Case, Random, Shape};

#[derive(Clone, Copy, Debug)]
struct Choice {
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
}

const ALL: Choice = Choice {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
};

/// Tokens that may be drawn, with their probabilities: the filters one after the other on a sorted
/// list, in f64.
fn distribution(logits: &[f32], choice: Choice) -> Vec<(usize, f64)> {
    let logits = logits.iter().map(|&logit| f64::from(logit));
    let mut list: Vec<(usize, f64)> = logits.enumerate().collect();
    // Stable: the first of equals stays first.
    list.sort_by(|a, b| b.1.total_cmp(&a.1));
    let greedy = choice.temperature <= 0.0;
    match if greedy { 1 } else { choice.top_k as usize } {
        0 => {}
        k => list.truncate(k),
    }
    let max = list[0].1;
    let softmax = |list: &[(usize, f64)], temperature: f64| -> Vec<f64> {
        let weight = |logit: f64| ((logit - max) / temperature).exp();
        let sum: f64 = list.iter().map(|(_, logit)| weight(*logit)).sum();
        list.iter().map(|(_, logit)| weight(*logit) / sum).collect()
    };
    if choice.top_p < 1.0 {
        let mut sum = 0.0;
        let last = softmax(&list, 1.0).into_iter().position(|probability| {
            sum += probability;
            sum >= f64::from(choice.top_p)
        });
        list.truncate(last.map_or(list.len(), |last| last + 1));
    }
    list.retain(|(_, logit)| (logit - max).exp() >= f64::from(choice.min_p));
    let temperature = if greedy { 1.0 } else { choice.temperature };
    let probabilities = softmax(&list, temperature.into());
    list.into_iter()
        .map(|(token, _)| token)
        .zip(probabilities)
        .collect()
}

/// Draws `draws` times from the same logits.
fn draw(name: &str, logits: &[f32], choice: Choice, draws: usize) -> Vec<u32> {
    let vocab = logits.len();
    let settings: Vec<SampleSettings> = (0..draws)
        .map(|draw| SampleSettings {
            temperature: choice.temperature,
            top_k: choice.top_k,
            top_p: choice.top_p,
            min_p: choice.min_p,
            uniform: (draw as f32 + 0.5) / draws as f32,
        })
        .collect();
    let mut case = Case::new(name);
    let tokens = case.output::<u32>("tokens", draws);
    let params = SampleParams {
        logits: case.input("logits", logits),
        tokens,
        settings: case.input("settings", &settings),
        vocab: vocab as u32,
        // All rows are the same one.
        stride: 0,
    };
    case.launch(
        &SAMPLE,
        Shape::new([draws as u32, 1, 1], SAMPLE_THREADS),
        params,
    );
    case.read(tokens)
}

/// Each token comes as often as its probability says.
fn check(logits: &[f32], choice: Choice, draws: usize) {
    let vocab = logits.len();
    let mut expected = vec![0.0; vocab];
    for (token, probability) in distribution(logits, choice) {
        expected[token] = probability * draws as f64;
    }
    let name = format!("sample, {choice:?}, {vocab} tokens");
    let mut counts = vec![0.0; vocab];
    for token in draw(&name, logits, choice, draws) {
        counts[token as usize] += 1.0;
    }
    for (token, (&count, &expected)) in counts.iter().zip(&expected).enumerate() {
        // Evenly spaced numbers hit an interval as often as its length says, or once more or less,
        // where one lies at its end.
        let close = f64::abs(count - expected) <= 1.01;
        assert!(
            close && (count == 0.0 || expected > 0.0),
            "{name}: token {token} came {count} times, not {expected}"
        );
    }
}

fn random_logits(vocab: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    // Steeper than even: some tokens stand out.
    let mut logits = random.floats(vocab, 2.2);
    logits.iter_mut().for_each(|x| *x = x.powi(3));
    logits
}

#[test]
fn each_restriction() {
    for (vocab, draws) in [(1, 4), (5, 64), (333, 100), (6000, 60)] {
        let logits = random_logits(vocab, vocab as u64);
        for choice in [
            ALL,
            Choice { top_k: 1, ..ALL },
            Choice { top_k: 40, ..ALL },
            Choice { top_p: 0.6, ..ALL },
            Choice { top_p: 0.0, ..ALL },
            Choice { min_p: 0.2, ..ALL },
            Choice {
                temperature: 0.5,
                ..ALL
            },
            Choice {
                temperature: 0.0,
                ..ALL
            },
            Choice {
                temperature: 1.5,
                top_k: 40,
                top_p: 0.9,
                min_p: 0.02,
            },
        ] {
            check(&logits, choice, draws);
        }
    }
}

#[test]
fn equals_at_the_cut() {
    // The first three of the twos, then none.
    let logits = [2.0, 1.0, 3.0, 2.0, 2.0, 2.0, 0.0, f32::MIN];
    for choice in [
        Choice { top_k: 4, ..ALL },
        Choice { top_k: 2, ..ALL },
        Choice { top_p: 0.55, ..ALL },
        Choice {
            top_k: 3,
            top_p: 0.5,
            ..ALL
        },
        Choice { min_p: 0.36, ..ALL },
    ] {
        check(&logits, choice, 50);
    }
    // More equals than candidates fit in shared memory.
    let flat = vec![0.25; 9000];
    check(&flat, Choice { top_k: 7000, ..ALL }, 20);
    check(
        &flat,
        Choice {
            top_p: 0.00105,
            ..ALL
        },
        20,
    );
}

/// One logit that is not finite, anywhere in the row, and no token is drawn.
#[test]
fn what_is_not_finite_is_reported() {
    let usual = Choice {
        temperature: 0.8,
        top_k: 40,
        top_p: 0.95,
        min_p: 0.05,
    };
    let greedy = Choice {
        temperature: 0.0,
        ..ALL
    };
    for (vocab, places) in [(1, vec![0]), (5, vec![0, 4]), (6001, vec![3, 5999, 6000])] {
        for place in places {
            for broken in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut logits = random_logits(vocab, 3);
                logits[place] = broken;
                for choice in [ALL, usual, greedy] {
                    let name = format!("sample, {choice:?}, {broken} at {place} of {vocab}");
                    let tokens = draw(&name, &logits, choice, 2);
                    assert_eq!(tokens, [NOT_FINITE; 2], "{name}");
                }
            }
        }
    }
    check(&[f32::MAX, f32::MIN, 0.0], ALL, 4);
    check(&[f32::MIN, f32::MIN], ALL, 4);
}

#[test]
fn a_large_vocabulary() {
    let logits = random_logits(151_936, 1);
    let choice = Choice {
        temperature: 0.8,
        top_k: 40,
        top_p: 0.95,
        min_p: 0.05,
    };
    check(&logits, choice, 4);
}
