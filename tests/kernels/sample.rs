//! Tests of `ops/sample.rs`: drawn with evenly spaced numbers, each token comes as often as its
//! probability says.

use hyperion::{backend, sampling};
use kernels_gpu::abi::{
    GROUP_LOGITS, GROUP_THREADS, GroupMaximaParams, NOT_FINITE, NOTHING_ALLOWED, SAMPLE_THREADS,
    SampleParams, SampleSettings, sample_order,
};
use kernels_gpu::ops::group_maxima::GROUP_MAXIMA;
use kernels_gpu::ops::sample::SAMPLE;
use kernels_gpu::prim::random::uniform;

use crate::choice::Outputs;
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
    list.retain(|&(_, logit)| logit > f64::NEG_INFINITY);
    // Stable: the first of equals stays first, zeros of both signs among them.
    list.sort_by(|a, b| b.1.partial_cmp(&a.1).expect("numbers"));
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

/// Seeds and positions whose random numbers are in the middle of `draws` equal parts of 0 to 1, one for each part, in
/// any order.
fn evenly(draws: usize) -> Vec<(u64, u32)> {
    let mut found = vec![None; draws];
    let mut random = Random::new(draws as u64);
    while found.contains(&None) {
        let (seed, position) = (random.bits(), random.below(40_960) as u32);
        let place = uniform(seed, position) * draws as f32;
        if (place.fract() - 0.5).abs() < 0.02 {
            found[place as usize] = Some((seed, position));
        }
    }
    found.into_iter().flatten().collect()
}

/// Draws once for each seed and position, from the same logits.
fn draw(
    name: &str,
    logits: &[f32],
    choice: Choice,
    numbers: &[(u64, u32)],
    forbids: bool,
) -> Vec<u32> {
    let (vocab, draws) = (logits.len(), numbers.len());
    let settings: Vec<SampleSettings> = numbers
        .iter()
        .map(|&(seed, _)| SampleSettings {
            temperature: choice.temperature,
            top_k: choice.top_k,
            top_p: choice.top_p,
            min_p: choice.min_p,
            seed: [seed as u32, (seed >> 32) as u32],
        })
        .collect();
    let positions: Vec<u32> = numbers.iter().map(|&(_, position)| position).collect();
    let drawn = [true, false].map(|moves| {
        let mut case = Case::new(format!("{name}, moves: {moves}"));
        let mut outputs = if moves {
            Outputs::moving(&mut case, &positions)
        } else {
            // Every second one of the step's tokens, last row first.
            let token_of_row: Vec<u32> = (0..draws as u32).rev().map(|row| 2 * row + 1).collect();
            let mut all = vec![77; 2 * draws];
            for (&token, &position) in token_of_row.iter().zip(&positions) {
                all[token as usize] = position;
            }
            Outputs::of_tokens(&mut case, &token_of_row, &all)
        };
        let vocab = vocab as u32;
        // All rows are the same one.
        let (logits, stride) = (case.input("logits", logits), 0);
        let groups = vocab.div_ceil(GROUP_LOGITS);
        let maxima = case.output("maxima", draws * groups as usize);
        let params = GroupMaximaParams {
            logits,
            maxima,
            vocab,
            stride,
            forbids: forbids.into(),
            reserved: 0,
        };
        let blocks = groups.div_ceil(GROUP_THREADS / 32);
        let shape = Shape::new([blocks, draws as u32, 1], GROUP_THREADS);
        case.launch(&GROUP_MAXIMA, shape, params);
        let params = SampleParams {
            logits,
            maxima,
            settings: case.input("settings", &settings),
            outputs: outputs.params,
            vocab,
            stride,
        };
        let shape = Shape::new([draws as u32, 1, 1], SAMPLE_THREADS);
        case.launch(&SAMPLE, shape, params);
        outputs.tokens(&case)
    });
    assert_eq!(drawn[0], drawn[1], "{name}");
    let [tokens, _] = drawn;
    tokens
}

/// Each token comes as often as its probability says.
fn check(logits: &[f32], choice: Choice, draws: usize) {
    check_allowed(logits, choice, draws, false);
}

/// The same where minus infinity may forbid tokens.
fn check_allowed(logits: &[f32], choice: Choice, draws: usize, forbids: bool) {
    let vocab = logits.len();
    let mut expected = vec![0.0; vocab];
    for (token, probability) in distribution(logits, choice) {
        expected[token] = probability * draws as f64;
    }
    let name = format!("sample, {choice:?}, {vocab} tokens");
    let mut counts = vec![0.0; vocab];
    for token in draw(&name, logits, choice, &evenly(draws), forbids) {
        counts[token as usize] += 1.0;
    }
    for (token, (&count, &expected)) in counts.iter().zip(&expected).enumerate() {
        // Evenly spaced numbers hit an interval as often as its length says, or once more or less,
        // where one lies at its end; these are up to 0.02 of their distance beside even places.
        let close = f64::abs(count - expected) <= 1.05;
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
                for (choice, forbids) in [(ALL, false), (usual, false), (greedy, true)] {
                    if forbids && broken == f32::NEG_INFINITY {
                        continue;
                    }
                    let name = format!("sample, {choice:?}, {broken} at {place} of {vocab}");
                    let tokens = draw(&name, &logits, choice, &evenly(2), forbids);
                    assert_eq!(tokens, [NOT_FINITE; 2], "{name}");
                }
            }
        }
    }
    check(&[f32::MAX, f32::MIN, 0.0], ALL, 4);
    check(&[f32::MIN, f32::MIN], ALL, 4);
}

