//! Backends that fail: only what has to ends, and no page is lost.

use std::sync::mpsc::channel;

use hyperion::backend::{Backend, BackendError, Draw, NotFinite, RowResult};
use hyperion::engine::{EngineError, Finish, Limits as RequestLimits, Request};
use hyperion::sampling::SamplingParams;
use proptest::prelude::*;

use crate::setup::{Outcome, Random, Tiny, alone, assert_same, request, run};
use crate::support::altered::Altered;

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

/// `inner` with these faults, one for each step.
fn faulty(inner: Box<dyn Backend>, faults: Vec<Fault>) -> Box<Altered> {
    let mut faults = faults.into_iter();
    let (sent, of_results) = channel();
    let before = move || match faults.next().unwrap_or(Fault::None) {
        Fault::Submit => Err(BackendError::Device("refused".into())),
        Fault::Interrupt => Err(BackendError::Interrupted),
        fault => {
            sent.send(fault).expect("results are collected");
            Ok(())
        }
    };
    let after = move |mut results: Vec<RowResult>| {
        match of_results.recv().expect("a step was submitted") {
            Fault::Collect => return Err(BackendError::Device("lost".into())),
            Fault::Row => {
                if let Some(result) = results.get_mut(1) {
                    let (sequence, position) = (1, 0);
                    *result = Err(NotFinite { sequence, position }.into());
                }
            }
            Fault::None | Fault::Submit | Fault::Interrupt => {}
        }
        Ok(results)
    };
    Box::new(Altered::new(inner, before).with_results(after))
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
        let backend = faulty(tiny.on_cpu(8), faults.clone());
        let mut scheduler = tiny.scheduler(backend, 3);
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

/// Whoever waits for a cancelled request hears of its end, though the step of its neighbour is stopped.
#[test]
fn an_end_is_told_though_the_step_is_interrupted() {
    let tiny = Tiny::open("tiny-qwen3-q8_0-1");
    let faults = vec![Fault::None, Fault::Interrupt, Fault::Interrupt];
    let mut scheduler = tiny.scheduler(faulty(tiny.on_cpu(16), faults), 2);
    let asked = |token| Request {
        prompt: vec![token; 3],
        limits: RequestLimits {
            max_tokens: Some(4),
            ..RequestLimits::default()
        },
        ..Request::default()
    };
    let ids: Vec<_> = (0..3)
        .map(|token| scheduler.add(asked(token)).expect("a request"))
        .collect();
    let mut outcome = Outcome::default();
    outcome.take(scheduler.step().expect("a step"));
    // One that runs, and one that waits.
    scheduler.cancel(ids[1]);
    scheduler.cancel(ids[2]);
    outcome.take(scheduler.step().expect("their ends"));
    for id in &ids[1..] {
        assert_eq!(outcome.answers[id].finish, Finish::Interrupted);
    }
    // Nothing is left to tell.
    let stopped = scheduler.step();
    assert!(
        matches!(stopped, Err(EngineError::Interrupted)),
        "{stopped:?}"
    );
    run(&mut scheduler, &mut outcome);
    assert_same(
        &outcome.answers[&ids[0]],
        &alone(&tiny, &asked(0)),
        "the neighbour",
    );
}

/// The message names the fault, and the neighbours have their text.
#[test]
fn a_row_that_fails_fails_alone() {
    let tiny = Tiny::open("tiny-qwen3-q8_0-1");
    let backend = faulty(tiny.on_cpu(16), vec![Fault::None, Fault::Row]);
    let mut scheduler = tiny.scheduler(backend, 4);
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
