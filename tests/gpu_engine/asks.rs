//! What rows ask for, all of it in one step, against what this file computes from the logits of the same tokens.

use hyperion::backend::{
    ActivationPrecision, Ask, Backend, Choice, Draft, Draw, Logprobs, NewTokens, NoTrace, Output,
    Penalties, Pooling, Report, Row,
};
use hyperion::cpu::CpuBackend;
use hyperion::model::Model;
use hyperion::sampling::uniform;

use crate::setup::*;

/// A row, behind `start` other tokens of its text.
struct Case {
    what: &'static str,
    text: Vec<u32>,
    start: usize,
    pages: [u32; 1],
    ask: Ask<'static>,
}

impl Case {
    fn row(&self) -> Row<'_> {
        Row {
            tokens: NewTokens::Known(&self.text[self.start..]),
            start: self.start,
            pages: &self.pages,
            ask: self.ask,
        }
    }

    fn asking<'a>(&'a self, ask: Ask<'a>) -> Row<'a> {
        Row { ask, ..self.row() }
    }
}

const DRAW: Draw = Draw {
    temperature: 1.5,
    top_k: 40,
    top_p: 0.95,
    min_p: 0.02,
    typical_p: 1.0,
    seed: 5,
};
const ALL: Draw = Draw {
    temperature: 0.7,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    typical_p: 1.0,
    seed: 6,
};
const TYPICAL: Draw = Draw {
    typical_p: 0.6,
    top_p: 0.9,
    ..ALL
};
const GREEDY: Choice<'static> = Choice::GREEDY;
const NOTHING: Report = Report::Nothing;

