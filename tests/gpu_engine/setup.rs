//! Devices, tiny models, and what their results are held against.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use half::f16;
use hyperion::backend::{Activations, Backend, Output, SequenceStep, TensorName, TraceSink, Want};
use hyperion::device::sim::SimDevice;
use hyperion::device::{Device, choice};
use hyperion::gpu::{GpuBackend, Limits};
use hyperion::model::Model;

use crate::support::{fixture, relative_error};

/// Activations, keys and values are rounded to f16 (2^-11 each) in every block.
pub const F16_BOUND: f64 = 2e-3;

pub const CONTEXT: usize = 256;
/// Of a backend: two for each sequence of the largest batch.
pub const PAGES: usize = 40;
pub static RUN: AtomicBool = AtomicBool::new(false);

static DEVICE: LazyLock<Arc<dyn Device>> = LazyLock::new(|| {
    let Ok(name) = std::env::var("HYPERION_TEST_DEVICE") else {
        let device = SimDevice::of_capability(&choice::embedded(), (9, 0));
        return Arc::new(device.expect("a simulator"));
    };
    let choice = name.parse().expect("a device");
    let opened = choice::open(choice, &choice::embedded()).expect("the device opens");
    opened.device.expect("a device other than the CPU")
});

/// Held by every test: no work may be sent to a device while another thread records a graph.
pub fn device_lock() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path(name: &str) -> PathBuf {
    fixture(&format!("tiny/{name}.gguf"))
}

pub fn model(name: &str) -> Arc<Model> {
    Arc::new(Model::open(&path(name)).expect("a model"))
}

pub fn gpu(model: &Arc<Model>, activations: Activations) -> GpuBackend {
    let limits = Limits {
        context: CONTEXT,
        n_pages: PAGES,
        max_tokens: 128,
    };
    GpuBackend::new(
        model.clone(),
        DEVICE.clone(),
        limits,
        activations,
        &RUN,
        &mut |_| {},
    )
    .expect("a backend")
}

pub fn logits(output: Output) -> Vec<f32> {
    match output {
        Output::Logits(logits) => logits,
        other => panic!("expected logits, got {other:?}"),
    }
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

/// All but a tenth of the tokens are within their bounds: what a rounding costs a token is known from
/// one draw only, and a token that cancels can be off by any multiple of it. What each operation may
/// cost is tested in `each_operation_alone`. Written so that a NaN fails.
pub fn assert_close(shares: &[f64], what: &str) {
    let within = shares.iter().filter(|&&share| share < 1.0).count();
    assert!(
        10 * within >= 9 * shares.len(),
        "{what}: {within} of {} tokens are within their bounds: {shares:.2?}",
        shares.len()
    );
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
            let step = SequenceStep {
                tokens: &member.text[first..(first + 48).min(member.length)],
                start: first,
                pages: &member.pages,
                want: Want::Nothing,
            };
            backend.step(&[step], sink).expect("a chunk");
        }
    }
    let mut results = Vec::new();
    for extra in 0..members[0].text.len() - members[0].length {
        let steps = batch_step(members, extra, |_| Want::LastLogits);
        let outputs = backend.step(&steps, sink).expect("a step");
        results.extend(outputs.into_iter().map(logits));
    }
    results
}

/// Step `extra` of a batch.
pub fn batch_step(
    members: &[Member],
    extra: usize,
    want: impl Fn(usize) -> Want,
) -> Vec<SequenceStep<'_>> {
    let steps = members.iter().enumerate().map(|(i, member)| {
        let start = member.length + extra;
        SequenceStep {
            tokens: &member.text[start..][..1],
            start,
            pages: &member.pages,
            want: want(i),
        }
    });
    steps.collect()
}
