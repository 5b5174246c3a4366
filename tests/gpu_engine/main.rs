//! The GPU engine on tiny models against values that were computed in float32 elsewhere and against
//! the CPU reference. It runs on the simulator with the kernels that an H100 runs, whose waits for each other
//! are checked; with those for earlier GPUs by HYPERION_TEST_DEVICE=sim, or on a GPU by HYPERION_TEST_DEVICE=cuda.

mod ahead;
mod ask_cases;
mod asks;
mod batches;
mod broken;
mod choice_reference;
mod families;
mod memory;
mod mixed;
mod refused;
mod setup;
#[path = "../support/mod.rs"]
mod support;
mod wide;

use hyperion::backend::{
    ActivationPrecision, Ask, Backend, Draw, NewTokens, NoTrace, Output, PAGE_TOKENS, Recorder, Row,
};
use hyperion::cpu::CpuBackend;
use hyperion::engine::{Engine, Sequence};
use hyperion::verify::Isolate;
use setup::*;
use support::families::Family;
use support::greedy::{GreedyText, RunnersUp, compare_texts};
use support::{Reference, TINY_MODELS, relative_error};

fn tokens(reference: &Reference) -> Vec<u32> {
    let tokens = reference.i32("tokens").1;
    tokens.iter().map(|&token| token as u32).collect()
}

#[test]
fn prefill_in_one_step_and_in_chunks() {
    let _lock = device_lock();
    for name in TINY_MODELS {
        let reference = Reference::open(&format!("tiny/{name}.safetensors"));
        let (tokens, expected) = (tokens(&reference), reference.f32("logits").1);
        let model = model(name);
        let vocab = model.vocab();
        let rounded = {
            let backend = CpuBackend::new(model.clone(), 16);
            let mut engine = Engine::new(Box::new(backend), CONTEXT, 64);
            let mut sink = RoundToF16::default();
            let output = engine.prefill_traced(
                &mut Sequence::new(),
                &tokens,
                Ask::ALL_LOGITS,
                &RUN,
                &mut sink,
            );
            logits(output.expect("a prefill"))
        };
        for chunk in [64, 5] {
            let backend = gpu(&model, ActivationPrecision::F16);
            let mut engine = Engine::new(Box::new(backend), CONTEXT, chunk);
            let mut sequence = Sequence::new();
            let mut all = Vec::new();
            for part in tokens.chunks(chunk) {
                let output = engine.prefill(&mut sequence, part, Ask::ALL_LOGITS, &RUN);
                all.extend(logits(output.expect("a prefill")));
            }
            assert_eq!(all.len(), tokens.len() * vocab);
            let row = |values: &[f32], t: usize| values[t * vocab..][..vocab].to_vec();
            let shares: Vec<f64> = (0..tokens.len())
                .map(|t| share_of_bound(&row(&all, t), &row(&expected, t), &row(&rounded, t)))
                .collect();
            assert_close(&shares, &format!("{name}, chunks of {chunk}"));
        }
    }
}

#[test]
fn greedy_tokens() {
    let _lock = device_lock();
    for name in TINY_MODELS {
        let reference = Reference::open(&format!("tiny/{name}.safetensors"));
        let greedy: Vec<u32> = reference
            .i32("greedy")
            .1
            .iter()
            .map(|&t| t as u32)
            .collect();
        let text = GreedyText {
            name,
            prompt: &tokens(&reference),
            greedy: &greedy,
            gaps: &reference.f32("greedy_gap").1,
        };
        let model = model(name);
        let mut runners_up = RunnersUp::new(model.clone());
        let mut engine = Engine::new(Box::new(gpu(&model, ActivationPrecision::F16)), CONTEXT, 64);
        let compared = compare_texts(&mut engine, &[text], 0.05, &mut runners_up);
        assert_eq!(compared, 64, "{name}");
    }
}

/// Pages in an order that no sequence would get from the pool.
const SCATTERED: [[u32; 2]; 3] = [[9, 2], [5, 13], [0, 7]];
const LENGTHS: [usize; 3] = [70, 3, 64];

#[test]
fn three_sequences_with_scattered_pages() {
    let _lock = device_lock();
    assert_eq!(PAGE_TOKENS, 64, "LENGTHS cross a page border");
    for name in [
        "tiny-qwen2-q4_k_m-2",
        "tiny-gemma3-q4_k_m-1",
        "tiny-llama-q4_0-2",
    ] {
        let model = model(name);
        let cpu = || CpuBackend::new(model.clone(), 16);
        let members = [0, 1, 2].map(|s| Member {
            text: text(s, LENGTHS[s] + 2, model.vocab()),
            length: LENGTHS[s],
            pages: SCATTERED[s],
        });
        let expected = run_batch(&mut cpu(), &members, &mut NoTrace);
        let rounded = run_batch(&mut cpu(), &members, &mut RoundToF16::default());
        let mut gpu = gpu(&model, ActivationPrecision::F16);
        let ours = run_batch(&mut gpu, &members, &mut NoTrace);
        let shares: Vec<f64> = (0..ours.len())
            .map(|i| share_of_bound(&ours[i], &expected[i], &rounded[i]))
            .collect();
        assert_close(&shares, name);
        // Alone, the products are those of other kernels, which add in another order.
        for of in 0..3 {
            let alone = run_batch(&mut gpu, &members[of..=of], &mut NoTrace);
            for (step, alone) in alone.iter().enumerate() {
                let error = relative_error(alone, &ours[3 * step + of]);
                assert!(
                    error < 1e-3,
                    "{name}: sequence {of} alone differs by {error:.2e}"
                );
            }
        }
    }
}

