//! Logits that are not finite: an error of the sequence that has them and of no other, on every path.

use std::sync::Arc;

use hyperion::backend::{
    ActivationPrecision, Backend, Draw, NoTrace, NotFinite, Output, SequenceStep, Want,
};
use hyperion::cpu::CpuBackend;
use hyperion::engine::{Decode, Engine, EngineError, Sequence};
use hyperion::gguf::Gguf;
use hyperion::model::Model;

use crate::setup::*;
use crate::support::broken::with_broken_token;
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

const DRAW: Want = Want::Draw(Draw {
    temperature: 0.8,
    top_k: 40,
    top_p: 0.95,
    min_p: 0.05,
    uniform: 0.5,
});
const WANTS: [Want; 4] = [Want::Argmax, DRAW, Want::LastLogits, Want::AllLogits];

/// One step of sequences with these tokens from `start` on, each on two pages of its own.
fn step(backend: &mut dyn Backend, texts: &[Vec<u32>], start: usize, want: Want) -> Vec<Output> {
    let pages: Vec<[u32; 2]> = (0..texts.len() as u32)
        .map(|s| [2 * s, 2 * s + 1])
        .collect();
    let steps: Vec<SequenceStep<'_>> = texts
        .iter()
        .zip(&pages)
        .map(|(text, pages)| SequenceStep {
            tokens: &text[start..],
            start,
            pages,
            want,
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
        let short = |backend: &mut dyn Backend| -> Vec<Output> {
            let until = |length: usize| -> Vec<Vec<u32>> {
                sound.iter().map(|text| text[..length].to_vec()).collect()
            };
            let mut outputs = step(backend, &until(3), 0, Want::LastLogits);
            outputs.extend(step(backend, &until(4), 3, Want::LastLogits));
            outputs
        };
        for (kind, mut backend) in backends(&model) {
            for want in WANTS {
                let before = short(&mut *backend);
                let mut expected = step(&mut *backend, &sound, 0, want);
                let mut found = step(&mut *backend, &broken, 0, want);
                let (expected_error, found_error) = (expected.remove(1), found.remove(1));
                assert!(expected == found, "{name}, {kind}, {want:?}: others");
                assert!(
                    !matches!(expected_error, Output::NotFinite(_)),
                    "{name}, {kind}"
                );
                // All logits: the first ones that the token takes part in, not those before it, whose weight for it
                // is 0 (and 0 times NaN is NaN).
                let position = match want {
                    Want::AllLogits => AT,
                    _ => 9,
                };
                let expected = NotFinite {
                    sequence: 1,
                    position,
                };
                assert!(
                    matches!(&found_error, Output::NotFinite(error) if *error == expected),
                    "{name}, {kind}, {want:?}: {found_error:?}"
                );
                // Keys and values that are NaN lie behind the end of the next sequence on these pages, which must
                // not notice them: as a prompt, and as the decode steps behind it.
                let after = short(&mut *backend);
                assert!(after == before, "{name}, {kind}, {want:?}");
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
                for want in [Want::Argmax, DRAW, Want::LastLogits] {
                    step(&mut *backend, &until(7), 0, Want::Nothing);
                    for length in 8..10 {
                        let mut texts = until(length);
                        let mut expected = step(&mut *backend, &texts, length - 1, want);
                        expected[broken] = Output::NotFinite(NotFinite {
                            sequence: broken,
                            position: length - 1,
                        });
                        texts[broken][length - 1] = TOKEN;
                        let found = step(&mut *backend, &texts, length - 1, want);
                        let what = format!("{name}, {kind}, {n} sequences, {want:?}");
                        assert!(found == expected, "{what}: {:?}", found[broken]);
                        // The next step is sound again.
                        step(&mut *backend, &until(length), length - 1, want);
                    }
                }
            }
        }
    }
}

/// A text that is written greedily comes to a token that is broken: by then, the step with it has been sent ahead.
#[test]
fn a_step_sent_ahead_reports_what_is_broken() {
    let _lock = device_lock();
    let name = "tiny-qwen2-f16-1";
    let write =
        |model: &Arc<Model>, prompt: usize, tokens: usize| -> (Vec<u32>, Option<NotFinite>) {
            let mut backend = gpu(model, ActivationPrecision::F16);
            let mut all = text(prompt, 5, model.vocab());
            let mut start = 0;
            while all.len() < 5 + tokens {
                match step(&mut backend, &[all.clone()], start, Want::Argmax).remove(0) {
                    Output::Token(token) => {
                        start = all.len();
                        all.push(token);
                    }
                    Output::NotFinite(error) => {
                        // What was sent behind it is dropped: with a sound token the text goes on.
                        let last = all.len() - 1;
                        all[last] = all[0];
                        let next = step(&mut backend, &[all.clone()], last, Want::Argmax).remove(0);
                        assert!(matches!(next, Output::Token(_)), "{next:?}");
                        return (all, Some(error));
                    }
                    other => panic!("{other:?} instead of a token"),
                }
            }
            (all, None)
        };
    // A text in which a token comes up for the first time when its step has been sent ahead: from the third step
    // on, which is at the fourth token behind the prompt of five.
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
            let prompt = engine.prefill(sequence, &[1, 2, 3], Want::Argmax, &RUN);
            prompt.expect("a prompt");
        }
        let mut batch: Vec<Decode<'_>> = sequences
            .iter_mut()
            .zip([5, TOKEN])
            .map(|(sequence, token)| Decode {
                sequence,
                token,
                want: Want::Argmax,
            })
            .collect();
        let results = engine.decode(&mut batch).expect("a step");
        assert!(
            matches!(results[0], Ok(Output::Token(_))),
            "{kind}: {results:?}"
        );
        match &results[1] {
            Err(error @ EngineError::NotFinite(_)) => {
                let text = error.to_string();
                assert!(text.contains("position 3 of sequence 1"), "{kind}: {text}");
            }
            other => panic!("{kind}: {other:?}"),
        }
        let prompt = engine.prefill(&mut Sequence::new(), &[1, TOKEN], Want::LastLogits, &RUN);
        assert!(
            matches!(prompt, Err(EngineError::NotFinite(_))),
            "{kind}: {prompt:?}"
        );
    }
}
