//! Calls to the driver fail once in the middle of a batch, each of them with HYPERION_TEST_EVERY_CALL: the requests of the
//! step end with an error and no others do, no page is lost or doubled, and nothing that was cached is wrong afterwards.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use hyperion::backend::{
    ActivationPrecision, Backend, BackendError, Draw, Limits as StepLimits, Row, RowResult, Ticket,
    TraceSink,
};
use hyperion::device::Device;
use hyperion::device::sim::SimDevice;
use hyperion::engine::{
    Generation, Limits as RequestLimits, Options, Page, Request, RequestId, Scheduler,
};
use hyperion::gpu::{Arithmetic, GpuBackend, Limits};
use hyperion::model::Model;
use hyperion::ptx;
use hyperion::sampling::SamplingParams;

use crate::setup::{Outcome, Random, Tiny, assert_same, run};
use crate::support::failing_device::{Calls, FailingDevice, Failure, TAKE_MEMORY};

const N_PAGES: usize = 6;

/// A batch, and how it runs.
struct Batch {
    requests: Vec<Request>,
    /// Tokens of a step, at most.
    chunk: usize,
    is_deterministic: bool,
}

/// Three requests beside each other and one that waits: a prompt longer than a page and than a step, one that needs
/// the host between its tokens, one whose tokens the host chooses, and one that the device chooses. A request's bits
/// do not depend on its neighbours, some of which end early.
fn mixed() -> Batch {
    let drawn = SamplingParams::drawn(Draw {
        temperature: 1.5,
        seed: 3,
        ..Draw::default()
    });
    let with_host = |params: &SamplingParams| SamplingParams {
        draw: Draw {
            typical_p: 0.9,
            ..params.draw
        },
        ..params.clone()
    };
    let penalized = SamplingParams {
        repeat_penalty: 1.3,
        ..drawn.clone()
    };
    let requests = [
        (66, SamplingParams::default(), 4),
        (3, penalized, 5),
        (5, with_host(&drawn), 3),
        (4, drawn, 5),
    ];
    Batch {
        requests: requests.map(request).into(),
        chunk: 48,
        is_deterministic: true,
    }
}

/// A prompt of so many rows that matrices are copied as f16 first.
fn long() -> Batch {
    Batch {
        requests: vec![request((66, SamplingParams::default(), 2))],
        chunk: 128,
        is_deterministic: false,
    }
}

fn request((n_prompt, sampling, max_tokens): (usize, SamplingParams, usize)) -> Request {
    Request {
        prompt: Random(n_prompt as u64).tokens(n_prompt, 500),
        sampling,
        limits: RequestLimits {
            max_tokens: Some(max_tokens),
            ignore_end: true,
            ..RequestLimits::default()
        },
        logprobs: Some(2),
        ..Request::default()
    }
}

/// A batch's scheduler on a device whose calls can be made to fail.
struct Setup {
    scheduler: Scheduler,
    calls: Calls,
    /// Rows of each step that failed.
    failed_steps: Arc<Mutex<Vec<usize>>>,
}

impl Setup {
    fn new(batch: &Batch, tiny: &Tiny, device: &Arc<SimDevice>) -> Setup {
        static RUN: AtomicBool = AtomicBool::new(false);
        let calls = Calls::default();
        let device = Arc::new(FailingDevice {
            inner: device.clone(),
            calls: calls.clone(),
        });
        let limits = Limits {
            context: 128,
            n_pages: N_PAGES,
            max_tokens: batch.chunk,
            max_sequences: 3,
        };
        let arithmetic = Arithmetic {
            activations: ActivationPrecision::F16,
            is_deterministic: batch.is_deterministic,
        };
        let model = tiny.model.clone();
        let inner = GpuBackend::new(model, device, limits, arithmetic, &RUN, &mut |_| {});
        let failed_steps = Arc::default();
        let backend = Watched {
            inner: inner.expect("a backend"),
            failed: Arc::clone(&failed_steps),
            under_way: Vec::new(),
        };
        let options = Options {
            context: 128,
            chunk: batch.chunk,
            mixed_chunk: 20,
            max_running: 3,
        };
        Setup {
            scheduler: Scheduler::new(Box::new(backend), tiny.tokenizer.clone(), options),
            calls,
            failed_steps,
        }
    }

