//! ActivationPrecision that f16 does not hold, in every tiny model and in all kinds of steps.

use std::sync::Arc;

use hyperion::backend::{
    ActivationPrecision, Ask, Backend, NewTokens, NoTrace, Recorder, Row, TensorName, TraceSink,
};
use hyperion::cpu::CpuBackend;
use hyperion::gguf::{GgmlType, Gguf, Tensor};
use hyperion::gpu::multiplies_in_q8;
use hyperion::model::Model;
use hyperion::sampling::argmax;
use hyperion::verify::{Bounds, Plan, verify};
use kernels_gpu::prim::scale::F16_MAX;

use crate::setup::*;
use crate::support::gguf_writer::{GgufWriter, TensorSource};
use crate::support::{TINY_MODELS, fixture_bytes, relative_error};

/// How a model's activations become large.
#[derive(Clone, Copy, Debug)]
enum Edit {
    /// Both factors of the gated product times 300, and the matrix behind it made up for that.
    Factors,
    /// The feed-forward norm times 300; nothing is made up for.
    Norm,
    /// The norm, and the matrix behind the gated product, which then is not quantized.
    NormAndDown,
}

impl Edit {
    /// What tensor `name` is multiplied by.
    fn factor(self, name: &str) -> f32 {
        let ends = |part: &str| name.ends_with(&format!(".{part}.weight"));
        match self {
            Edit::Factors if ends("ffn_up") || ends("ffn_gate") => 300.0,
            Edit::Factors | Edit::NormAndDown if ends("ffn_down") => 1.0 / 90_000.0,
            Edit::Norm | Edit::NormAndDown if ends("ffn_norm") => 300.0,
            _ => 1.0,
        }
    }

    /// A tiny model with it.
    fn apply(self, name: &str) -> Arc<Model> {
        edited(name, |tensor| self.factor(tensor))
    }
}

/// A tiny model whose tensors are multiplied by what `factor` says of their names.
fn edited(name: &str, factor: impl Fn(&str) -> f32) -> Arc<Model> {
    let bytes = fixture_bytes(&format!("tiny/{name}.gguf"));
    let file = Gguf::from_bytes(bytes).expect("a model");
    let metadata = file.metadata().iter();
    let edited = GgufWriter {
        metadata: metadata
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .collect(),
        tensors: file
            .tensors()
            .iter()
            .map(|t| scaled(t, factor(t.name())))
            .collect(),
        ..GgufWriter::default()
    };
    let edited = Gguf::from_bytes(edited.to_bytes()).expect("an edited model");
    Arc::new(Model::from_gguf(&edited).expect("an edited model"))
}

fn scaled(tensor: &Tensor, factor: f32) -> TensorSource {
    let (ty, data) = match factor {
        1.0 => (tensor.ty(), tensor.bytes().to_vec()),
        // The blocks' own scales would underflow.
        _ => {
            let values = tensor.to_f32().into_iter();
            let bytes = values.flat_map(|value| (value * factor).to_le_bytes());
            (GgmlType::F32, bytes.collect())
        }
    };
    TensorSource {
        name: tensor.name().to_owned(),
        ty,
        dims: tensor.dims().to_vec(),
        data,
    }
}

