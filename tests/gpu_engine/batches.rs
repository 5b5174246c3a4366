//! Steps of more sequences than the matrix-vector kernels take.

use std::ops::Range;

use hyperion::backend::{
    ActivationPrecision, Ask, Backend, Draw, NewTokens, NoTrace, Output, Row, TraceSink,
};
use hyperion::cpu::CpuBackend;
use hyperion::gpu::Limits;
use hyperion::model::Model;
use hyperion::sampling::argmax;
use hyperion::verify::{Bounds, Plan, StepKind, verify};

use crate::setup::*;
use crate::support::relative_error;

/// Some are at the end of a page or over it, in a batch of any size; most are short, because each token is simulated.
fn length(sequence: usize) -> usize {
    match sequence {
        ..5 => [63, 3, 70, 1, 17][sequence],
        _ => [2, 9, 4, 1, 6][sequence % 5],
    }
}

/// Sequences of different lengths, whose pages lie anywhere.
fn members(n: usize, model: &Model) -> Vec<Member> {
    let page = |i: usize| (i * 13 % PAGES) as u32;
    let members = (0..n).map(|s| {
        let length = length(s);
        Member {
            text: text(s, length + STEPS, model.vocab()),
            length,
            pages: [page(2 * s), page(2 * s + 1)],
        }
    });
    members.collect()
}

/// The first step of its kind runs as it is, the second one is recorded, the third one is a replay: steps of 6 and of
/// 16, whereas those of 20 have no graph.
const STEPS: usize = 3;

#[test]
fn batches_give_each_sequence_its_own() {
    let _lock = device_lock();
    for (name, n) in [
        ("tiny-llama-q4_0-2", 6),
        ("tiny-llama-q4_k_m-1", 20),
        ("tiny-qwen2-f16-1", 16),
        ("tiny-qwen2-q4_k_m-2", 16),
        ("tiny-qwen3-q8_0-1", 6),
        ("tiny-gemma3-q4_k_m-1", 20),
    ] {
        let model = model(name);
        let mut members = members(n, &model);
        let cpu = || CpuBackend::new(model.clone(), PAGES);
        let expected = run_batch(&mut cpu(), &members, &mut NoTrace);
        let rounded = run_batch(&mut cpu(), &members, &mut RoundToF16::default());
        let mut gpu = gpu(&model, ActivationPrecision::F16);
        let ours = run_batch(&mut gpu, &members, &mut NoTrace);
        assert_eq!(ours.len(), n * STEPS);
        let shares: Vec<f64> = (0..ours.len())
            .map(|i| share_of_bound(&ours[i], &expected[i], &rounded[i]))
            .collect();
        assert_close(&shares, &format!("{name}, {n} sequences"));
        // Alone, the products are those of other kernels, which do not round weights to f16.
        let alone = [0, n / 2, n - 1].map(|of| {
            let alone = run_batch(&mut gpu, &members[of..=of], &mut NoTrace);
            let steps = alone.iter().enumerate();
            let shares = steps.map(|(step, alone)| {
                let i = n * step + of;
                relative_error(alone, &ours[i]) / bound(&expected[i], &rounded[i])
            });
            shares.collect::<Vec<f64>>()
        });
        assert_close(&alone.concat(), &format!("{name}, each of {n} alone"));
        // Where a sequence lies in the step changes nothing.
        members.reverse();
        let reversed = decode_batch(&mut gpu, &members, &mut NoTrace);
        for (step, reversed) in reversed.chunks(n).enumerate() {
            for (of, logits) in reversed.iter().rev().enumerate() {
                assert!(
                    *logits == ours[n * step + of],
                    "{name}: sequence {of} of {n} differs in step {step} by its place"
                );
            }
        }
    }
}

/// Steps whose tokens the device chooses, again and again: as they are, recorded and replayed.
#[test]
fn batches_whose_tokens_are_chosen_on_the_device() {
    let _lock = device_lock();
    let model = model("tiny-qwen3-q8_0-1");
    for n in [6, 20] {
        let members = members(n, &model);
        let mut gpu = gpu(&model, ActivationPrecision::F16);
        let mut logits = run_batch(&mut gpu, &members, &mut NoTrace);
        let last = logits.split_off(n * (STEPS - 1));
        let likeliest: Vec<u32> = last.iter().map(|logits| argmax(logits)).collect();
        let mut tokens = |ask: &dyn Fn(usize) -> Ask<'static>| -> Vec<u32> {
            let steps = batch_step(&members, STEPS - 1, ask);
            let outputs = sound(gpu.step(&steps, &mut NoTrace).expect("a step"));
            let tokens = outputs.iter().map(|output| output.token());
            tokens.collect::<Option<_>>().expect("a token of each")
        };
        for _ in 0..STEPS {
            assert_eq!(tokens(&|_| Ask::GREEDY), likeliest, "{n} sequences");
        }
        // Every third sequence has but one token to draw from, all others the likeliest two: at this
        // temperature both have a share of the random numbers.
        let has_one = |s: usize| s.is_multiple_of(3);
        let draw = |uniform: Range<f32>| {
            move |s: usize| {
                let position = length(s) + STEPS - 1;
                drawn(Draw {
                    temperature: 5.0,
                    top_k: if has_one(s) { 1 } else { 2 },
                    top_p: 1.0,
                    min_p: 0.0,
                    typical_p: 1.0,
                    seed: seed_in(uniform.clone(), position),
                })
            }
        };
        for _ in 0..STEPS {
            let ends = [0.0..0.001, 0.999..1.0].map(|uniform| tokens(&draw(uniform)));
            for (s, logits) in last.iter().enumerate() {
                let mut drawn = ends.each_ref().map(|tokens| tokens[s]);
                let mut order: Vec<u32> = (0..model.vocab() as u32).collect();
                order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
                let mut expected = [order[0], order[usize::from(!has_one(s))]];
                drawn.sort_unstable();
                expected.sort_unstable();
                assert_eq!(drawn, expected, "sequence {s} of {n}");
            }
        }
    }
}

