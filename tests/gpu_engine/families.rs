//! Families whose references are llama.cpp's, in float32: prompts, decoding, batches, and steps that are deterministic.
//! `tests/tools/verify_families.sh` verifies them operation by operation, and all of their files.

use hyperion::backend::{ActivationPrecision, Ask, NoTrace, RecordedTensor, Recorder, TraceSink};
use hyperion::cpu::CpuBackend;
use hyperion::engine::{Decode, Engine, Sequence};
use hyperion::gpu::{Arithmetic, GpuBackend, Limits};
use hyperion::sampling::argmax;

use crate::setup::*;
use crate::support::families::Family;
use crate::support::greedy::{Follower, RunnersUp};
use crate::support::relative_error;

/// What is new in each family: factors and a product of several types; layers without RoPE; both kinds of RoPE's
/// factors, a part of each head rotated, and fused matrices; norms behind blocks and over all heads, and windows;
/// experts beside a shared one, and experts of plain matrices; YaRN and a temperature of queries. Each token takes all of these: where the roundings of
/// blocks before may swap two of many that nearly tie, only `each_operation_alone` and `verify` can tell.
const FAMILIES: [(&str, usize); 9] = [
    ("granite-mixed", 512),
    ("smollm3-mixed", 512),
    ("phi3-mixed", 256),
    ("olmo2-gqa", 512),
    ("olmo2-windows", 512),
    ("qwen2moe-all", 512),
    ("mixtral-all", 512),
    ("mistral3-mixed", 512),
    ("mistral3-experts", 512),
];
/// Tokens of a step: over the ends of pages and windows.
const CHUNK: usize = 150;
const DECODED: usize = 8;

fn engine(family: &Family) -> Engine {
    let limits = Limits {
        context: family.context,
        n_pages: family.context / 64,
        max_tokens: CHUNK,
        max_sequences: 1,
    };
    let backend = gpu_within(&family.model, ActivationPrecision::F16, limits);
    Engine::new(Box::new(backend), family.context, CHUNK)
}

/// What a prompt's steps report, put together.
fn joined(steps: Vec<Vec<RecordedTensor>>) -> Vec<RecordedTensor> {
    let mut steps = steps.into_iter();
    let mut all = steps.next().expect("a step");
    for tensor in steps.flatten() {
        let same = all.iter_mut().find(|other| other.name == tensor.name);
        same.expect("tensors of every step")
            .data
            .extend(tensor.data);
    }
    all
}

#[test]
fn prompts_layer_by_layer_and_greedy_tokens() {
    let _lock = device_lock();
    for (name, context) in FAMILIES {
        let family = Family::open(name, context);
        let (mut engine, mut sequence) = (engine(&family), Sequence::new());
        let (mut steps, mut logits, mut token) = (Vec::new(), Vec::new(), 0);
        let chunks: Vec<&[u32]> = family.tokens.chunks(CHUNK).collect();
        for chunk in chunks {
            let mut trace = Recorder::new(|name| name.base == "l_out");
            let sink: &mut dyn TraceSink = &mut trace;
            let output = engine.prefill_traced(&mut sequence, chunk, Ask::ALL_LOGITS, &RUN, sink);
            let output = output.expect("a prefill");
            let vocab = family.model.vocab();
            token = argmax(&output.logits[output.logits.len() - vocab..]);
            logits.extend(output.logits);
            steps.push(trace.tensors);
        }
        let recorded = joined(steps);
        for (tensor, found, expected) in family.layers(&recorded) {
            let error = relative_error(&found, &expected);
            assert!(error < F16_BOUND, "{name}: {tensor} is off by {error:.2e}");
        }
        let vocab = family.model.vocab();
        let rows = family.rows("logits");
        let found = rows
            .iter()
            .flat_map(|(at, _)| &logits[at * vocab..][..vocab]);
        let found: Vec<f32> = found.copied().collect();
        let expected: Vec<f32> = rows.iter().flat_map(|(_, row)| row).copied().collect();
        let error = relative_error(&found, &expected);
        assert!(error < F16_BOUND, "{name}: logits are off by {error:.2e}");

        let mut follower = Follower::new(family.greedy_text());
        let mut runners_up = RunnersUp::new(family.model.clone());
        while follower.compared() < DECODED {
            let token_of_text = follower.next(token, 0.02, &mut runners_up);
            let item = Decode {
                sequence: &mut sequence,
                token: token_of_text.expect("more text"),
                ask: Ask::GREEDY,
            };
            let results = engine.decode(&mut [item]).expect("a step");
            let output = results.into_iter().next().expect("one").expect("room");
            token = output.token().expect("a token");
        }
    }
}

/// More sequences than the matrix-vector kernels take.
#[test]
fn batches_and_deterministic_steps() {
    let _lock = device_lock();
    const LENGTHS: [usize; 5] = [70, 3, 64, 1, 100];
    for (name, context) in FAMILIES {
        let model = Family::open(name, context).model.for_context(CONTEXT);
        let members = [0, 1, 2, 3, 4].map(|s| Member {
            text: text(s, LENGTHS[s] + 2, model.vocab()),
            length: LENGTHS[s],
            pages: [2 * s as u32 + 1, 2 * s as u32],
        });
        let cpu = || CpuBackend::new(model.clone(), 16);
        let expected = run_batch(&mut cpu(), &members, &mut NoTrace);
        let rounded = run_batch(&mut cpu(), &members, &mut RoundToF16::default());
        let ours = run_batch(
            &mut gpu(&model, ActivationPrecision::F16),
            &members,
            &mut NoTrace,
        );
        let shares: Vec<f64> = (0..ours.len())
            .map(|i| share_of_bound(&ours[i], &expected[i], &rounded[i]))
            .collect();
        assert_close(&shares, name);

        let arithmetic = Arithmetic {
            is_deterministic: true,
            ..ActivationPrecision::F16.into()
        };
        let limits = Limits {
            context: CONTEXT,
            n_pages: 16,
            max_tokens: 64,
            max_sequences: 5,
        };
        let mut exact = GpuBackend::new(
            model.clone(),
            device(),
            limits,
            arithmetic,
            &RUN,
            &mut |_| {},
        )
        .expect("a backend");
        let together = run_batch(&mut exact, &members, &mut NoTrace);
        let shares: Vec<f64> = (0..together.len())
            .map(|i| share_of_bound(&together[i], &expected[i], &rounded[i]))
            .collect();
        assert_close(&shares, &format!("{name}, deterministic"));
        let alone = run_batch(&mut exact, &members[4..], &mut NoTrace);
        for (step, alone) in alone.iter().enumerate() {
            assert_eq!(*alone, together[5 * step + 4], "{name}: step {step} alone");
        }
    }
}