/// What minus infinity forbids is never drawn, whatever is kept of the rest.
#[test]
fn forbidden_tokens_are_not_there() {
    for (vocab, one_in, draws) in [(1, 9, 2), (5, 2, 32), (333, 3, 50), (6001, 700, 20)] {
        let mut random = Random::new(vocab as u64 + 1);
        let mut logits = random_logits(vocab, 9);
        for logit in &mut logits[1..] {
            if random.below(one_in) > 0 || vocab > 1000 && random.below(5) > 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
        for choice in [
            ALL,
            Choice { top_k: 40, ..ALL },
            Choice { top_p: 0.6, ..ALL },
            Choice { min_p: 0.2, ..ALL },
            Choice {
                temperature: 0.0,
                ..ALL
            },
        ] {
            check_allowed(&logits, choice, draws, true);
        }
        let nothing = vec![f32::NEG_INFINITY; vocab];
        let name = format!("sample, all of {vocab} forbidden");
        let tokens = draw(&name, &nothing, ALL, &evenly(2), true);
        assert_eq!(tokens, [NOTHING_ALLOWED; 2], "{name}");
        let mut lowest = nothing.clone();
        lowest[vocab / 2] = f32::MIN;
        check_allowed(&lowest, Choice { top_k: 3, ..ALL }, 2, true);
    }
}

/// Among tokens of one probability the random number is the token, exactly.
#[test]
fn numbers_follow_from_seed_and_position() {
    let mut random = Random::new(5);
    let mut numbers = vec![(0, 0), (u64::MAX, u32::MAX - 1), (1 << 32, 3), (1, 131_071)];
    numbers.extend((0..252).map(|_| (random.bits(), random.bits() as u32 >> 8)));
    for vocab in [64, 256, 2048] {
        let name = format!("sample, {vocab} equals");
        let tokens = draw(&name, &vec![-1.5; vocab], ALL, &numbers, false);
        let expected = numbers
            .iter()
            .map(|&(seed, position)| (uniform(seed, position) * vocab as f32) as u32);
        assert_eq!(tokens, expected.collect::<Vec<u32>>());
    }
}

/// As for argmax.
#[test]
fn both_zeros_are_equal() {
    let greedy = Choice {
        temperature: 0.0,
        ..ALL
    };
    for choice in [greedy, Choice { top_k: 2, ..ALL }] {
        check(&[-1.0, -0.0, 0.0, -0.0, -1.0], choice, 20);
        check(&[0.0, -0.0, 0.0, -0.0], choice, 20);
    }
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

/// The kernel and the host draw the same token for a number, among more tokens than one round of the threads takes too:
/// the host draws where a row asks for more than the kernel gives.
#[test]
fn the_host_draws_the_same_token() {
    // Sums of singles: nearer to the border of two tokens either is right.
    const NEAR: f64 = 1e-5;
    let mut n_compared = 0;
    for vocab in [333, 6000, 9010] {
        let logits = random_logits(vocab, 1 + vocab as u64);
        for choice in [
            ALL,
            Choice { top_k: 40, ..ALL },
            Choice {
                temperature: 1.5,
                top_k: 5000,
                ..ALL
            },
            Choice {
                temperature: 1.5,
                top_k: 0,
                top_p: 0.9,
                min_p: 0.001,
            },
        ] {
            let mut order = distribution(&logits, choice);
            order.sort_by_key(|&(token, _)| sample_order(token as u32));
            let borders = order.iter().scan(0.0, |sum, (_, probability)| {
                *sum += probability;
                Some(*sum)
            });
            let borders: Vec<f64> = borders.collect();
            let numbers = evenly(24);
            let name = format!("sample as the host, {choice:?}, {vocab} tokens");
            let drawn = draw(&name, &logits, choice, &numbers, false);
            for (&(seed, position), token) in numbers.iter().zip(drawn) {
                let number = f64::from(uniform(seed, position));
                if borders.iter().any(|border| (border - number).abs() < NEAR) {
                    continue;
                }
                let draws = backend::Draw {
                    temperature: choice.temperature,
                    top_k: choice.top_k,
                    top_p: choice.top_p,
                    min_p: choice.min_p,
                    typical_p: 1.0,
                    seed,
                };
                let asked = backend::Choice {
                    draw: Some(draws),
                    ..backend::Choice::GREEDY
                };
                let expected = sampling::choose(&logits, &asked, position as usize);
                assert_eq!(Ok(token), expected, "{name}: number {number}");
                n_compared += 1;
            }
        }
    }
    assert!(n_compared > 200, "only {n_compared} of 288 were compared");
}
