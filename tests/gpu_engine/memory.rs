//! What the memory plan says about a device with little memory left is true: with the context that it advises, all
//! that a run loads and records later fits too.
//!
//! The simulator takes memory as NVIDIA's driver does, with costs of the size that the plan keeps for them. On a GPU
//! (HYPERION_TEST_DEVICE=cuda) the driver itself is asked, and a line for each stage says what it has left;
//! HYPERION_TEST_MODEL names another model than a tiny one.

use std::sync::Arc;

use hyperion::backend::{ActivationPrecision, Ask, Backend, Output};
use hyperion::device::plan::GRANULE;
use hyperion::device::sim::{DriverCosts, DriverMemory, SimDevice};
use hyperion::device::{Device, DeviceError};
use hyperion::engine::{Decode, Engine, Sequence};
use hyperion::gpu::{GpuBackend, Limits};
use hyperion::model::Model;
use hyperion::ptx;

use crate::setup::*;
use crate::support::device::DRAW;

/// Everything that a context can make use of, and more than any device has.
const ENDLESS: usize = 1 << 26;

fn device() -> Arc<dyn Device> {
    if let Some(device) = other_device() {
        return device;
    }
    let device = SimDevice::with(&ptx::embedded(), 1 << 30, Default::default());
    let device = device.expect("a simulator");
    device.set_driver_memory(DriverMemory::with_costs(DriverCosts {
        kernel: GRANULE,
        products: 24 << 20,
        graph: GRANULE,
    }));
    Arc::new(device)
}

fn model_under_test() -> Arc<Model> {
    match std::env::var_os("HYPERION_TEST_MODEL") {
        Some(path) => Arc::new(Model::open(path.as_ref()).expect("a model")),
        None => model("tiny-qwen3-q8_0-1"),
    }
}

fn limits(context: usize) -> Limits {
    Limits {
        context,
        n_pages: Engine::pages_for(context, 1),
        max_tokens: context.min(512),
        max_sequences: 6,
    }
}

fn backend(
    device: &Arc<dyn Device>,
    model: &Arc<Model>,
    context: usize,
) -> Result<GpuBackend, DeviceError> {
    let (device, activations) = (device.clone(), ActivationPrecision::Q8);
    GpuBackend::new(
        model.clone(),
        device,
        limits(context),
        activations,
        &RUN,
        &mut |_| {},
    )
}

fn needed(model: &Model, context: usize) -> u64 {
    let plan = GpuBackend::plan(model, limits(context));
    plan.expect("a plan").total()
}

/// The context that the plan advises instead of an endless one, if it advises any.
fn advised(device: &Arc<dyn Device>, model: &Arc<Model>) -> Option<usize> {
    match backend(device, model, ENDLESS) {
        Err(DeviceError::Plan(error)) => error.fitting.map(|tokens| tokens as usize),
        Err(other) => panic!("instead of a plan: {other}"),
        Ok(_) => panic!("an endless context fits"),
    }
}

/// Prompts and steps of every kind, so that all is loaded and recorded that a run may load and record.
fn run(device: &dyn Device, backend: GpuBackend, what: &str) {
    let report = |stage: &str| {
        let free = device.memory().expect("the memory").free;
        eprintln!("{what}: {:.1} MiB free {stage}", free as f64 / 1048576.0);
    };
    report("with all buffers");
    let (vocab, context) = (backend.model().vocab(), backend.limits().max_context);
    let mut engine = Engine::new(Box::new(backend), context, 512);
    let draw = drawn(DRAW);
    for n in [1, 2, 3, 4, 6] {
        // A prompt for cuBLAS and one that is not, as far as there is room beside the other sequences.
        let length = if n == 1 { 150 } else { 9 }.min(context / 2);
        let mut sequences: Vec<Sequence> = (0..n).map(|_| Sequence::new()).collect();
        if n * 64 > context {
            continue;
        }
        for sequence in &mut sequences {
            let prompt = text(n, length, vocab);
            let output = engine.prefill(sequence, &prompt, Ask::GREEDY, &RUN);
            output.expect("a prompt");
        }
        for ask in [Ask::GREEDY, draw, Ask::LOGITS] {
            for _ in 0..3 {
                let mut batch: Vec<Decode<'_>> = sequences
                    .iter_mut()
                    .map(|sequence| Decode {
                        sequence,
                        token: 1,
                        ask,
                    })
                    .collect();
                for output in engine.decode(&mut batch).expect("a step") {
                    assert_ne!(output.expect("an output"), Output::default());
                }
            }
        }
        report(&format!("after batches of {n}"));
    }
}