    /// Runs the batch to its end, with what is cached of it.
    fn run(&mut self, batch: &Batch) -> (Vec<RequestId>, Outcome) {
        let scheduler = &mut self.scheduler;
        let requests = batch.requests.iter().cloned();
        let ids = requests.map(|request| scheduler.add(request).expect("a request"));
        let ids: Vec<RequestId> = ids.collect();
        let mut outcome = Outcome::default();
        run(scheduler, &mut outcome);
        assert_eq!(outcome.answers.len() + outcome.failed.len(), ids.len());
        (ids, outcome)
    }

    /// Nobody has a page, and each can be had once.
    fn check_pages(&self, what: &str) {
        let pages = self.scheduler.pages();
        assert_eq!(pages.n_free(), N_PAGES, "{what}");
        let pages = pages.clone();
        let all: Vec<Page> = std::iter::from_fn(|| pages.allocate()).collect();
        let distinct: HashSet<u32> = all.iter().map(Page::id).collect();
        assert_eq!((all.len(), distinct.len()), (N_PAGES, N_PAGES), "{what}");
    }

    /// The answers where nothing fails and nothing is cached, and what calls that takes.
    fn undisturbed(&mut self, batch: &Batch) -> (Vec<Generation>, Vec<&'static str>) {
        self.scheduler.pages().forget();
        self.calls.heal();
        let (ids, mut outcome) = self.run(batch);
        let answers = ids.iter().map(|id| outcome.answers.remove(id));
        let answers = answers.map(|answer| answer.expect("an answer")).collect();
        (answers, self.calls.made())
    }

    /// Lets call `number` of a batch fail, and checks what becomes of it and of what is asked afterwards. What failed,
    /// and how many requests ended with it; `None` where that call cannot fail so.
    fn fail(
        &mut self,
        batch: &Batch,
        expected: &[Generation],
        (number, failure): (usize, Failure),
    ) -> Option<Failed> {
        self.scheduler.pages().forget();
        self.calls.fail(number, failure);
        let (ids, outcome) = self.run(batch);
        let call = self.calls.failed()?;
        let what = format!("call {number} ({call}), {failure:?}");
        let steps = std::mem::take(&mut *self.failed_steps.lock().expect("a list"));
        let n_requests = outcome.failed.len();
        match steps[..] {
            [] => assert_eq!(n_requests, 0, "{what}: {:?}", outcome.failed),
            // What was to be computed is lost with its step, and nothing else.
            [rows] => assert!(
                (1..=rows).contains(&n_requests),
                "{what}: {n_requests} of {rows}"
            ),
            _ => assert_eq!(failure, Failure::Lost, "{what}: {steps:?} rows failed"),
        }
        for error in outcome.failed.values() {
            let is_named = failure == Failure::Lost || error.contains(call);
            assert!(is_named, "{what}: {error}");
        }
        check(&ids, &outcome, expected, &what);
        self.calls.heal();
        if !batch.is_deterministic {
            // Its bits depend on where a prompt is cut.
            self.scheduler.pages().forget();
        }
        let (ids, outcome) = self.run(batch);
        assert!(
            outcome.failed.is_empty(),
            "{what}: later {:?}",
            outcome.failed
        );
        check(&ids, &outcome, expected, &format!("{what}, later"));
        self.check_pages(&what);
        Some(Failed {
            call,
            failure,
            n_requests,
        })
    }
}

/// What failed.
struct Failed {
    call: &'static str,
    failure: Failure,
    /// Requests that ended with it.
    n_requests: usize,
}

/// Those that have an answer have the right one.
fn check(ids: &[RequestId], outcome: &Outcome, expected: &[Generation], what: &str) {
    for (id, expected) in ids.iter().zip(expected) {
        if let Some(answer) = outcome.answers.get(id) {
            assert_same(answer, expected, &format!("{what}: {id:?}"));
        }
    }
}

fn simulator() -> Arc<SimDevice> {
    let device = SimDevice::of_capability(&ptx::embedded(), (9, 0));
    Arc::new(device.expect("a simulator"))
}

/// Calls that are made once, and so fail in a backend that is new.
const FIRST: [&str; 3] = ["alloc", "kernel", "capture"];

