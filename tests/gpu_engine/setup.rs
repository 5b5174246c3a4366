//! Devices, tiny models, and what their results are held against.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use half::f16;
use hyperion::backend::{
    ActivationPrecision, Ask, Backend, Choice, Draw, NewTokens, Output, Report, Row, RowResult,
    TensorName, TraceSink,
};
use hyperion::device::Device;
use hyperion::gpu::{GpuBackend, Limits};
use hyperion::model::Model;
use hyperion::sampling::uniform;

use crate::support::cropped::cropped_model;
pub use crate::support::device::{device, device_lock};
use crate::support::{fixture, relative_error};

/// ActivationPrecision, keys and values are rounded to f16 (2^-11 each) in every block.
pub const F16_BOUND: f64 = 2e-3;

pub const CONTEXT: usize = 256;
/// Of a backend: two for each sequence of the largest batch.
pub const PAGES: usize = 40;
pub static RUN: AtomicBool = AtomicBool::new(false);

/// The device that HYPERION_TEST_DEVICE names, where it is not the simulator.
pub fn other_device() -> Option<Arc<dyn Device>> {
    let device = device();
    (!device.info().is_simulated).then_some(device)
}

fn path(name: &str) -> PathBuf {
    fixture(&format!("tiny/{name}.gguf"))
}

pub fn model(name: &str) -> Arc<Model> {
    Arc::new(Model::open(&path(name)).expect("a model"))
}

/// A model of which a step costs little, for what does not depend on the model.
pub fn small_model() -> Arc<Model> {
    Arc::new(Model::from_gguf(&cropped_model()).expect("a model"))
}

pub fn gpu(model: &Arc<Model>, activations: ActivationPrecision) -> GpuBackend {
    let limits = Limits {
        context: CONTEXT,
        n_pages: PAGES,
        max_tokens: 128,
        max_sequences: 64,
    };
    gpu_within(model, activations, limits)
}

pub fn gpu_within(
    model: &Arc<Model>,
    activations: ActivationPrecision,
    limits: Limits,
) -> GpuBackend {
    GpuBackend::new(
        model.clone(),
        device(),
        limits,
        activations,
        &RUN,
        &mut |_| {},
    )
    .expect("a backend")
}

pub fn logits(output: Output) -> Vec<f32> {
    assert!(!output.logits.is_empty(), "no logits in {output:?}");
    output.logits
}

/// What every row of a step gave.
pub fn sound(results: Vec<RowResult>) -> Vec<Output> {
    let outputs = results.into_iter().collect::<Result<_, _>>();
    outputs.expect("an output of each row")
}

/// An output that is a token and nothing else.
pub fn token(token: u32) -> Output {
    Output {
        tokens: vec![token],
        ..Output::default()
    }
}

/// A token drawn by `draw`, and nothing else.
pub const fn drawn(draw: Draw) -> Ask<'static> {
    Ask {
        choose: Some(Choice {
            draw: Some(draw),
            ..Choice::GREEDY
        }),
        report: Report::Nothing,
    }
}

/// A seed whose random number behind `position` lies in `range`.
pub fn seed_in(range: Range<f32>, position: usize) -> u64 {
    let is_in = |&seed: &u64| range.contains(&uniform(seed, position as u32));
    (0..).find(is_in).expect("a seed")
}

/// Rounds every tensor of the reference to f16.
#[derive(Default)]
pub struct RoundToF16(HashMap<TensorName, Vec<f32>>);

impl TraceSink for RoundToF16 {
    fn wants(&self, _: TensorName) -> bool {
        true
    }

    fn record(&mut self, name: TensorName, _: usize, data: &[f32]) {
        let rounded = data.iter().map(|&x| f16::from_f32(x).to_f32());
        self.0.insert(name, rounded.collect());
    }

    fn forced(&self, name: TensorName) -> Option<&[f32]> {
        self.0.get(&name).map(Vec::as_slice)
    }
}

/// How far a token's logits are off, in shares of what they may be: [`F16_BOUND`], or ten times what
/// the reference itself moves when its tensors are rounded to f16 (`rounded`), where that is more,
/// because the random weights cancel. In tiny-gemma3 even f32 activations are off by 4e-5, which is
/// 600 of their roundings.
pub fn share_of_bound(ours: &[f32], expected: &[f32], rounded: &[f32]) -> f64 {
    relative_error(ours, expected) / bound(expected, rounded)
}