#[test]
fn a_step_of_mixed_sequences_gives_each_its_own() {
    let _lock = device_lock();
    let model = model("tiny-qwen3-q8_0-1");
    let vocab = model.vocab();
    let texts = [text(0, 20, vocab), text(1, 7, vocab), text(2, 1, vocab)];
    let asks = [Ask::ALL_LOGITS, Ask::LOGITS, Ask::GREEDY];
    let run = |backend: &mut dyn Backend| {
        let steps: Vec<Row<'_>> = (0..3)
            .map(|i| Row {
                tokens: NewTokens::Known(&texts[i]),
                start: 0,
                pages: &SCATTERED[i],
                ask: asks[i],
            })
            .collect();
        backend.step(&steps, &mut NoTrace).expect("a step")
    };
    let expected = run(&mut CpuBackend::new(model.clone(), 16));
    let ours = run(&mut gpu(&model, ActivationPrecision::F16));
    for (ours, expected) in ours.into_iter().zip(expected) {
        let (ours, expected) = (ours.expect("an output"), expected.expect("an output"));
        assert_eq!(ours.tokens, expected.tokens);
        if !expected.logits.is_empty() {
            assert!(relative_error(&ours.logits, &expected.logits) < F16_BOUND);
        }
    }
}

/// Prompts of three sequences and then a token each, with three ways to choose the next one.
#[test]
fn tokens_drawn_on_the_device() {
    let _lock = device_lock();
    let model = model("tiny-qwen3-q8_0-1");
    let vocab = model.vocab();
    let prompts = [text(0, 20, vocab), text(1, 7, vocab), text(2, 1, vocab)];
    let draw = |top_k, seed| {
        drawn(Draw {
            temperature: 5.0,
            top_k,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            seed,
        })
    };
    let mut gpu = gpu(&model, ActivationPrecision::F16);
    let mut step = |start: bool, asks: [Ask<'_>; 3]| {
        let steps: Vec<Row<'_>> = (0..3)
            .map(|i| Row {
                tokens: NewTokens::Known(if start { &prompts[i] } else { &prompts[i][..1] }),
                start: if start { 0 } else { prompts[i].len() },
                pages: &SCATTERED[i],
                ask: asks[i],
            })
            .collect();
        sound(gpu.step(&steps, &mut NoTrace).expect("a step"))
    };
    for start in [true, false] {
        // The likeliest two of each sequence.
        let logits = step(start, [Ask::LOGITS; 3]);
        let likeliest = logits.iter().map(|output| {
            let logits = &output.logits;
            assert_eq!(logits.len(), vocab);
            let mut order: Vec<u32> = (0..vocab as u32).collect();
            order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
            [order[0], order[1]]
        });
        let likeliest: Vec<[u32; 2]> = likeliest.collect();
        let first = step(start, [draw(1, 3), Ask::GREEDY, draw(1, 4)]);
        let expected: Vec<Output> = likeliest.iter().map(|&[a, _]| token(a)).collect();
        assert_eq!(first, expected);
        // At this temperature both of two tokens have a share of the random numbers.
        let last = |i: usize| prompts[i].len() - usize::from(start);
        let ends = [0.0..0.001, 0.999..1.0].map(|uniform| {
            let seed = |i| seed_in(uniform.clone(), last(i));
            step(start, [0, 1, 2].map(|i| draw(2, seed(i))))
        });
        for (i, &expected) in likeliest.iter().enumerate() {
            let drawn = ends
                .each_ref()
                .map(|outputs| outputs[i].token().expect("a token"));
            assert!(
                drawn == expected || drawn == [expected[1], expected[0]],
                "sequence {i}: {drawn:?} of {expected:?}"
            );
        }
    }
}

/// Every operation of both kinds of steps, each from the GPU's own inputs: errors do not add up, and
/// the bounds are those of one operation.
#[test]
fn each_operation_alone() {
    let _lock = device_lock();
    let tiny = TINY_MODELS.map(|name| (name, model(name)));
    // Chosen experts: by groups with f16, with a shared one, and few tokens.
    let mixtures = ["qwen3moe-mixed", "qwen2moe-mixed"];
    let mixtures = mixtures.map(|name| (name, Family::open(name, 512).model));
    for (name, model) in tiny.into_iter().chain(mixtures) {
        let text = text(0, 40, model.vocab());
        for (activations, decode_bound) in [
            (ActivationPrecision::F16, 2e-3),
            (ActivationPrecision::Q8, 3e-2),
        ] {
            let mut gpu = gpu(&model, activations);
            let mut cpu = CpuBackend::new(model.clone(), 16);
            for (range, bound) in [
                (0..32, 2e-3),
                (32..33, decode_bound),
                (33..34, decode_bound),
            ] {
                let step = Row {
                    tokens: NewTokens::Known(&text[range.clone()]),
                    start: range.start,
                    pages: &SCATTERED[0],
                    ask: Ask::LOGITS,
                };
                let mut recorder = Recorder::new(|_| true);
                gpu.step(&[step], &mut recorder).expect("a step");
                let mut isolate = Isolate::new(&recorder.tensors);
                cpu.step(&[step], &mut isolate).expect("a reference step");
                assert!(isolate.rows.len() > 8, "{name}: few tensors were compared");
                for row in &isolate.rows {
                    // The last product takes 8-bit activations in every kind of step.
                    let bound = match row.name.base {
                        "result_output" => decode_bound,
                        _ => bound,
                    };
                    assert!(
                        row.lengths.is_none() && row.difference.within(bound),
                        "{name}, {activations:?}, tokens {range:?}: {} is off by {:.2e}",
                        row.name,
                        row.difference.relative
                    );
                }
            }
        }
    }
}