#[test]
fn the_advised_context_fits() {
    let _lock = device_lock();
    let (device, model) = (device(), model_under_test());
    for extra in [0, 3 << 20, 45 << 20, 150 << 20] {
        let free = device.memory().expect("the memory").free;
        let left = needed(&model, 64) + extra;
        let ballast = (free.checked_sub(left).expect("enough memory") / GRANULE) * GRANULE;
        let ballast = device.alloc(ballast as usize, "ballast").expect("ballast");
        let free = device.memory().expect("the memory").free;
        let tokens = advised(&device, &model).expect("an advice");
        assert!(needed(&model, tokens) <= free && needed(&model, tokens + 64) > free);
        let what = format!("{tokens} tokens in {} MiB", free >> 20);
        let backend = backend(&device, &model, tokens);
        let backend = backend.unwrap_or_else(|error| panic!("{what}: {error}"));
        run(&*device, backend, &what);
        drop(ballast);
    }
}

#[test]
fn where_no_context_fits_none_is_advised() {
    let _lock = device_lock();
    let (device, model) = (device(), model_under_test());
    let free = device.memory().expect("the memory").free;
    // Less than the shortest context needs.
    let ballast = free.checked_sub(needed(&model, 64)).expect("enough memory") + 2 * GRANULE;
    let _ballast = device.alloc(ballast as usize, "ballast").expect("ballast");
    assert_eq!(advised(&device, &model), None);
}

/// Steps go on as they are where the driver has no memory for their graphs.
#[test]
fn without_memory_for_graphs_steps_run_as_they_are() {
    let _lock = device_lock();
    let model = model("tiny-qwen3-q8_0-1");
    let run = |graph: u64| {
        let device = SimDevice::with(&ptx::embedded(), 1 << 30, Default::default());
        let device = device.expect("a simulator");
        let costs = DriverCosts {
            graph,
            ..DriverCosts::default()
        };
        device.set_driver_memory(DriverMemory::with_costs(costs));
        let device: Arc<dyn Device> = Arc::new(device);
        let backend = backend(&device, &model, 128).expect("a backend");
        let mut engine = Engine::new(Box::new(backend), 128, 64);
        let mut sequence = Sequence::new();
        let prompt = text(1, 9, model.vocab());
        let mut tokens = Vec::new();
        let mut output = engine
            .prefill(&mut sequence, &prompt, Ask::GREEDY, &RUN)
            .expect("a prompt");
        for _ in 0..5 {
            let token = output.token().expect("a token");
            tokens.push(token);
            let item = Decode {
                sequence: &mut sequence,
                token,
                ask: Ask::GREEDY,
            };
            let mut outputs = engine.decode(&mut [item]).expect("a step");
            output = outputs.remove(0).expect("a token");
        }
        tokens
    };
    assert_eq!(run(2 << 30), run(0));
}

/// Matrices are unpacked once where there is memory for copies, and in each step where there is not: the bits are the
/// same.
#[test]
fn copies_of_matrices_change_no_bit() {
    const CONTEXT: usize = 256;
    let _lock = device_lock();
    for name in [
        "tiny-qwen3-q8_0-1",
        "tiny-llama-q4_k_m-1",
        "tiny-gemma3-q4_k_m-1",
    ] {
        let model = model(name);
        // More than products straight from the blocks take.
        let tokens: Vec<u32> = (0..66).map(|i| i * 7 % model.vocab() as u32).collect();
        let run = |memory: u64| {
            let device = SimDevice::with(&ptx::embedded(), memory, Default::default());
            let device: Arc<dyn Device> = Arc::new(device.expect("a simulator"));
            let backend = backend(&device, &model, CONTEXT).expect("a backend");
            let before = device.memory().expect("the memory").free;
            let mut engine = Engine::new(Box::new(backend), CONTEXT, 512);
            let output = engine.prefill(&mut Sequence::new(), &tokens, Ask::ALL_LOGITS, &RUN);
            let taken = before - device.memory().expect("the memory").free;
            (logits(output.expect("logits")), taken)
        };
        let (with, copies) = run(1 << 30);
        let (without, nothing) = run(needed(&model, CONTEXT));
        assert_eq!((copies > 0, nothing), (true, 0), "{name}");
        assert!(with == without, "{name}");
    }
}