/// Prompts of 1, 2 and 40 tokens, then a token each of 1, 5 and 20 sequences: the logits of every sequence, and
/// what kind of step it was.
fn run(backend: &mut dyn Backend, sink: &mut dyn TraceSink) -> Vec<(String, Vec<f32>)> {
    let vocab = backend.model().vocab();
    let pages: Vec<[u32; 1]> = (0..20).map(|page| [page * 7 % 20]).collect();
    let mut all = Vec::new();
    for length in [1, 2, 40] {
        let step = Row {
            tokens: NewTokens::Known(&text(0, length, vocab)),
            start: 0,
            pages: &pages[0],
            ask: Ask::LOGITS,
        };
        let outputs = backend.step(&[step], sink).expect("a prompt");
        let what = format!("prompt of {length}");
        all.extend(
            sound(outputs)
                .into_iter()
                .map(|o| (what.clone(), logits(o))),
        );
    }
    let texts: Vec<Vec<u32>> = (0..20).map(|s| text(s, 3, vocab)).collect();
    for n in [1, 5, 20] {
        let step = |range: std::ops::Range<usize>, ask| -> Vec<Row<'_>> {
            let steps = texts.iter().zip(&pages).take(n);
            let steps = steps.map(|(text, pages)| Row {
                tokens: NewTokens::Known(&text[range.clone()]),
                start: range.start,
                pages,
                ask,
            });
            steps.collect()
        };
        backend
            .step(&step(0..2, Ask::NOTHING), sink)
            .expect("prompts");
        let outputs = backend
            .step(&step(2..3, Ask::LOGITS), sink)
            .expect("a batch");
        let what = format!("batch of {n}");
        all.extend(
            sound(outputs)
                .into_iter()
                .map(|o| (what.clone(), logits(o))),
        );
    }
    all
}

/// Rounds every tensor of the reference as the products' inputs are, but for f16's range.
struct Rounded {
    activations: ActivationPrecision,
    /// Elements with a scale, in 8 bits.
    group: usize,
    last: Option<(TensorName, Vec<f32>)>,
}

impl TraceSink for Rounded {
    fn wants(&self, _: TensorName) -> bool {
        true
    }

    fn record(&mut self, name: TensorName, _: usize, data: &[f32]) {
        let values = match self.activations {
            ActivationPrecision::F16 => data.iter().map(|&x| to_11_bits(x)).collect(),
            ActivationPrecision::Q8 => data.chunks(self.group).flat_map(to_8_bits).collect(),
        };
        self.last = Some((name, values));
    }

    fn forced(&self, name: TensorName) -> Option<&[f32]> {
        let last = self.last.as_ref().filter(|last| last.0 == name);
        last.map(|(_, values)| values.as_slice())
    }
}

fn to_11_bits(x: f32) -> f32 {
    const DROPPED: u32 = 13;
    let half = 1 << (DROPPED - 1);
    f32::from_bits((x.to_bits() + half) >> DROPPED << DROPPED)
}

fn to_8_bits(block: &[f32]) -> Vec<f32> {
    let step = block.iter().fold(0f32, |most, x| most.max(x.abs())) / 127.0;
    let rounded = block.iter().map(|x| (x / step).round() * step);
    match step {
        0.0 => block.to_vec(),
        _ => rounded.collect(),
    }
}

/// The largest magnitude of the gated activations.
fn largest_gated(model: &Arc<Model>) -> f32 {
    let mut recorder = Recorder::new(|name| matches!(name.base, "ffn_swiglu" | "ffn_geglu"));
    run(&mut CpuBackend::new(model.clone(), PAGES), &mut recorder);
    let values = recorder.tensors.iter().flat_map(|tensor| &tensor.data);
    values.fold(0f32, |most, x| most.max(x.abs()))
}

