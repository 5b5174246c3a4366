//! Logits that are not finite: an error of the sequence that has them and of no other, on every path.

use std::sync::Arc;

use hyperion::backend::{
    ActivationPrecision, Ask, Backend, Choice, Draft, NewTokens, NoTrace, NotFinite, Report, Row,
    RowError, RowResult,
};
use hyperion::cpu::CpuBackend;
use hyperion::engine::{Decode, Engine, EngineError, Sequence};
use hyperion::gguf::Gguf;
use hyperion::model::Model;

use crate::setup::*;
use crate::support::broken::with_broken_token;
use crate::support::device::DRAW;
use crate::support::fixture_bytes;

const NAMES: [&str; 4] = [
    "tiny-qwen2-f16-1",
    "tiny-llama-q4_0-2",
    "tiny-qwen3-q8_0-1",
    "tiny-gemma3-q4_k_m-1",
];

/// The model `name` with an embedding of `token` that is not finite.
fn broken_model(name: &str, token: u32) -> Arc<Model> {
    let bytes = with_broken_token(&fixture_bytes(&format!("tiny/{name}.gguf")), token);
    let gguf = Gguf::from_bytes(bytes).expect("a GGUF file");
    Arc::new(Model::from_gguf(&gguf).expect("a model"))
}

/// All backends that run `model`.
fn backends(model: &Arc<Model>) -> Vec<(&'static str, Box<dyn Backend>)> {
    vec![
        ("cpu", Box::new(CpuBackend::new(model.clone(), PAGES))),
        ("f16", Box::new(gpu(model, ActivationPrecision::F16))),
        ("q8", Box::new(gpu(model, ActivationPrecision::Q8))),
    ]
}

