//! What the GPU engine does when memory runs out, when it is interrupted, and when there is no GPU.

mod support;

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyperion::backend::{ActivationPrecision, Ask};
use hyperion::device::sim::SimDevice;
use hyperion::device::{Device, DeviceError};
use hyperion::engine::{Decode, Engine, EngineError, Sequence};
use hyperion::gpu::{GpuBackend, Limits};
use hyperion::model::Model;
use hyperion::ptx;
use support::fixture;

const TINY: &str = "tiny/tiny-qwen2-q4_k_m-2.gguf";
const CONTEXT: usize = 128;
const CHUNK: usize = 16;
static RUN: AtomicBool = AtomicBool::new(false);

fn model() -> Arc<Model> {
    Arc::new(Model::open(&fixture(TINY)).expect("a model"))
}

fn simulator() -> Arc<SimDevice> {
    Arc::new(SimDevice::open(&ptx::embedded()).expect("a simulator"))
}

fn backend(
    device: Arc<SimDevice>,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(u64),
) -> Result<GpuBackend, DeviceError> {
    let limits = Limits {
        context: CONTEXT,
        n_pages: Engine::pages_for(CONTEXT, 1),
        max_tokens: CHUNK,
        max_sequences: 1,
    };
    GpuBackend::new(
        model(),
        device,
        limits,
        ActivationPrecision::Q8,
        cancel,
        progress,
    )
}

#[test]
fn memory_runs_out_at_each_allocation() {
    let device = simulator();
    let free = || device.memory().expect("the memory").free;
    let all = free();
    let mut failed = Vec::new();
    let backend = loop {
        device.fail_allocations_after(failed.len() as u64);
        match backend(device.clone(), &RUN, &mut |_| {}) {
            Ok(backend) => break backend,
            Err(DeviceError::OutOfMemory { label, bytes, .. }) => {
                assert!(bytes > 0 && !label.is_empty());
                failed.push(label);
            }
            Err(other) => panic!("instead of running out of memory: {other}"),
        }
        assert_eq!(free(), all, "memory is lost after {failed:?}");
    };
    for label in ["token_embd.weight", "KV cache", "step inputs", "logits"] {
        let found = failed.iter().any(|failed| failed.contains(label));
        assert!(found, "no allocation for {label} in {failed:?}");
    }

    // Steps find everything in place.
    device.fail_allocations_after(0);
    let mut engine = Engine::new(Box::new(backend), CONTEXT, CHUNK);
    let mut sequence = Sequence::new();
    let prompt: Vec<u32> = (1..40).collect();
    let first = engine
        .prefill(&mut sequence, &prompt, Ask::GREEDY, &RUN)
        .expect("a prefill");
    let token = first.token().expect("a token");
    for _ in 0..3 {
        let item = Decode {
            sequence: &mut sequence,
            token,
            ask: Ask::LOGITS,
        };
        engine
            .decode(&mut [item])
            .expect("a step")
            .remove(0)
            .expect("logits");
    }
    drop((engine, sequence));
    assert_eq!(free(), all, "memory is lost at the end");
}

#[test]
fn an_interrupted_upload_leaves_nothing_behind() {
    let device = simulator();
    let free = device.memory().expect("the memory").free;
    let cancel = AtomicBool::new(false);
    let stop = &mut |_| cancel.store(true, Ordering::Relaxed);
    let stopped = backend(device.clone(), &cancel, stop);
    assert!(matches!(stopped, Err(DeviceError::Cancelled)));
    assert_eq!(device.memory().expect("the memory").free, free);
}

#[test]
fn an_interrupted_prefill_can_be_continued() {
    let prompt: Vec<u32> = (1..40).collect();
    let engine = || {
        let backend = backend(simulator(), &RUN, &mut |_| {}).expect("a backend");
        Engine::new(Box::new(backend), CONTEXT, CHUNK)
    };
    let whole = engine()
        .prefill(&mut Sequence::new(), &prompt, Ask::GREEDY, &RUN)
        .expect("a prefill");

    let mut engine = engine();
    let mut sequence = Sequence::new();
    engine
        .prefill(&mut sequence, &prompt[..CHUNK], Ask::NOTHING, &RUN)
        .expect("the first chunk");
    let pressed = AtomicBool::new(true);
    let stopped = engine.prefill(&mut sequence, &prompt[CHUNK..], Ask::GREEDY, &pressed);
    assert!(matches!(stopped, Err(EngineError::Interrupted)));
    assert_eq!(sequence.len(), CHUNK);
    let rest = engine
        .prefill(&mut sequence, &prompt[CHUNK..], Ask::GREEDY, &RUN)
        .expect("the rest");
    assert_eq!(rest, whole);
}

/// Starts an endless generation on the simulator.
#[cfg(unix)]
fn endless() -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_hyperion"))
        .args(["generate", &fixture(TINY).display().to_string()])
        .args([
            "--device",
            "sim",
            "--raw",
            "-p",
            "one two three",
            "-n",
            "100000",
        ])
        .args(["--ctx", "4096", "--ignore-eos"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process")
}

/// Ctrl-C, and what the process writes from then on to standard error; it must end with its code.
#[cfg(unix)]
fn interrupt(mut process: std::process::Child) -> String {
    let kill = Command::new("kill")
        .args(["-INT", &process.id().to_string()])
        .status();
    assert!(kill.expect("a kill").success());
    // Drained, so that the process never waits for room in the pipe.
    let mut stdout = process.stdout.take().expect("stdout");
    let drain = std::thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
    let mut stderr = String::new();
    let mut from = process.stderr.take().expect("stderr");
    from.read_to_string(&mut stderr).expect("UTF-8");
    drain.join().expect("a thread").expect("stdout");
    let status = process.wait().expect("an end");
    assert_eq!(status.code(), Some(130), "{stderr}");
    stderr
}

#[cfg(unix)]
#[test]
fn ctrl_c_while_tokens_come_gives_the_figures_so_far() {
    let mut process = endless();
    let mut line = [0; 1];
    let stdout = process.stdout.as_mut().expect("stdout");
    stdout.read_exact(&mut line).expect("text");
    let stderr = interrupt(process);
    let figures = stderr.lines().last().unwrap_or_default();
    assert!(figures.contains("interrupted"), "{stderr}");
    assert!(figures.contains("tok/s"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn a_device_that_is_not_there_is_one_clear_line() {
    // No driver shows a GPU with this number.
    let output = Command::new(env!("CARGO_BIN_EXE_hyperion"))
        .args(["generate", &fixture(TINY).display().to_string()])
        .args(["--device", "cuda:77", "--raw", "-p", "x"])
        .output()
        .expect("a run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty());
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    let known = ["no NVIDIA driver", "there is no GPU 77", "no CUDA support"];
    assert!(
        known.iter().any(|known| lines[0].contains(known)),
        "{stderr}"
    );
    assert!(lines[0].contains("--device cpu"), "{stderr}");
}