fn check(name: &str, edit: Edit, activations: &[ActivationPrecision]) {
    let model = edit.apply(name);
    let largest = largest_gated(&model);
    assert!(largest > 2.0 * F16_MAX, "{name}, {edit:?}: {largest}");
    let cpu = || CpuBackend::new(model.clone(), PAGES);
    let expected = run(&mut cpu(), &mut NoTrace);
    for &activations in activations {
        // Of batches in f16, of a few tokens, and of batches in 8 bits.
        let in_f16 = (ActivationPrecision::F16, 16);
        let rounded = [in_f16, (activations, 16), (activations, 32)].map(|(activations, group)| {
            let mut sink = Rounded {
                activations,
                group,
                last: None,
            };
            run(&mut cpu(), &mut sink)
        });
        let ours = run(&mut gpu(&model, activations), &mut NoTrace);
        let (mut within, mut compared) = (0, 0);
        for (i, (what, ours)) in ours.iter().enumerate() {
            let is_batch = what.starts_with("batch") && !what.ends_with(" 1");
            let rounding = match is_batch {
                true if multiplies_in_q8(&model) => 2,
                true => 0,
                false => 1,
            };
            let rounded = &rounded[rounding][i].1;
            let expected = &expected[i].1;
            let what = format!("{name}, {edit:?}, {activations:?}, {what}");
            let error = relative_error(ours, expected);
            // What a rounding costs a token that cancels is known from one draw only.
            let bound = bound(expected, rounded);
            assert!(
                error < 8.0 * bound,
                "{what}: off by {error:.1e} of {bound:.1e}"
            );
            within += usize::from(error < bound);
            let norm: f64 = expected.iter().map(|&x| f64::from(x).powi(2)).sum();
            let mut order = expected.clone();
            order.sort_by(|a, b| b.total_cmp(a));
            if f64::from(order[0] - order[1]) > bound * norm.sqrt() {
                assert_eq!(argmax(ours), argmax(expected), "{what}");
                compared += 1;
            }
        }
        assert!(10 * within >= 9 * ours.len(), "{name}: {within} are within");
        // What 8 bits leave open in every step decides no token.
        let all_in_8_bits = activations == ActivationPrecision::Q8 && multiplies_in_q8(&model);
        assert!(
            compared > 5 || all_in_8_bits,
            "{name}, {edit:?}, {activations:?}: {compared} tokens"
        );
    }
}

#[test]
fn activations_beyond_f16_give_the_references_tokens() {
    let _lock = device_lock();
    let both = [ActivationPrecision::F16, ActivationPrecision::Q8];
    for name in TINY_MODELS {
        check(name, Edit::Norm, &both);
    }
    // The edited matrices are f32, whatever the file has: one of each architecture.
    for name in [
        "tiny-llama-q4_k_m-1",
        "tiny-qwen2-f16-1",
        "tiny-qwen3-q8_0-1",
        "tiny-gemma3-q4_k_m-1",
    ] {
        check(name, Edit::Factors, &both);
    }
}

/// Gates straight from blocks, and a matrix behind them that is unpacked.
#[test]
fn activations_beyond_f16_before_a_matrix_that_is_not_quantized() {
    let _lock = device_lock();
    for name in ["tiny-llama-q4_k_m-1", "tiny-gemma3-q4_k_m-1"] {
        check(name, Edit::NormAndDown, &[ActivationPrecision::F16]);
    }
}

/// They are what the cache holds at most, which is finite, and not what the reference has.
#[test]
fn keys_and_values_beyond_f16_saturate_and_verify_names_it() {
    let _lock = device_lock();
    for (name, part, tensor, what) in [
        (
            "tiny-llama-q4_0-2",
            "attn_k",
            "Kcur-0",
            "elements of keys are beyond 65504",
        ),
        (
            "tiny-qwen2-q4_k_m-2",
            "attn_v",
            "kqv_out-0",
            "elements of values are beyond 65504",
        ),
    ] {
        let model = edited(name, |tensor| {
            match tensor.ends_with(&format!("{part}.weight")) {
                true => 1e6,
                false => 1.0,
            }
        });
        let tokens = text(0, 6, model.vocab());
        let plan = Plan {
            tokens: &tokens,
            chunk: 64,
            decode_steps: 1,
            batch: 5,
        };
        let report = verify(
            &mut gpu(&model, ActivationPrecision::F16),
            &mut CpuBackend::new(model.clone(), PAGES),
            &plan,
            &Bounds::new(&model, Some(ActivationPrecision::F16)),
            &mut |_| {},
        );
        let report = report.expect("a report");
        let fault = report.first_fault().expect("a fault");
        assert_eq!((fault.step, fault.tensor.as_str()), (0, tensor), "{name}");
        assert!(fault.what.contains(what), "{name}: {}", fault.what);
        // In all kinds of steps, and without an infinity anywhere.
        for step in &report.steps {
            let saturated = step.rows.iter().any(|row| row.saturated > 0);
            assert!(saturated, "{name}: nothing saturates in {}", step.kind);
            for row in &step.rows {
                let non_finite = row.difference.non_finite;
                assert_eq!(non_finite, 0, "{name}: {} in {}", row.name, step.kind);
            }
        }
    }
}
