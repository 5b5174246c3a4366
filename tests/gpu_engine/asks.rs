//! What rows ask for, all of it in one step, against what `choice_reference` computes from the logits of the same tokens.

use hyperion::backend::{
    ActivationPrecision, Ask, Backend, Choice, Draw, Logprobs, NewTokens, NoTrace, Output, Pooling,
    Report, Row,
};
use hyperion::cpu::CpuBackend;
use hyperion::model::Model;

use crate::ask_cases::{Case, DRAW, GREEDY, NOTHING, cases, drafts};
use crate::choice_reference::{distance, log_softmax};
use crate::setup::*;

/// Two computations of the same logits differ by this share: products of other kernels.
fn slack(logits: &[f32], share: f64) -> f64 {
    let squares = logits.iter().map(|&x| f64::from(x).powi(2));
    // Of an element, where the error is spread over all of them; it is not spread evenly.
    8.0 * share * (squares.sum::<f64>() / logits.len() as f64).sqrt()
}

/// What `case` got, against the logits of all of its tokens, `[tokens][vocab]`.
fn check(model: &Model, case: &Case, output: &Output, reference: &[Vec<f32>], share: f64) {
    let what = case.what;
    let n = case.text.len() - case.start;
    let last = &reference[n - 1];
    let n_drafts = case.ask.choose.map_or(0, |choice| choice.drafts.len());
    let first = n - 1 - n_drafts;
    if let Some(choice) = &case.ask.choose {
        assert!(!output.tokens.is_empty(), "{what}: no token");
        for (i, &token) in output.tokens.iter().enumerate() {
            let logits = &reference[first + i];
            let off = distance(token, logits, &choice.behind(i), case.start + first + i);
            let slack = slack(logits, share);
            assert!(off <= slack, "{what}: token {i} is {off} off, not {slack}");
        }
        let guesses = &case.text[case.start + first + 1..];
        let (&behind, accepted) = output.tokens.split_last().expect("a token");
        assert!(guesses.starts_with(accepted), "{what}: {:?}", output.tokens);
        // It ends where a guess is wrong.
        assert_ne!(guesses.get(accepted.len()), Some(&behind), "{what}");
    } else {
        assert!(output.tokens.is_empty(), "{what}");
    }
    match case.ask.report {
        Report::TopLogprobs(most) => {
            assert_eq!(output.logprobs.len(), output.tokens.len(), "{what}");
            for (i, found) in output.logprobs.iter().enumerate() {
                check_logprobs(found, output.tokens[i], &reference[first + i], most, share);
            }
        }
        _ => assert!(output.logprobs.is_empty(), "{what}"),
    }
    let expected_logits = match case.ask.report {
        Report::Logits => last.clone(),
        Report::AllLogits => reference.concat(),
        _ => Vec::new(),
    };
    assert_near(&output.logits, &expected_logits, share, what);
    let Report::Hidden(pooling) = case.ask.report else {
        return assert!(output.hidden.is_empty(), "{what}");
    };
    assert_eq!(output.hidden.len(), model.config.width, "{what}");
    let pooled = match pooling {
        Pooling::Last => &reference[n - 1..],
        Pooling::Mean => reference,
    };
    // The last product is linear, so that the mean's logits are the logits' mean.
    let mean =
        |token: usize| pooled.iter().map(|row| row[token]).sum::<f32>() / pooled.len() as f32;
    let expected: Vec<f32> = (0..model.vocab()).map(mean).collect();
    let matrix = model.weights.output.weight.to_f32();
    let logits = matrix.chunks_exact(model.config.width).map(|row| {
        let terms = row.iter().zip(&output.hidden);
        let sum: f64 = terms.map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
        sum as f32
    });
    assert_near(
        &logits.collect::<Vec<_>>(),
        &expected,
        share.max(1e-5),
        what,
    );
}

fn assert_near(found: &[f32], expected: &[f32], share: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    if !found.is_empty() {
        let error = crate::support::relative_error(found, expected);
        assert!(error <= share, "{what}: off by {error:.1e}");
    }
}

fn check_logprobs(found: &Logprobs, token: u32, logits: &[f32], most: usize, share: f64) {
    let expected = log_softmax(logits);
    let slack = slack(logits, share).max(1e-5);
    let is_near =
        |logprob: f32, token: u32| (f64::from(logprob) - expected[token as usize]).abs() <= slack;
    assert!(is_near(found.chosen, token), "{found:?} for {token}");
    assert_eq!(found.top.len(), most);
    let mut order = expected.clone();
    order.sort_by(|a, b| b.total_cmp(a));
    for (place, &(token, logprob)) in found.top.iter().enumerate() {
        assert!(is_near(logprob, token), "{found:?}: {token}");
        assert!(
            (f64::from(logprob) - order[place]).abs() <= slack,
            "{found:?}"
        );
        let later = &found.top[place + 1..];
        assert!(
            later
                .iter()
                .all(|&(other, lower)| other != token && lower <= logprob)
        );
    }
}