/// What [`share_of_bound`] is a share of.
pub fn bound(expected: &[f32], rounded: &[f32]) -> f64 {
    F16_BOUND.max(10.0 * relative_error(rounded, expected))
}

/// All tokens are finite, nine tenths of them are within their bounds and all are within [`WORST_SHARE`] of them.
/// What each operation may cost is tested in `each_operation_alone`.
pub fn assert_close(shares: &[f64], what: &str) {
    // An error that is not finite is infinite or a NaN, neither of which is within anything.
    let within = |bound: f64| shares.iter().filter(|&&share| share < bound).count();
    let n = shares.len();
    assert!(n > 0, "{what}: nothing was compared");
    assert!(
        10 * within(1.0) >= 9 * n,
        "{what}: {} of {n} tokens are within their bounds: {shares:.2?}",
        within(1.0)
    );
    assert!(
        within(WORST_SHARE) == n,
        "{what}: {} of {n} tokens are within {WORST_SHARE} times their bounds: {shares:.2?}",
        within(WORST_SHARE)
    );
}

/// What a rounding costs a token is known from one draw only, and a token that cancels can be off by a few times that;
/// a wrong row is off by hundreds.
const WORST_SHARE: f64 = 8.0;

#[test]
fn a_tenth_of_the_tokens_may_exceed_the_bound_but_none_by_far() {
    let verdict = |worst: f64, n_worst: usize| {
        let mut shares = vec![0.5; 20];
        shares[..n_worst].fill(worst);
        std::panic::catch_unwind(|| assert_close(&shares, "a seeded error")).is_ok()
    };
    assert!(verdict(7.0, 2));
    assert!(!verdict(7.0, 3));
    for worst in [9.0, f64::INFINITY, f64::NAN] {
        assert!(!verdict(worst, 1), "{worst} passes");
    }
    assert!(std::panic::catch_unwind(|| assert_close(&[], "nothing")).is_err());
}

pub fn text(sequence: usize, length: usize, vocab: usize) -> Vec<u32> {
    let token = |i: usize| ((i * 37 + sequence * 101 + 11) % vocab) as u32;
    (0..length).map(token).collect()
}

/// A sequence of a batch.
pub struct Member {
    /// Its tokens: `length` before the batch begins, and one for each step of it.
    pub text: Vec<u32>,
    pub length: usize,
    pub pages: [u32; 2],
}

/// Prefill in chunks and then decode steps of all `members` side by side: their logits, step by step.
pub fn run_batch(
    backend: &mut dyn Backend,
    members: &[Member],
    sink: &mut dyn TraceSink,
) -> Vec<Vec<f32>> {
    for member in members {
        for first in (0..member.length).step_by(48) {
            let step = Row {
                tokens: NewTokens::Known(&member.text[first..(first + 48).min(member.length)]),
                start: first,
                pages: &member.pages,
                ask: Ask::NOTHING,
            };
            backend.step(&[step], sink).expect("a chunk");
        }
    }
    decode_batch(backend, members, sink)
}

/// The decode steps of [`run_batch`], behind prompts that are in the cache.
pub fn decode_batch(
    backend: &mut dyn Backend,
    members: &[Member],
    sink: &mut dyn TraceSink,
) -> Vec<Vec<f32>> {
    let mut results = Vec::new();
    for extra in 0..members[0].text.len() - members[0].length {
        let steps = batch_step(members, extra, |_| Ask::LOGITS);
        let outputs = backend.step(&steps, sink).expect("a step");
        results.extend(sound(outputs).into_iter().map(logits));
    }
    results
}

/// Step `extra` of a batch.
pub fn batch_step<'a>(
    members: &'a [Member],
    extra: usize,
    ask: impl Fn(usize) -> Ask<'static>,
) -> Vec<Row<'a>> {
    let steps = members.iter().enumerate().map(|(i, member)| {
        let start = member.length + extra;
        Row {
            tokens: NewTokens::Known(&member.text[start..][..1]),
            start,
            pages: &member.pages,
            ask: ask(i),
        }
    });
    steps.collect()
}