fn leaked<T>(values: Vec<T>) -> &'static [T] {
    // Asks of a test's whole life, without a lifetime in every signature.
    Box::leak(values.into_boxed_slice())
}

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
fn distance(token: u32, logits: &[f32], choice: &Choice<'_>, position: usize) -> f64 {
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
fn chosen(logits: &[f32], choice: &Choice<'_>, position: usize) -> u32 {
    let tokens = 0..logits.len() as u32;
    let distances = tokens.map(|token| (distance(token, logits, choice, position), token));
    let nearest = distances.min_by(|a, b| a.0.total_cmp(&b.0));
    nearest.expect("a token").1
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let best = f64::from(best);
    let terms = logits.iter().map(|&logit| (f64::from(logit) - best).exp());
    let log_sum = best + terms.sum::<f64>().ln();
    let log = |&logit: &f32| f64::from(logit) - log_sum;
    logits.iter().map(log).collect()
}

/// Texts of all cases, behind `start` tokens each; the asks follow from the logits of `backend`.
fn cases(backend: &mut dyn Backend, lengths: impl Fn(usize) -> usize) -> Vec<Case> {
    let vocab = backend.model().vocab();
    let with = |draw| Choice {
        draw: Some(draw),
        ..GREEDY
    };
    let plain: [(&str, Option<Choice<'static>>, Report); 15] = [
        ("greedy", Some(GREEDY), NOTHING),
        ("drawn", Some(with(DRAW)), NOTHING),
        ("masked", Some(GREEDY), NOTHING),
        ("biased and drawn", Some(with(ALL)), NOTHING),
        ("penalized", Some(GREEDY), Report::TopLogprobs(3)),
        ("logits", None, Report::Logits),
        ("all logits", None, Report::AllLogits),
        ("hidden", None, Report::Hidden(Pooling::Last)),
        ("mean hidden", None, Report::Hidden(Pooling::Mean)),
        ("drawn from all", Some(with(ALL)), Report::TopLogprobs(20)),
        (
            "greedy, hidden",
            Some(GREEDY),
            Report::Hidden(Pooling::Last),
        ),
        ("masked and drawn", Some(with(DRAW)), Report::Logits),
        ("nothing", None, NOTHING),
        ("greedy, all logits", Some(GREEDY), Report::AllLogits),
        ("typical", Some(with(TYPICAL)), Report::TopLogprobs(2)),
    ];
    let mut cases = Vec::new();
    for (s, (what, choose, report)) in plain.into_iter().enumerate() {
        let start = s * 5 % 11;
        let mut case = Case {
            what,
            text: text(s, start + lengths(s), vocab),
            start,
            pages: [(s * 13 % PAGES) as u32],
            ask: Ask { choose, report },
        };
        // The likeliest tokens, so that what is forbidden matters.
        let logits = prepared(backend, &case);
        let likeliest = |n: usize| -> Vec<u32> {
            let mut order: Vec<u32> = (0..vocab as u32).collect();
            order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
            order[..n].to_vec()
        };
        if let Some(choice) = &mut case.ask.choose {
            if what.starts_with("masked") {
                let mut mask = vec![u32::MAX; vocab.div_ceil(32)];
                for token in likeliest(5) {
                    mask[token as usize / 32] &= !(1 << (token % 32));
                }
                choice.mask = Some(leaked(mask));
            } else if what.starts_with("biased") {
                let last = likeliest(vocab)[vocab - 1];
                let bias = logits[likeliest(1)[0] as usize] - logits[last as usize];
                let forbidden = (likeliest(1)[0], f32::NEG_INFINITY);
                choice.bias = leaked(vec![forbidden, (last, bias)]);
            } else if what == "penalized" {
                let counts = likeliest(4).into_iter().zip([3, 1, 2, 1]);
                choice.counts = leaked(counts.collect());
                choice.penalties = Penalties {
                    repeat: 1.3,
                    presence: 0.5,
                    frequency: 0.75,
                };
            }
        }
        cases.push(case);
    }
    cases
}

/// Brings the tokens before a case's row into the cache: the logits behind the row's last one.
fn prepared(backend: &mut dyn Backend, case: &Case) -> Vec<f32> {
    let row = Row {
        tokens: NewTokens::Known(&case.text),
        start: 0,
        ..case.asking(Ask::LOGITS)
    };
    let outputs = sound(backend.step(&[row], &mut NoTrace).expect("a text"));
    outputs.into_iter().map(logits).next().expect("logits")
}

/// What the choice depends on in a row of the kind `what` where the logits are these: the likeliest tokens are
/// forbidden or penalized.
fn draft(what: &str, logits: &[f32]) -> Draft {
    let mut likeliest: Vec<u32> = (0..logits.len() as u32).collect();
    likeliest.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    let mut draft = Draft::default();
    if what.starts_with("masked") {
        let mask = draft.mask.insert(vec![u32::MAX; logits.len().div_ceil(32)]);
        for &token in &likeliest[..3] {
            mask[token as usize / 32] &= !(1 << (token % 32));
        }
    } else if what.starts_with("penalized") {
        draft.counts = likeliest[..2].iter().map(|&token| (token, 2)).collect();
        draft.counts.sort_unstable();
    }
    draft
}

/// Rows of `n_drafts` guesses behind `n_known` other tokens, of which the first `n_right` are what the choice takes.
fn drafts(backend: &mut dyn Backend, n_known: usize) -> Vec<Case> {
    let vocab = backend.model().vocab();
    let drawn = Choice {
        draw: Some(DRAW),
        ..GREEDY
    };
    let penalized = Choice {
        penalties: Penalties {
            repeat: 1.3,
            presence: 0.5,
            frequency: 0.75,
        },
        ..GREEDY
    };
    let shapes = [
        ("all drafts right", GREEDY, 2, 2, NOTHING),
        ("one draft right", GREEDY, 3, 1, Report::TopLogprobs(2)),
        ("no draft right", drawn, 2, 0, NOTHING),
        ("masked drafts", drawn, 3, 3, NOTHING),
        ("penalized drafts", penalized, 2, 2, Report::TopLogprobs(1)),
        ("drawn drafts", drawn, 3, 2, Report::Logits),
    ];
    let cases = shapes.into_iter().enumerate();
    cases
        .map(|(s, (what, choice, n_drafts, n_right, report))| {
            let start = 3 + 2 * s;
            let mut case = Case {
                what,
                text: text(20 + s, start + n_known, vocab),
                start,
                pages: [(30 + s) as u32],
                ask: Ask::NOTHING,
            };
            let mut behind = Vec::new();
            for at in 0..=n_drafts {
                let logits = prepared(backend, &case);
                behind.push(draft(what, &logits));
                if at < n_drafts {
                    let choice = Choice {
                        mask: behind[at].mask.as_deref(),
                        counts: &behind[at].counts,
                        ..choice
                    };
                    let right = chosen(&logits, &choice, case.text.len() - 1);
                    case.text.push(match at < n_right {
                        true => right,
                        false => (right + 1) % vocab as u32,
                    });
                }
            }
            let [first, drafts @ ..] = leaked(behind) else {
                panic!("no choice");
            };
            let choose = Some(Choice {
                mask: first.mask.as_deref(),
                counts: &first.counts,
                drafts,
                ..choice
            });
            case.ask = Ask { choose, report };
            case
        })
        .collect()
}

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
