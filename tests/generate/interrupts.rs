//! Ctrl-C, and what a flag ends in the middle of a step.

#[cfg(unix)]
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyperion::backend::{
    Ask, Backend, BackendError, NewTokens, NoTrace, Row, TensorName, TraceSink,
};
use hyperion::cpu::CpuBackend;
use hyperion::gguf::Gguf;
use hyperion::model::Model;

#[cfg(unix)]
use crate::{hyperion, smollm2, text};

/// Sends Ctrl-C's signal once the program has written something, or at once without waiting.
#[cfg(unix)]
fn interrupt(args: &[&str], wait_for_text: bool) -> Output {
    let mut child = hyperion(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a run");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut first = [0; 1];
    if wait_for_text {
        std::io::Read::read_exact(&mut stdout, &mut first).expect("text");
    } else {
        // Long enough to open the model, far too short for the prompt.
        std::thread::sleep(std::time::Duration::from_millis(1500));
    }
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.expect("a signal").success());
    // Kept open until the end: a closed pipe would end it as well.
    std::io::Read::read_to_end(&mut stdout, &mut Vec::new()).expect("the rest");
    child.wait_with_output().expect("an end")
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_with_the_figures_so_far() {
    let model = smollm2();
    let args = [&model, "--raw", "-p", "1\n2\n3\n", "--ignore-eos"];
    let output = interrupt(&args, true);
    let figures = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{figures}");
    assert!(figures.ends_with("· interrupted\n"), "{figures}");
    assert!(figures.contains("prompt 6 tokens"), "{figures}");

    let long = "hello ".repeat(60_000);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), long).expect("a prompt");
    let file = file.path().display().to_string();
    // Such a step takes a minute on two cores: the signal must be seen inside it.
    let args = [
        &model, "--raw", "-f", &file, "--ctx", "65536", "--chunk", "4096", "--device", "cpu",
    ];
    let started = std::time::Instant::now();
    let output = interrupt(&args, false);
    let figures = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{figures}");
    assert!(figures.contains("generated 0 tokens"), "{figures}");
    assert!(!figures.contains("prompt 60000"), "{figures}");
    // Within a second where nothing else runs.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

/// Sets a flag as soon as it hears of a tensor, and notes the layers that it hears of.
struct Stopping {
    flag: &'static AtomicBool,
    layers: Vec<Option<usize>>,
}

impl TraceSink for Stopping {
    fn wants(&self, _: TensorName) -> bool {
        true
    }

    fn record(&mut self, name: TensorName, _: usize, _: &[f32]) {
        self.layers.push(name.layer);
        self.flag.store(name.layer.is_some(), Ordering::Relaxed);
    }
}

#[test]
fn a_step_on_the_cpu_ends_in_its_middle() {
    static FLAG: AtomicBool = AtomicBool::new(false);
    let gguf = Gguf::open(&crate::support::model("smollm2")).expect("a file");
    let model = Arc::new(Model::from_gguf(&gguf).expect("a model"));
    let mut backend = CpuBackend::new(model, 1).interrupted_by(&FLAG);
    let step = Row {
        tokens: NewTokens::Known(&[1, 2, 3]),
        start: 0,
        pages: &[0],
        ask: Ask::LOGITS,
    };
    let mut sink = Stopping {
        flag: &FLAG,
        layers: Vec::new(),
    };
    let outcome = backend.step(&[step], &mut sink);
    assert!(
        matches!(outcome, Err(BackendError::Interrupted)),
        "{outcome:?}"
    );
    assert_eq!(
        sink.layers.iter().flatten().max(),
        Some(&0),
        "no layer but the first"
    );
    FLAG.store(false, Ordering::Relaxed);
    let outcome = backend.step(&[step], &mut NoTrace).expect("a step");
    assert!(matches!(&outcome[0], Ok(output) if !output.logits.is_empty()));
}