/// Lets each call of a batch fail in each way, those of every `n_parts`th one from `part` on.
fn fail_part(batch: &Batch, part: usize, n_parts: usize) -> Vec<Failed> {
    // A device of its own: recording a graph is a device's, not a thread's.
    let (tiny, device) = (Tiny::cropped(), simulator());
    let free = device.memory().expect("the memory").free;
    let mut setup = Setup::new(batch, &tiny, &device);
    let (expected, first_calls) = setup.undisturbed(batch);
    let mut failed = Vec::new();
    let is_first = |&(_, call): &(usize, &&str)| FIRST.contains(call);
    let firsts = first_calls.iter().enumerate().filter(is_first);
    for (number, _) in firsts.skip(part).step_by(n_parts) {
        for failure in [Failure::OutOfMemory, Failure::Once] {
            let mut setup = Setup::new(batch, &tiny, &device);
            failed.extend(setup.fail(batch, &expected, (number, failure)));
        }
    }
    // All steps are recorded by now.
    let [_, _, calls] = [(); 3].map(|()| setup.undisturbed(batch).1);
    // The first of each kind, and some of the others: all of them take two minutes.
    let every = match std::env::var_os("HYPERION_TEST_EVERY_CALL") {
        Some(_) => 1,
        None => 3,
    };
    let mut seen = HashSet::new();
    let calls = calls.into_iter().enumerate();
    let calls = calls.filter(|&(number, call)| seen.insert(call) || number.is_multiple_of(every));
    for (number, call) in calls.skip(part).step_by(n_parts) {
        let no_memory = TAKE_MEMORY.contains(&call).then_some(Failure::OutOfMemory);
        // Each step has calls enough for the device to be lost at some of them.
        let lost = (number / n_parts)
            .is_multiple_of(4)
            .then_some(Failure::Lost);
        for failure in [Some(Failure::Once), no_memory, lost].into_iter().flatten() {
            failed.extend(setup.fail(batch, &expected, (number, failure)));
        }
    }
    drop(setup);
    assert_eq!(device.memory().expect("the memory").free, free);
    failed
}

/// Lets each call of a batch fail in each way.
fn fail_each(batch: fn() -> Batch) -> Vec<Failed> {
    let n_parts = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_parts)
            .map(|part| scope.spawn(move || fail_part(&batch(), part, n_parts)))
            .collect();
        let parts = threads.into_iter().map(|thread| thread.join());
        parts.flat_map(|part| part.expect("a part")).collect()
    })
}

#[test]
fn a_call_that_fails_ends_its_step_and_nothing_else() {
    let failed = fail_each(mixed);
    let of = |call, failure| {
        let is_it = move |failed: &&Failed| failed.call == call && failed.failure == failure;
        failed.iter().filter(is_it)
    };
    for call in [
        "upload", "download", "kernel", "launch", "capture", "replay", "mark", "wait",
    ] {
        assert!(of(call, Failure::Once).count() > 0, "no {call}");
        assert!(
            of(call, Failure::Once).all(|failed| failed.n_requests > 0),
            "{call}"
        );
    }
    // Steps go on without a graph.
    assert!(of("capture", Failure::OutOfMemory).count() > 0);
    assert!(of("capture", Failure::OutOfMemory).all(|failed| failed.n_requests == 0));
}

#[test]
fn copies_of_matrices_that_find_no_memory_change_no_text() {
    let failed = fail_each(long);
    let no_memory =
        |failed: &&Failed| (failed.call, failed.failure) == ("alloc", Failure::OutOfMemory);
    let copies: Vec<&Failed> = failed.iter().filter(no_memory).collect();
    assert_eq!(copies.len(), 8, "one of each matrix");
    assert!(copies.iter().all(|failed| failed.n_requests == 0));
}

/// Notes how many rows each step had that failed.
struct Watched {
    inner: GpuBackend,
    failed: Arc<Mutex<Vec<usize>>>,
    under_way: Vec<(Ticket, usize)>,
}

impl Backend for Watched {
    fn model(&self) -> &Arc<Model> {
        self.inner.model()
    }

    fn limits(&self) -> StepLimits {
        Backend::limits(&self.inner)
    }

    fn submit(
        &mut self,
        rows: &[Row<'_>],
        trace: &mut dyn TraceSink,
    ) -> Result<Ticket, BackendError> {
        let submitted = self.inner.submit(rows, trace);
        match &submitted {
            Ok(ticket) => self.under_way.push((*ticket, rows.len())),
            Err(_) => self.failed.lock().expect("a list").push(rows.len()),
        }
        submitted
    }

    fn collect(&mut self, ticket: Ticket) -> Result<Vec<RowResult>, BackendError> {
        let collected = self.inner.collect(ticket);
        let at = self
            .under_way
            .iter()
            .position(|&(other, _)| other == ticket);
        let (_, n) = self.under_way.remove(at.expect("a step under way"));
        if collected.is_err() {
            self.failed.lock().expect("a list").push(n);
        }
        collected
    }

    fn overlaps(&self) -> bool {
        self.inner.overlaps()
    }

    fn description(&self) -> String {
        self.inner.description()
    }
}