const ASKS: [Ask<'static>; 4] = [Ask::GREEDY, drawn(DRAW), Ask::LOGITS, Ask::ALL_LOGITS];

/// One step of sequences with these tokens from `start` on, each on two pages of its own.
fn step(
    backend: &mut dyn Backend,
    texts: &[Vec<u32>],
    start: usize,
    ask: Ask<'_>,
) -> Vec<RowResult> {
    let pages: Vec<[u32; 2]> = (0..texts.len() as u32)
        .map(|s| [2 * s, 2 * s + 1])
        .collect();
    let steps: Vec<Row<'_>> = texts
        .iter()
        .zip(&pages)
        .map(|(text, pages)| Row {
            tokens: NewTokens::Known(&text[start..]),
            start,
            pages,
            ask,
        })
        .collect();
    backend.step(&steps, &mut NoTrace).expect("a step")
}

/// Texts of `n` sequences in which `token` does not occur.
fn texts(n: usize, length: usize, vocab: usize, token: u32) -> Vec<Vec<u32>> {
    let other = |t: &u32| if *t == token { token - 1 } else { *t };
    (0..n)
        .map(|s| text(s, length, vocab).iter().map(other).collect())
        .collect()
}

/// Behind a guess that was wrong nothing matters; behind one that was right it is the next step's error.
#[test]
fn what_breaks_behind_a_guess_spoils_no_token_before() {
    let _lock = device_lock();
    const TOKEN: u32 = 77;
    for name in &NAMES[..1] {
        let model = broken_model(name, TOKEN);
        let mut texts = texts(2, 8, model.vocab(), TOKEN);
        texts.iter_mut().for_each(|text| text.extend([TOKEN, 5]));
        let drafts = [Draft::default(), Draft::default()];
        for (kind, mut backend) in backends(&model) {
            // A prompt with guesses at its end, and a step of decoding.
            for start in [0, 7] {
                for (bias, is_right) in [(f32::NEG_INFINITY, false), (1e6, true)] {
                    let bias = [(TOKEN, bias)];
                    let choice = Choice {
                        bias: &bias,
                        drafts: &drafts,
                        ..Choice::GREEDY
                    };
                    let ask = Ask {
                        choose: Some(choice),
                        report: Report::Nothing,
                    };
                    for result in step(&mut *backend, &texts, start, ask) {
                        let tokens = result.expect("tokens").tokens;
                        assert_eq!(tokens.len(), 1, "{name}, {kind}");
                        assert_eq!(tokens[0] == TOKEN, is_right, "{name}, {kind}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_prompt_with_a_broken_token_spoils_no_other() {
    let _lock = device_lock();
    const TOKEN: u32 = 77;
    const AT: usize = 6;
    for name in NAMES {
        let model = broken_model(name, TOKEN);
        let sound = texts(3, 10, model.vocab(), TOKEN);
        let mut broken = sound.clone();
        broken[1][AT] = TOKEN;
        let short = |backend: &mut dyn Backend| -> Vec<RowResult> {
            let until = |length: usize| -> Vec<Vec<u32>> {
                sound.iter().map(|text| text[..length].to_vec()).collect()
            };
            let mut outputs = step(backend, &until(3), 0, Ask::LOGITS);
            outputs.extend(step(backend, &until(4), 3, Ask::LOGITS));
            outputs
        };
        // What the last product is followed by does not depend on the type of the weights.
        let n_asks = match [NAMES[0], NAMES[3]].contains(&name) {
            true => ASKS.len(),
            false => 1,
        };
        for (kind, mut backend) in backends(&model) {
            let before = short(&mut *backend);
            for &ask in &ASKS[..n_asks] {
                let mut expected = step(&mut *backend, &sound, 0, ask);
                let mut found = step(&mut *backend, &broken, 0, ask);
                let (expected_error, found_error) = (expected.remove(1), found.remove(1));
                assert!(expected == found, "{name}, {kind}, {ask:?}: others");
                assert!(expected_error.is_ok(), "{name}, {kind}");
                // All logits: the first ones that the token takes part in, not those before it, whose weight for it
                // is 0 (and 0 times NaN is NaN).
                let position = match ask {
                    Ask::ALL_LOGITS => AT,
                    _ => 9,
                };
                let expected = NotFinite {
                    sequence: 1,
                    position,
                };
                assert!(
                    matches!(&found_error, Err(RowError::NotFinite(error)) if *error == expected),
                    "{name}, {kind}, {ask:?}: {found_error:?}"
                );
                // Keys and values that are NaN lie behind the end of the next sequence on these pages, which must
                // not notice them: as a prompt, and as the decode steps behind it.
                let after = short(&mut *backend);
                assert!(after == before, "{name}, {kind}, {ask:?}");
            }
        }
    }
}

/// Steps of one token each: as they are, recorded, replayed and sent ahead, in batches for each kind of kernels.
#[test]
fn a_decode_step_with_a_broken_token_spoils_no_other() {
    let _lock = device_lock();
    const TOKEN: u32 = 77;
    // Each step runs three times: as it is, recorded and replayed.
    for name in [NAMES[0], NAMES[3]] {
        let model = broken_model(name, TOKEN);
        for (kind, mut backend) in backends(&model) {
            for n in [1, 3, 6] {
                let broken = n / 2;
                let sound = texts(n, 10, model.vocab(), TOKEN);
                let until = |length: usize| -> Vec<Vec<u32>> {
                    sound.iter().map(|text| text[..length].to_vec()).collect()
                };
                step(&mut *backend, &until(7), 0, Ask::NOTHING);
                for ask in [Ask::GREEDY, drawn(DRAW), Ask::LOGITS] {
                    for length in 8..10 {
                        let mut texts = until(length);
                        let mut expected = step(&mut *backend, &texts, length - 1, ask);
                        let (sequence, position) = (broken, length - 1);
                        expected[broken] = Err(NotFinite { sequence, position }.into());
                        texts[broken][length - 1] = TOKEN;
                        let found = step(&mut *backend, &texts, length - 1, ask);
                        let what = format!("{name}, {kind}, {n} sequences, {ask:?}");
                        assert!(found == expected, "{what}: {:?}", found[broken]);
                        // The next step is sound again.
                        step(&mut *backend, &until(length), length - 1, ask);
                    }
                }
            }
        }
    }
}

/// A text that is written greedily comes to a token that is broken: by then, the step with it is under way, and the
/// step behind that is sent before anybody knows.
#[test]
fn a_step_sent_ahead_reports_what_is_broken() {
    let _lock = device_lock();
    let name = "tiny-qwen2-f16-1";
    fn row(tokens: NewTokens<'_>, start: usize) -> Row<'_> {
        Row {
            tokens,
            start,
            pages: &[0, 1],
            ask: Ask::GREEDY,
        }
    }
    let write =
        |model: &Arc<Model>, prompt: usize, tokens: usize| -> (Vec<u32>, Option<NotFinite>) {
            let mut backend = gpu(model, ActivationPrecision::F16);
            let mut all = text(prompt, 5, model.vocab());
            let prompt = row(NewTokens::Known(&all), 0);
            let mut before = backend.submit(&[prompt], &mut NoTrace).expect("a prompt");
            while all.len() < 5 + tokens {
                let next = row(NewTokens::ChosenBy(before, 0), all.len());
                let next = backend.submit(&[next], &mut NoTrace).expect("a step");
                let result = backend.collect(before).expect("results").remove(0);
                before = next;
                match result {
                    Ok(output) => all.push(output.token().expect("a token")),
                    Err(RowError::NotFinite(error)) => {
                        // What was sent behind it is for nothing: with a sound token the text goes on.
                        backend.collect(next).expect("results");
                        let last = all.len() - 1;
                        all[last] = all[0];
                        let next = step(&mut backend, &[all.clone()], last, Ask::GREEDY).remove(0);
                        assert!(next.is_ok(), "{next:?}");
                        return (all, Some(error));
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            (all, None)
        };
    // A text in which a token comes up for the first time when steps are recorded and replayed.
    let model = broken_model(name, 0);
    let late = (1..20).find_map(|prompt| {
        let (sound, error) = write(&model, prompt, 8);
        let is_new = |&at: &usize| !sound[..at].contains(&sound[at]);
        let at = (8..sound.len() - 1).find(is_new)?;
        error.is_none().then(|| (prompt, at, sound[at]))
    });
    let (prompt, at, token) = late.expect("a token that comes up late");
    let (_, error) = write(&broken_model(name, token), prompt, 8);
    let expected = NotFinite {
        sequence: 0,
        position: at,
    };
    assert_eq!(error, Some(expected));
}

#[test]
fn the_engine_gives_the_error_to_the_sequence_that_has_it() {
    let _lock = device_lock();
    const TOKEN: u32 = 77;
    let model = broken_model(NAMES[0], TOKEN);
    for (kind, backend) in backends(&model) {
        let mut engine = Engine::new(backend, CONTEXT, 16);
        let mut sequences = [Sequence::new(), Sequence::new()];
        for sequence in &mut sequences {
            let prompt = engine.prefill(sequence, &[1, 2, 3], Ask::GREEDY, &RUN);
            prompt.expect("a prompt");
        }
        let mut batch: Vec<Decode<'_>> = sequences
            .iter_mut()
            .zip([5, TOKEN])
            .map(|(sequence, token)| Decode {
                sequence,
                token,
                ask: Ask::GREEDY,
            })
            .collect();
        let results = engine.decode(&mut batch).expect("a step");
        assert!(
            matches!(&results[0], Ok(output) if output.token().is_some()),
            "{kind}: {results:?}"
        );
        match &results[1] {
            Err(error @ EngineError::Row(RowError::NotFinite(_))) => {
                let text = error.to_string();
                assert!(text.contains("position 3 of sequence 1"), "{kind}: {text}");
            }
            other => panic!("{kind}: {other:?}"),
        }
        let prompt = engine.prefill(&mut Sequence::new(), &[1, TOKEN], Ask::LOGITS, &RUN);
        assert!(
            matches!(prompt, Err(EngineError::Row(RowError::NotFinite(_)))),
            "{kind}: {prompt:?}"
        );
    }
}

/// Of eight rows that ask for different things one has a NaN, one a mask and one a bias that leave nothing: each of
/// them fails, and the others get what they get beside sound ones.
#[test]
fn of_eight_rows_those_that_fail_fail_alone() {
    let _lock = device_lock();
    const TOKEN: u32 = 77;
    const BROKEN: usize = 3;
    const MASKED: usize = 5;
    const BIASED: usize = 6;
    for name in [NAMES[0], NAMES[2]] {
        let model = broken_model(name, TOKEN);
        let vocab = model.vocab();
        let masks = [0, u32::MAX].map(|word| vec![word; vocab.div_ceil(32)]);
        let forbids = |bias| (0..vocab as u32).map(|token| (token, bias)).collect();
        let biases: [Vec<(u32, f32)>; 2] = [f32::NEG_INFINITY, -1.0].map(forbids);
        let choose = |choice| Ask {
            choose: Some(choice),
            report: Report::Nothing,
        };
        let asks = |allows: [bool; 2]| {
            let mask = Some(masks[usize::from(allows[0])].as_slice());
            let bias = biases[usize::from(allows[1])].as_slice();
            let masked = Choice {
                mask,
                ..Choice::GREEDY
            };
            let biased = Choice {
                bias,
                ..Choice::GREEDY
            };
            [
                Ask::GREEDY,
                drawn(DRAW),
                Ask::LOGITS,
                Ask::GREEDY,
                Ask {
                    report: Report::TopLogprobs(3),
                    ..drawn(DRAW)
                },
                choose(masked),
                choose(biased),
                Ask::GREEDY,
            ]
        };
        let sound = texts(8, 9, vocab, TOKEN);
        // So many rows are multiplied in f16 in any case.
        let backends = backends(&model)
            .into_iter()
            .filter(|&(kind, _)| kind != "q8");
        for (kind, mut backend) in backends {
            // A chunk of three tokens each, and one token each.
            for start in [6, 8] {
                let before: Vec<Vec<u32>> =
                    sound.iter().map(|text| text[..start].to_vec()).collect();
                step(&mut *backend, &before, 0, Ask::NOTHING);
                let mut run = |is_broken: bool, allows: [bool; 2]| {
                    let mut texts = sound.clone();
                    let last = texts[BROKEN].last_mut().expect("a token");
                    *last = if is_broken { TOKEN } else { *last };
                    let pages: Vec<u32> = (0..8).map(|s| 2 * s).collect();
                    let rows: Vec<Row<'_>> = (0..8)
                        .map(|s| Row {
                            tokens: NewTokens::Known(&texts[s][start..]),
                            start,
                            pages: &pages[s..=s],
                            ask: asks(allows)[s],
                        })
                        .collect();
                    // As it is, recorded and replayed.
                    let results = [(); 3].map(|()| backend.step(&rows, &mut NoTrace));
                    let [first, second, third] = results.map(|results| results.expect("a step"));
                    assert!(first == second && second == third, "{name}, {kind}");
                    first
                };
                let expected = run(false, [true; 2]);
                assert!(
                    expected.iter().all(Result::is_ok),
                    "{name}, {kind}: {expected:?}"
                );
                let position = 8;
                for (is_broken, allows) in [
                    (true, [true, true]),
                    (false, [false, true]),
                    (false, [true, false]),
                    (true, [false, false]),
                ] {
                    let mut expected = expected.clone();
                    if is_broken {
                        let sequence = BROKEN;
                        expected[BROKEN] = Err(NotFinite { sequence, position }.into());
                    }
                    for (row, allowed) in [(MASKED, allows[0]), (BIASED, allows[1])] {
                        if !allowed {
                            expected[row] = Err(RowError::NothingAllowed { position });
                        }
                    }
                    let found = run(is_broken, allows);
                    let what = format!("{name}, {kind}, from {start}: {is_broken}, {allows:?}");
                    for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        assert!(found == expected, "{what}: row {row} got {found:?}");
                    }
                }
            }
        }
    }
}
