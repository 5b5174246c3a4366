//! Random requests in random orders, with far too few pages.

use hyperion::backend::PAGE_TOKENS;
use hyperion::engine::{EngineError, Limits, Request, Scheduler};
use proptest::prelude::*;

use crate::on_device::deterministic;
use crate::setup::{
    CONTEXT, Outcome, Random, Tiny, alone_on, assert_same, beside_each_other, request, run,
};
use crate::support::TINY_MODELS;
use crate::support::device::device_lock;

#[test]
fn each_of_forty_requests_gets_the_text_that_it_gets_alone() {
    for name in TINY_MODELS {
        let tiny = Tiny::open(name);
        // One request fits, and a bit of others.
        let mut scheduler = tiny.scheduler(tiny.on_cpu(CONTEXT / PAGE_TOKENS + 2), 8);
        let mut alone = tiny.scheduler(tiny.on_cpu(CONTEXT / PAGE_TOKENS), 1);
        let preemptions = beside_each_other(&mut scheduler, &mut alone, 40, 1);
        assert!(
            preemptions > 0,
            "{name}: no pages ran out, so that nothing was tried"
        );
    }
}

#[derive(Debug, Clone)]
enum Action {
    Add { seed: u64, has_prefix: bool },
    Step,
    Cancel(prop::sample::Index),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        2 => (any::<u64>(), any::<bool>())
            .prop_map(|(seed, has_prefix)| Action::Add { seed, has_prefix }),
        5 => Just(Action::Step),
        1 => any::<prop::sample::Index>().prop_map(Action::Cancel),
    ];
    prop::collection::vec(action, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_changes_a_text(
        actions in actions(),
        extra_pages in 0usize..6,
        max_running in 1usize..6,
    ) {
        let tiny = Tiny::open("tiny-qwen3-q8_0-1");
        let n_pages = CONTEXT / PAGE_TOKENS + extra_pages;
        let scheduler = tiny.scheduler(tiny.on_cpu(n_pages), max_running);
        let alone = tiny.scheduler(tiny.on_cpu(CONTEXT / PAGE_TOKENS), 1);
        check_schedule(scheduler, alone, actions, 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5, ..ProptestConfig::default() })]

    /// On a device two steps are under way, also when a request is cancelled or gives its pages back.
    #[test]
    fn no_schedule_changes_a_text_on_a_device(
        actions in actions(),
        extra_pages in 0usize..3,
        max_running in 1usize..6,
    ) {
        let _alone = device_lock();
        let tiny = Tiny::cropped();
        let n_pages = CONTEXT / PAGE_TOKENS + extra_pages;
        let scheduler = tiny.scheduler(deterministic(&tiny, n_pages, max_running), max_running);
        let alone = tiny.scheduler(deterministic(&tiny, CONTEXT / PAGE_TOKENS, 1), 1);
        check_schedule(scheduler, alone, actions, 4);
    }
}

/// Requests that are asked of `scheduler` and cancelled as `actions` say get the texts that `alone` gives them, of
/// which they ask one `share`th of what is usual.
fn check_schedule(
    mut scheduler: Scheduler,
    mut alone: Scheduler,
    actions: Vec<Action>,
    share: usize,
) {
    let vocab = scheduler.model().vocab();
    let prefix = Random(1).tokens(130, vocab);
    let mut outcome = Outcome::default();
    let mut sent = Vec::new();
    for action in actions {
        match action {
            Action::Add { seed, has_prefix } => {
                let prefix = if has_prefix { &prefix[..] } else { &[] };
                let mut request = request(&mut Random(seed), vocab, prefix);
                request.limits.max_tokens = request.limits.max_tokens.map(|n| n.div_ceil(share));
                sent.push((scheduler.add(request.clone()).expect("a request"), request));
            }
            Action::Step => outcome.take(scheduler.step().expect("a step")),
            Action::Cancel(index) => {
                if !sent.is_empty() {
                    scheduler.cancel(sent[index.index(sent.len())].0);
                }
            }
        }
    }
    run(&mut scheduler, &mut outcome);
    outcome.check_streams();
    for (id, request) in &sent {
        let expected = alone_on(&mut alone, request);
        assert_same(&outcome.answers[id], &expected, &format!("{id:?}"));
    }
    assert_eq!(scheduler.pages().n_free(), scheduler.pages().n_pages());
}

