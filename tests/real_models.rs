//! Real models, greedily, against the tokens that llama.cpp's arithmetic gives: on the CPU, or on the
//! device that HYPERION_TEST_DEVICE names.

mod support;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hyperion::backend::{ActivationPrecision, Backend};
use hyperion::cpu::CpuBackend;
use hyperion::device::choice;
use hyperion::engine::Engine;
use hyperion::gpu::{GpuBackend, Limits};
use hyperion::model::Model;
use hyperion::ptx;
use support::greedy::{GreedyText, RunnersUp, compare_texts};

const CONTEXT: usize = 128;
/// Sequences side by side: a GPU multiplies with few of them and with more of them in different ways, the CPU in one.
const BATCHES: [usize; 2] = [3, 8];
const CPU_BATCHES: [usize; 1] = [3];
static RUN: AtomicBool = AtomicBool::new(false);

/// Where the best two logits are this close, right engines may part: f32 sums in another order on the
/// CPU, activations in f16, which is what a GPU takes for models of this size, and in 8 bits. The last move
/// logits by 0.09 in the root mean square (the mean KL divergence is up to 4e-3, of which that is the root of the
/// double), and the difference of two may be a few times that.
const CPU_GAP: f32 = 0.05;
const F16_GAP: f32 = 0.1;
const Q8_GAP: f32 = 0.3;

/// An engine for each way to run the model, with its gap.
fn engines(model: &Arc<Model>) -> Vec<(Engine, f32)> {
    let n_pages = Engine::pages_for(CONTEXT, BATCHES[1]);
    let engine = |backend: Box<dyn Backend>| Engine::new(backend, CONTEXT, CONTEXT);
    let device = std::env::var("HYPERION_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    let device = choice::open(device.parse().expect("a device"), &ptx::embedded())
        .expect("the device opens")
        .device;
    let Some(device) = device else {
        let reference = Box::new(CpuBackend::new(model.clone(), n_pages));
        let fast = Box::new(CpuBackend::fast(model.clone(), n_pages));
        return vec![(engine(reference), CPU_GAP), (engine(fast), Q8_GAP)];
    };
    let limits = Limits {
        context: CONTEXT,
        n_pages,
        max_tokens: CONTEXT,
        max_sequences: BATCHES[1],
    };
    [
        (ActivationPrecision::Q8, Q8_GAP),
        (ActivationPrecision::F16, F16_GAP),
    ]
    .map(|(activations, gap)| {
        let (model, device) = (model.clone(), device.clone());
        let backend = GpuBackend::new(model, device, limits, activations, &RUN, &mut |_| {});
        (engine(Box::new(backend.expect("a backend"))), gap)
    })
    .into()
}

/// `n_tokens` is how many the reference chose in all of its texts: so many are compared, one text at a time, and all
/// of those of a batch side by side.
fn assert_model(model: &str, name: &str, n_tokens: usize) {
    let model = Arc::new(Model::open(&support::model(model)).expect("a model"));
    let cases = support::greedy_cases(name);
    let mut runners_up = RunnersUp::new(model.clone());
    for (mut engine, gap) in engines(&model) {
        let mut compare =
            |texts: &[GreedyText<'_>]| compare_texts(&mut engine, texts, gap, &mut runners_up);
        let texts = || cases.iter().map(|case| case.greedy_text());
        let compared: usize = texts().map(|text| compare(&[text])).sum();
        assert_eq!(compared, n_tokens, "{name}, alone");
        let is_cpu = gap == CPU_GAP;
        for &n in if is_cpu { &CPU_BATCHES[..] } else { &BATCHES } {
            let batch: Vec<GreedyText<'_>> = texts().cycle().take(n).collect();
            let expected: usize = batch.iter().map(|text| text.greedy.len()).sum();
            assert_eq!(compare(&batch), expected, "{name}, batches of {n}");
        }
    }
}

#[test]
fn smollm2_greedy() {
    assert_model("smollm2", "smollm2-135m-instruct", 239);
}

#[test]
fn gemma_3_greedy() {
    assert_model("gemma-3-270m", "gemma-3-270m", 192);
}

#[test]
fn qwen2_5_coder_greedy() {
    assert_model("qwen2.5-coder-0.5b", "qwen2.5-coder-0.5b", 212);
}