/// A step of `cases`, whose texts are in the cache, and one for the logits of all of their tokens.
fn compare(backend: &mut dyn Backend, cases: &[Case], share: f64) {
    let (model, vocab) = (backend.model().clone(), backend.model().vocab());
    let rows: Vec<_> = cases
        .iter()
        .map(|case| case.asking(Ask::ALL_LOGITS))
        .collect();
    let all = sound(backend.step(&rows, &mut NoTrace).expect("a step"));
    let rows: Vec<_> = cases.iter().map(Case::row).collect();
    // As it is, recorded and replayed, where it is a decode step.
    for _ in 0..3 {
        let found = sound(backend.step(&rows, &mut NoTrace).expect("a step"));
        for ((case, output), all) in cases.iter().zip(&found).zip(&all) {
            let rows: Vec<Vec<f32>> = (all.logits.chunks_exact(vocab))
                .map(<[f32]>::to_vec)
                .collect();
            check(&model, case, output, &rows, share);
        }
    }
}

/// On the CPU logits have the same bits whatever is asked; on a device the last product is another kernel's where
/// more logits are asked for.
const SHARES: [f64; 2] = [0.0, 2e-3];

#[test]
fn what_rows_ask_for_follows_from_their_logits() {
    let _lock = device_lock();
    for name in ["tiny-qwen3-q8_0-1", "tiny-gemma3-q4_k_m-1"] {
        let model = model(name);
        let backends: [Box<dyn Backend>; 2] = [
            Box::new(CpuBackend::new(model.clone(), PAGES)),
            Box::new(gpu(&model, ActivationPrecision::F16)),
        ];
        for (mut backend, share) in backends.into_iter().zip(SHARES) {
            let backend = &mut *backend;
            // Chunks and tokens in one step.
            let mut mixed = cases(backend, |s| [5, 1, 6, 1, 3, 4, 3][s % 7]);
            mixed.extend(drafts(backend, 2));
            compare(backend, &mixed, share);
            // A token each, of many and of few.
            let mut decode = cases(backend, |_| 1);
            compare(backend, &decode, share);
            while !decode.is_empty() {
                let few = decode.split_off(decode.len().saturating_sub(3));
                compare(backend, &few, share);
            }
        }
    }
}

/// A token each, some with drafts behind it: steps of decoding, of many tokens and of few.
#[test]
fn drafts_are_verified_in_steps_of_decoding() {
    let _lock = device_lock();
    let model = model("tiny-qwen3-q8_0-1");
    let backends: [Box<dyn Backend>; 2] = [
        Box::new(CpuBackend::new(model.clone(), PAGES)),
        Box::new(gpu(&model, ActivationPrecision::F16)),
    ];
    for (mut backend, share) in backends.into_iter().zip(SHARES) {
        let backend = &mut *backend;
        let mut guessed = drafts(backend, 1);
        // With one that the host chooses for it is no step of decoding.
        compare(backend, &guessed, share);
        guessed.pop();
        let few = guessed.pop().expect("a case");
        guessed.extend(cases(backend, |_| 1).into_iter().take(6));
        compare(backend, &guessed, share);
        compare(backend, &[few], share);
    }
}

/// A device has room for so many biases and counts in a step; where a neighbour takes all of it, the host chooses.
#[test]
fn a_neighbour_that_takes_all_room_changes_no_token() {
    const ROOM: usize = 1 << 15;
    let _lock = device_lock();
    let model = model("tiny-qwen3-q8_0-1");
    let mut gpu = gpu(&model, ActivationPrecision::F16);
    let texts = [0, 1].map(|s| text(s, 4, model.vocab()));
    fn biased(bias: &[(u32, f32)], seed: u64) -> Ask<'_> {
        let choice = Choice {
            draw: Some(Draw { seed, ..DRAW }),
            bias,
            ..GREEDY
        };
        Ask {
            choose: Some(choice),
            report: NOTHING,
        }
    }
    let many: Vec<(u32, f32)> = (0..ROOM).map(|i| ((i % 300) as u32, 0.0)).collect();
    let mut tokens_beside = |neighbours: &[(u32, f32)]| {
        let tokens = (0..12).map(|seed| {
            let asks = [biased(neighbours, seed), biased(&[(3, 0.5)], seed)];
            let rows = [0, 1].map(|s| Row {
                tokens: NewTokens::Known(&texts[s]),
                start: 0,
                pages: [&[0], &[1]][s],
                ask: asks[s],
            });
            let outputs = sound(gpu.step(&rows, &mut NoTrace).expect("a step"));
            outputs.iter().map(Output::token).collect::<Vec<_>>()
        });
        tokens.collect::<Vec<_>>()
    };
    assert_eq!(tokens_beside(&many), tokens_beside(&many[..1]));
}
