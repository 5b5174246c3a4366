//! Devices that fail, and such whose steps nobody can end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyperion::backend::{ActivationPrecision, Backend, BackendError};
use hyperion::cpu::CpuBackend;
use hyperion::device::sim::SimDevice;
use hyperion::gpu::{GpuBackend, Limits};
use hyperion::model::Model;
use hyperion::ptx;
use hyperion::server::{EngineFailure, ServeError};
use serde_json::{Value, json};

use crate::client::{Connection, request_bytes};
use crate::in_process::{ask, ask_at, config, get, health, start};
use crate::server::{CHAT, JSON, TEXT};
use crate::support::altered::Altered;

static FAILS: AtomicBool = AtomicBool::new(false);

/// The simulator, whose steps fail when they are to.
fn on_simulator(model: Arc<Model>) -> Box<dyn Backend> {
    static RUN: AtomicBool = AtomicBool::new(false);
    let device = Arc::new(SimDevice::open(&ptx::embedded()).expect("a simulator"));
    let limits = Limits {
        context: 1024,
        n_pages: 16,
        max_tokens: 64,
        max_sequences: 4,
    };
    let precision = ActivationPrecision::Q8;
    let inner = GpuBackend::new(model, device, limits, precision, &RUN, &mut |_| {});
    let inner = inner.expect("a backend");
    let results = |results| match FAILS.load(Ordering::Relaxed) {
        true => Err(BackendError::Device("an illegal address".into())),
        false => Ok(results),
    };
    Box::new(Altered::new(Box::new(inner), || Ok(())).with_results(results))
}

#[test]
fn a_device_that_fails_ends_all_answers_and_the_server() {
    let mut config = config(0, Duration::from_secs(5));
    config.limits.body_time = Duration::from_secs(30);
    let (address, run) = start(config, on_simulator);
    let messages = json!([{"role": "user", "content": "hi"}]);
    let endless = [
        (
            TEXT,
            json!({"prompt": "x", "max_tokens": -1, "ignore_eos": true, "stream": true}),
        ),
        (
            CHAT,
            json!({"messages": messages, "ignore_eos": true, "stream": true}),
        ),
        (
            "/v1/responses",
            json!({"input": "hi", "ignore_eos": true, "stream": true}),
        ),
        (
            "/v1/messages",
            json!({"messages": messages, "max_tokens": 900, "ignore_eos": true, "stream": true}),
        ),
    ];
    let mut streams = endless.map(|(path, body)| {
        let mut stream = ask_at(address, path, &body);
        assert_eq!(stream.head().0, 200, "{path}");
        (path, stream)
    });
    let whole = ask(
        address,
        &json!({"prompt": "x", "max_tokens": -1, "ignore_eos": true}),
    );
    // A request that does not come to its end holds the server up, but not for long.
    let mut slow = Connection::open(address);
    slow.send(&request_bytes(
        "POST",
        TEXT,
        &[JSON, ("content-length", "100")],
        b"{",
    ));
    assert_eq!(health(address), 200);

    FAILS.store(true, Ordering::Relaxed);
    let start = Instant::now();
    while health(address) != 503 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it does not fail"
        );
    }
    let failed = Instant::now();
    for (path, stream) in &mut streams {
        let last = std::iter::from_fn(|| stream.event())
            .last()
            .expect("an event");
        let last: Value = serde_json::from_str(&last).expect("JSON");
        let (kind, error) = match *path {
            "/v1/responses" => (&last["type"], &last["response"]["error"]),
            "/v1/messages" => (&last["type"], &last["error"]),
            _ => (&last["error"]["type"], &last["error"]),
        };
        let expected = match *path {
            "/v1/responses" => "response.failed",
            "/v1/messages" => "error",
            _ => "server_error",
        };
        assert_eq!(kind, expected, "{path}: {last}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains("illegal address"), "{path}: {message}");
    }
    // It may have come to the engine before or after.
    assert!([500, 503].contains(&whole.reply().status));
    let outcome = run.join().expect("an end");
    assert!(failed.elapsed() < Duration::from_secs(5));
    let failure = match outcome {
        Err(ServeError::Engine(EngineFailure::Device(failure))) => failure,
        other => panic!("{other:?}"),
    };
    assert!(matches!(*failure, BackendError::Device(_)), "{failure}");
}

/// A GPU does not look for an interrupt within a step.
#[test]
fn a_client_that_leaves_is_noticed_between_the_parts_of_its_prompt() {
    let backend = |model| -> Box<dyn Backend> { Box::new(CpuBackend::new(model, 2000)) };
    let (address, _run) = start(config(0, Duration::from_secs(5)), backend);
    // Minutes, in steps of 64 tokens.
    let long = json!({"prompt": vec![5; 90_000], "stream": true, "max_tokens": 1});
    let reads = ask(address, &long);
    let gauge = |name: &str| {
        let metrics = get(address, "/metrics");
        let line = metrics.text().lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value
            .and_then(|value| value.parse::<f64>().ok())
            .expect("a number")
    };
    let held = || {
        let of_requests = ["hyperion_requests_waiting", "hyperion_requests_running"].map(gauge);
        of_requests.iter().sum::<f64>() + gauge("hyperion_kv_pages_used")
    };
    let start = Instant::now();
    while held() == 0.0 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it does not begin"
        );
    }
    drop(reads);
    let start = Instant::now();
    while held() > 0.0 {
        assert!(start.elapsed() < Duration::from_secs(20), "it goes on");
    }
    assert_eq!(gauge("hyperion_cancellations_total"), 1.0);
}