/// While a request writes, short ones come without end: a long prompt starts after those that came before it.
#[test]
fn a_long_prompt_is_not_overtaken() {
    let tiny = Tiny::open("tiny-qwen3-q8_0-1");
    let vocab = tiny.model.vocab();
    let mut scheduler = tiny.scheduler(tiny.on_cpu(8), 3);
    let mut random = Random(3);
    let mut short = |n| Request {
        prompt: random.tokens(n, vocab),
        limits: Limits {
            max_tokens: Some(5),
            ignore_end: true,
            ..Limits::default()
        },
        ..Request::default()
    };
    let mut outcome = Outcome::default();
    for _ in 0..4 {
        scheduler.add(short(10)).expect("a request");
    }
    let long = scheduler.add(short(200)).expect("a request");
    let mut later = Vec::new();
    while !outcome.answers.contains_key(&long) {
        later.push(scheduler.add(short(10)).expect("a request"));
        outcome.take(scheduler.step().expect("a step"));
        assert!(later.len() < 500, "the long prompt starves");
    }
    let overtaking = later
        .iter()
        .filter(|id| outcome.answers.contains_key(id))
        .count();
    // Beside it others run, but none that has to wait for its place.
    assert!(
        overtaking <= 20,
        "{overtaking} later requests were done first"
    );
}

#[test]
fn what_can_never_run_is_refused_at_once() {
    let tiny = Tiny::open("tiny-qwen3-q8_0-1");
    let mut scheduler = tiny.scheduler(tiny.on_cpu(2), 4);
    assert_eq!(
        scheduler.context(),
        2 * PAGE_TOKENS,
        "no more than the pages hold"
    );
    let prompt = |prompt| Request {
        prompt,
        ..Request::default()
    };
    let refused = scheduler.add(prompt(vec![1; 2 * PAGE_TOKENS + 1]));
    assert!(matches!(
        refused,
        Err(EngineError::Context {
            needed: 129,
            context: 128
        })
    ));
    assert!(matches!(
        scheduler.add(prompt(Vec::new())),
        Err(EngineError::EmptyPrompt)
    ));
    let unknown = tiny.model.vocab() as u32;
    assert!(matches!(
        scheduler.add(prompt(vec![1, unknown])),
        Err(EngineError::Backend(_))
    ));
    let mut many = prompt(vec![1]);
    many.logprobs = Some(21);
    assert!(matches!(scheduler.add(many), Err(EngineError::Logprobs)));
    assert!(!scheduler.is_busy());
}

/// Another request's end is not waited for.
#[test]
fn a_cancelled_request_ends_with_the_next_step() {
    let tiny = Tiny::open("tiny-qwen3-q8_0-1");
    let mut scheduler = tiny.scheduler(tiny.on_cpu(8), 2);
    let long = Request {
        prompt: vec![5; 200],
        limits: Limits {
            ignore_end: true,
            ..Limits::default()
        },
        ..Request::default()
    };
    let ids: Vec<_> = (0..3)
        .map(|_| scheduler.add(long.clone()).expect("a request"))
        .collect();
    let mut outcome = Outcome::default();
    // One reads its prompt, one waits.
    outcome.take(scheduler.step().expect("a step"));
    for id in [ids[0], ids[2]] {
        scheduler.cancel(id);
        outcome.take(scheduler.step().expect("a step"));
        assert!(outcome.answers[&id].tokens.is_empty());
    }
    assert_eq!((scheduler.n_running(), scheduler.n_waiting()), (1, 0));
    run(&mut scheduler, &mut outcome);
    assert_eq!(outcome.answers.len(), 3);
    assert_eq!(scheduler.pages().n_free(), 8);
}
