//! Deterministic steps of a device: bits that depend on nothing but a sequence's own tokens.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hyperion::backend::{ActivationPrecision, Ask, Backend, NewTokens, NoTrace, PAGE_TOKENS, Row};
use hyperion::engine::{Generation, Limits as RequestLimits, Request, RequestId};
use hyperion::gpu::{Arithmetic, GpuBackend, Limits};

use crate::noted_logits::Noted;
use crate::setup::{
    CONTEXT, Outcome, Random, Tiny, alone_on, assert_same, beside_each_other, request, run,
};
use crate::support::TINY_MODELS;
use crate::support::device::{device, device_lock};
use crate::support::oracle::Oracle;

static RUN: AtomicBool = AtomicBool::new(false);

pub fn deterministic(tiny: &Tiny, n_pages: usize, max_sequences: usize) -> Box<dyn Backend> {
    let limits = Limits {
        context: CONTEXT,
        n_pages,
        max_tokens: 64,
        max_sequences,
    };
    let arithmetic = Arithmetic {
        activations: ActivationPrecision::F16,
        is_deterministic: true,
    };
    let (model, device) = (tiny.model.clone(), device());
    let backend = GpuBackend::new(model, device, limits, arithmetic, &RUN, &mut |_| {});
    Box::new(backend.expect("a backend"))
}