/// Steps of more tokens than products straight from the blocks take, and of more sequences than the kernels for
/// decoding take.
#[test]
fn a_long_prompt_and_a_step_of_many_sequences() {
    const SEQUENCES: usize = 10;
    let _lock = device_lock();
    for name in ["tiny-llama-q4_k_m-1", "tiny-qwen3-q8_0-1"] {
        let model = model(name);
        let vocab = model.vocab();
        // The first sequence has the long prompt, and alone needs a second page.
        let prompt = |sequence: usize| if sequence == 0 { 100 } else { 4 };
        let texts: Vec<Vec<u32>> = (0..SEQUENCES)
            .map(|s| text(s, prompt(s) + 1, vocab))
            .collect();
        let pages: Vec<[u32; 2]> = (0..SEQUENCES as u32).map(|s| [s, 15]).collect();
        let step = |s: usize, start: usize, end: usize, ask| Row {
            tokens: NewTokens::Known(&texts[s][start..end]),
            start,
            pages: &pages[s],
            ask,
        };
        let last = |s: usize, ask| step(s, prompt(s), prompt(s) + 1, ask);
        let run = |backend: &mut dyn Backend, sink: &mut dyn TraceSink| {
            let mut all = Vec::new();
            for s in 0..SEQUENCES {
                let prompt = step(s, 0, prompt(s), Ask::ALL_LOGITS);
                all.extend(backend.step(&[prompt], sink).expect("a prompt"));
            }
            let steps: Vec<_> = (0..SEQUENCES).map(|s| last(s, Ask::LOGITS)).collect();
            all.extend(backend.step(&steps, sink).expect("a step"));
            sound(all)
                .into_iter()
                .flat_map(logits)
                .collect::<Vec<f32>>()
        };
        let cpu = || CpuBackend::new(model.clone(), PAGES);
        let expected = run(&mut cpu(), &mut NoTrace);
        let rounded = run(&mut cpu(), &mut RoundToF16::default());
        let mut backend = gpu(&model, ActivationPrecision::F16);
        let ours = run(&mut backend, &mut NoTrace);
        assert_eq!(ours.len(), (100 + 9 * 4 + SEQUENCES) * vocab);
        let row = |values: &[f32], t: usize| values[t * vocab..][..vocab].to_vec();
        let shares: Vec<f64> = (0..ours.len() / vocab)
            .map(|t| share_of_bound(&row(&ours, t), &row(&expected, t), &row(&rounded, t)))
            .collect();
        assert_close(&shares, name);

        // The same step once more, for the likeliest tokens of all but one.
        let ask = |s: usize| if s == 4 { Ask::NOTHING } else { Ask::GREEDY };
        let steps: Vec<_> = (0..SEQUENCES).map(|s| last(s, ask(s))).collect();
        let outputs = backend.step(&steps, &mut NoTrace).expect("a step");
        let first = ours.len() / vocab - SEQUENCES;
        for (s, output) in sound(outputs).into_iter().enumerate() {
            let likeliest = argmax(&row(&ours, first + s));
            let expected = match s {
                4 => Output::default(),
                _ => token(likeliest),
            };
            assert_eq!(output, expected, "{name}: sequence {s}");
        }
    }
}

/// Steps of some sequences round vectors to 8 bits where there are kernels for all of a model's matrices; those of more
/// sequences, and of models with other matrices, to f16. Each operation is held against the reference, which starts from
/// the very same values, at the bounds that follow.
#[test]
fn batches_in_8_bits_are_proven() {
    let _lock = device_lock();
    for (name, batch) in [
        ("tiny-llama-q4_0-2", 3),
        ("tiny-llama-q4_k_m-1", 9),
        ("tiny-qwen2-q4_k_m-2", 17),
        ("tiny-qwen3-q8_0-1", 33),
        ("tiny-qwen3-q5_k_m-2", 25),
        ("tiny-gemma3-q4_k_m-1", 5),
        ("tiny-qwen2-f16-1", 6),
    ] {
        let model = model(name);
        let tokens = text(0, batch + 3, model.vocab());
        let plan = Plan {
            tokens: &tokens,
            chunk: 90,
            decode_steps: 1,
            batch,
        };
        let limits = Limits {
            context: CONTEXT,
            n_pages: plan.pages(),
            max_tokens: 128,
            max_sequences: 64,
        };
        let mut gpu = gpu_within(&model, ActivationPrecision::Q8, limits);
        let mut reference = CpuBackend::new(model.clone(), plan.pages());
        let bounds = Bounds::new(&model, Some(ActivationPrecision::Q8));
        let mut in_8_bits = false;
        let report = verify(&mut gpu, &mut reference, &plan, &bounds, &mut |step| {
            // Only the steps of f16 report a norm by itself.
            let has_norm = step.tensors.iter().any(|t| t.name.base == "attn_norm");
            in_8_bits |= step.kind == StepKind::Batch && !has_norm;
        })
        .expect("a run");
        assert!(report.passed(), "{name}: {:?}", report.first_fault());
        let batches = report
            .steps
            .iter()
            .filter(|step| step.kind == StepKind::Batch);
        let tokens: Vec<usize> = batches.map(|step| step.tokens).collect();
        assert_eq!(tokens, [batch], "{name}");
        let expected = batch <= 32 && name != "tiny-qwen2-f16-1";
        assert_eq!(in_8_bits, expected, "{name} with {batch} sequences");
    }
}
