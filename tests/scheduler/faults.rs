//! Backends that fail: only what has to ends, and no page is lost.

use std::sync::Arc;

use hyperion::backend::{
    Backend, BackendError, Draw, Limits, NotFinite, Row, RowResult, Ticket, TraceSink,
};
use hyperion::engine::{Limits as RequestLimits, Request};
use hyperion::model::Model;
use hyperion::sampling::SamplingParams;
use proptest::prelude::*;

use crate::setup::{Outcome, Random, Tiny, alone, assert_same, request, run};

/// What goes wrong with a step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// It is refused.
    Submit,
    /// Its results are lost.
    Collect,
    /// Row 1 has a NaN.
    Row,
    /// Somebody stops it.
    Interrupt,
}

/// A backend with these faults, one for each step.
struct Faulty {
    inner: Box<dyn Backend>,
    faults: Vec<Fault>,
    step: usize,
    collected: Fault,
}

impl Backend for Faulty {
    fn model(&self) -> &Arc<Model> {
        self.inner.model()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn submit(
        &mut self,
        rows: &[Row<'_>],
        trace: &mut dyn TraceSink,
    ) -> Result<Ticket, BackendError> {
        let fault = self.faults.get(self.step).copied().unwrap_or(Fault::None);
        self.step += 1;
        match fault {
            Fault::Submit => Err(BackendError::Device("refused".into())),
            Fault::Interrupt => Err(BackendError::Interrupted),
            fault => {
                self.collected = fault;
                self.inner.submit(rows, trace)
            }
        }
    }

    fn collect(&mut self, ticket: Ticket) -> Result<Vec<RowResult>, BackendError> {
        let mut results = self.inner.collect(ticket)?;
        match std::mem::replace(&mut self.collected, Fault::None) {
            Fault::Collect => Err(BackendError::Device("lost".into())),
            Fault::Row => {
                if let Some(result) = results.get_mut(1) {
                    let (sequence, position) = (1, 0);
                    *result = Err(NotFinite { sequence, position }.into());
                }
                Ok(results)
            }
            _ => Ok(results),
        }
    }

    fn description(&self) -> String {
        self.inner.description()
    }
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop_oneof![
        12 => Just(Fault::None),
        1 => Just(Fault::Submit),
        1 => Just(Fault::Collect),
        1 => Just(Fault::Row),
        2 => Just(Fault::Interrupt),
    ];
    prop::collection::vec(fault, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn a_failed_step_ends_its_own_requests(faults in faults(), seed in any::<u64>()) {
        let tiny = Tiny::open("tiny-qwen3-q8_0-1");
        let vocab = tiny.model.vocab();
        let backend = Faulty {
            inner: tiny.on_cpu(8),
            faults: faults.clone(),
            step: 0,
            collected: Fault::None,
        };
        let mut scheduler = tiny.scheduler(Box::new(backend), 3);
        let mut random = Random(seed);
        let mut outcome = Outcome::default();
        let mut sent = Vec::new();
        for _ in 0..8 {
            let request = request(&mut random, vocab, &[]);
            sent.push((scheduler.add(request.clone()).expect("a request"), request));
        }
        while scheduler.is_busy() {
            if let Ok(events) = scheduler.step() {
                outcome.take(events);
            }
        }
        prop_assert_eq!(outcome.answers.len() + outcome.failed.len(), sent.len());
        for (id, request) in &sent {
            if let Some(found) = outcome.answers.get(id) {
                assert_same(found, &alone(&tiny, request), &format!("{id:?}"));
            }
        }
        let harmless = |fault: &Fault| matches!(fault, Fault::None | Fault::Interrupt);
        if faults.iter().all(harmless) {
            prop_assert!(outcome.failed.is_empty());
        }
        prop_assert_eq!(scheduler.pages().n_free(), 8);
        // And it goes on.
        let next = Request {
            prompt: vec![1, 2, 3],
            limits: RequestLimits { max_tokens: Some(3), ..RequestLimits::default() },
            ..Request::default()
        };
        scheduler.add(next).expect("a request");
        scheduler.step().ok();
        run_on(&mut scheduler);
        prop_assert_eq!(scheduler.pages().n_free(), 8);
    }
}

fn run_on(scheduler: &mut hyperion::engine::Scheduler) {
    while scheduler.is_busy() {
        scheduler.step().ok();
    }
}

/// The message names the fault, and the neighbours have their text.
#[test]
fn a_row_that_fails_fails_alone() {
    let tiny = Tiny::open("tiny-qwen3-q8_0-1");
    let backend = Faulty {
        inner: tiny.on_cpu(16),
        faults: vec![Fault::None, Fault::Row],
        step: 0,
        collected: Fault::None,
    };
    let mut scheduler = tiny.scheduler(Box::new(backend), 4);
    let request = |seed| Request {
        prompt: vec![3, 4, 5],
        sampling: SamplingParams::drawn(Draw {
            seed,
            ..Draw::default()
        }),
        limits: RequestLimits {
            max_tokens: Some(6),
            ..RequestLimits::default()
        },
        logprobs: None,
        ..Request::default()
    };
    let ids: Vec<_> = (0..3)
        .map(|seed| scheduler.add(request(seed)).expect("a request"))
        .collect();
    let mut outcome = Outcome::default();
    run(&mut scheduler, &mut outcome);
    assert!(
        outcome.failed[&ids[1]].contains("not finite"),
        "{:?}",
        outcome.failed
    );
    for (seed, id) in [(0, ids[0]), (2, ids[2])] {
        assert_same(
            &outcome.answers[&id],
            &alone(&tiny, &request(seed)),
            "a neighbour",
        );
    }
}