/// Logits of tokens `from..to` of `text`, computed in one row, and beside it `others` rows of one or some tokens.
fn logits(
    backend: &mut dyn Backend,
    text: &[u32],
    (from, to): (usize, usize),
    others: &[usize],
) -> Vec<u32> {
    let own: Vec<u32> = (0..4).collect();
    let pages: Vec<[u32; 1]> = (4..4 + others.len() as u32).map(|page| [page]).collect();
    let mut rows: Vec<Row<'_>> = others
        .iter()
        .zip(&pages)
        .map(|(&n, pages)| Row {
            tokens: NewTokens::Known(&text[..n]),
            start: 0,
            pages,
            ask: Ask::GREEDY,
        })
        .collect();
    let row = Row {
        tokens: NewTokens::Known(&text[from..to]),
        start: from,
        pages: &own,
        ask: Ask::ALL_LOGITS,
    };
    let at = rows.len() / 2;
    rows.insert(at, row);
    let mut results = backend.step(&rows, &mut NoTrace).expect("a step");
    let output = results.swap_remove(at).expect("logits");
    output.logits.into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_tokens_bits_do_not_depend_on_its_step() {
    let _alone = device_lock();
    for name in TINY_MODELS {
        let tiny = Tiny::open(name);
        let n = PAGE_TOKENS + 9;
        let text = Random(9).tokens(n, tiny.model.vocab());
        let mut backend = deterministic(&tiny, 80, 70);
        let mut in_parts = |cuts: &[usize], others: &[usize]| {
            let bounds = cuts.windows(2).map(|cut| (cut[0], cut[1]));
            let parts = bounds.map(|part| logits(&mut *backend, &text, part, others));
            parts.flatten().collect::<Vec<u32>>()
        };
        let expected = in_parts(&[0, 20, 50, n], &[]);
        assert_eq!(
            in_parts(&[0, 63, 64, 65, n], &[]),
            expected,
            "{name}: other chunks"
        );
        assert_eq!(
            in_parts(&[0, 20, 50, n], &[1, 1, 1]),
            expected,
            "{name}: beside three"
        );
        let mut cuts = vec![0, 50];
        cuts.extend(n - 5..=n);
        assert_eq!(in_parts(&cuts, &[]), expected, "{name}: one by one");
        assert_eq!(
            in_parts(&cuts, &[1, 9, 1, 1, 1]),
            expected,
            "{name}: one by one, beside five"
        );
        // More rows than a block of the kernels has, twice so that the second step is recorded and the third one is
        // a replay.
        for _ in 0..3 {
            let found = in_parts(&[n - 1, n], &[1; 69]);
            assert_eq!(
                found[..],
                expected[expected.len() - found.len()..],
                "{name}: beside 69"
            );
        }
    }
}

/// Most requests are those of a small model; HYPERION_TEST_REQUESTS says how many all models have.
#[test]
fn each_request_gets_the_text_that_it_gets_alone() {
    let _alone = device_lock();
    let asked = std::env::var("HYPERION_TEST_REQUESTS").ok();
    let asked: Option<usize> = asked.map(|n| n.parse().expect("a number of requests"));
    // Simulated steps are slow, so answers are short.
    let beside_each_other = |tiny: &Tiny, n_requests: usize| {
        let mut scheduler = tiny.scheduler(deterministic(tiny, CONTEXT / PAGE_TOKENS + 1, 8), 8);
        let mut alone = tiny.scheduler(deterministic(tiny, CONTEXT / PAGE_TOKENS, 1), 1);
        beside_each_other(&mut scheduler, &mut alone, n_requests, 6)
    };
    let preemptions = beside_each_other(&Tiny::cropped(), asked.unwrap_or(40));
    assert!(
        preemptions > 0,
        "no pages ran out, so that nothing was tried"
    );
    for name in TINY_MODELS {
        beside_each_other(&Tiny::open(name), asked.unwrap_or(3));
    }
}

#[test]
fn guesses_change_no_bit() {
    let _alone = device_lock();
    for name in ["tiny-qwen3-q8_0-1"] {
        let tiny = Tiny::open(name);
        let mut random = Random(4);
        let mut requests: Vec<Request> = (0..4)
            .map(|_| request(&mut random, tiny.model.vocab(), &[]))
            .collect();
        for request in &mut requests {
            request.limits.max_tokens = Some(14);
        }
        let answers = |speculate: Option<Oracle>| -> Vec<Generation> {
            let mut scheduler =
                tiny.scheduler(deterministic(&tiny, CONTEXT / PAGE_TOKENS + 1, 8), 3);
            if let Some(oracle) = speculate {
                scheduler.speculate(4, move || Box::new(oracle.clone()));
            }
            let mut outcome = Outcome::default();
            let ids: Vec<RequestId> = requests
                .iter()
                .map(|request| scheduler.add(request.clone()).expect("a request"))
                .collect();
            run(&mut scheduler, &mut outcome);
            ids.iter()
                .filter_map(|id| outcome.answers.remove(id))
                .collect()
        };
        let expected = answers(None);
        let texts = requests.iter().zip(&expected);
        let texts = texts.map(|(request, answer)| [&request.prompt[..], &answer.tokens].concat());
        let oracle = Oracle {
            texts: Arc::new(texts.collect()),
            wrong: 2,
            vocab: tiny.model.vocab(),
            seed: 1,
        };
        let found = answers(Some(oracle));
        let mut accepted = 0;
        for (found, expected) in found.iter().zip(&expected) {
            accepted += found.stats.accepted;
            assert_same(found, expected, name);
        }
        assert!(accepted > 0, "{name}: no guess was right");
    }
}

#[test]
fn a_cached_prefix_gives_the_bits_of_a_cold_run() {
    let _alone = device_lock();
    for name in ["tiny-qwen3-q8_0-1", "tiny-gemma3-q4_k_m-1"] {
        let tiny = Tiny::open(name);
        let mut random = Random(2);
        let prefix = random.tokens(200, tiny.model.vocab());
        let request = |end: Vec<u32>| Request {
            prompt: [&prefix[..], &end].concat(),
            limits: RequestLimits {
                max_tokens: Some(3),
                ignore_end: true,
                ..RequestLimits::default()
            },
            ..Request::default()
        };
        let requests = [20, 25].map(|n| request(random.tokens(n, tiny.model.vocab())));
        let noted = Noted::default();
        let mut warm = tiny.scheduler(noted.of(deterministic(&tiny, 12, 2)), 2);
        let mut answers = Vec::new();
        for request in &requests {
            noted.take();
            let mut outcome = Outcome::default();
            let id = warm.add(request.clone()).expect("a request");
            run(&mut warm, &mut outcome);
            answers.push(outcome.answers.remove(&id).expect("an answer"));
        }
        assert_eq!(answers[1].stats.cached_tokens, 3 * PAGE_TOKENS);
        assert_eq!(answers[1].stats.prompt_tokens, 225 - 3 * PAGE_TOKENS);
        let logits = noted.take();
        let mut cold = tiny.scheduler(noted.of(deterministic(&tiny, 12, 2)), 2);
        assert_same(&answers[1], &alone_on(&mut cold, &requests[1]), name);
        assert_eq!(logits.len(), 3, "{name}: one for each token");
        assert!(logits == noted.take(), "{name}: other logits");
    }
}
