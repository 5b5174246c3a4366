//! Guesses, right and wrong ones: no text changes.

use std::sync::Arc;

use hyperion::backend::PAGE_TOKENS;
use hyperion::engine::{Finish, Generation, Limits, Request, Scheduler};
use hyperion::sampling::SamplingParams;
use proptest::prelude::*;

use crate::setup::{CONTEXT, Outcome, Random, Tiny, alone, assert_same, request, run};
use crate::support::oracle::Oracle;

/// A drafter of these requests, of whose guesses `wrong` of eight are wrong; and their answers alone.
fn oracle(tiny: &Tiny, requests: &[Request], wrong: usize) -> (Oracle, Vec<Generation>) {
    let answers: Vec<Generation> = requests
        .iter()
        .map(|request| alone(tiny, request))
        .collect();
    let of_both = requests.iter().zip(&answers);
    let texts = of_both.map(|(request, answer)| [&request.prompt[..], &answer.tokens].concat());
    let oracle = Oracle {
        texts: Arc::new(texts.collect()),
        wrong,
        vocab: tiny.model.vocab(),
        seed: wrong as u64,
    };
    (oracle, answers)
}

fn speculate(scheduler: &mut Scheduler, most: usize, oracle: &Oracle) {
    let oracle = oracle.clone();
    scheduler.speculate(most, move || Box::new(oracle.clone()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn no_guess_changes_a_text(
        seeds in prop::collection::vec((any::<u64>(), any::<bool>(), 0usize..4), 1..7),
        extra_pages in 0usize..6,
        max_running in 1usize..6,
        most in 1usize..12,
        wrong in 0usize..9,
    ) {
        let tiny = Tiny::open("tiny-qwen3-q8_0-1");
        let vocab = tiny.model.vocab();
        let prefix = Random(1).tokens(130, vocab);
        let of_seed = |&(seed, has_prefix, _): &(u64, bool, usize)| {
            let prefix = if has_prefix { &prefix[..] } else { &[] };
            request(&mut Random(seed), vocab, prefix)
        };
        let requests: Vec<Request> = seeds.iter().map(of_seed).collect();
        let (oracle, answers) = oracle(&tiny, &requests, wrong);
        let n_pages = CONTEXT / PAGE_TOKENS + extra_pages;
        let mut scheduler = tiny.scheduler(tiny.on_cpu(n_pages), max_running);
        speculate(&mut scheduler, most, &oracle);
        let mut outcome = Outcome::default();
        let mut ids = Vec::new();
        for (request, &(_, _, steps)) in requests.iter().zip(&seeds) {
            ids.push(scheduler.add(request.clone()).expect("a request"));
            for _ in 0..steps {
                outcome.take(scheduler.step().expect("a step"));
            }
        }
        run(&mut scheduler, &mut outcome);
        outcome.check_streams();
        for (id, expected) in ids.iter().zip(&answers) {
            let found = &outcome.answers[id];
            assert_same(found, expected, &format!("{id:?}"));
            prop_assert!(found.stats.accepted <= found.stats.drafted);
        }
        prop_assert_eq!(scheduler.pages().n_free(), n_pages);
    }
}

/// A request for exactly `n` tokens.
fn long(tiny: &Tiny, n_prompt: usize, n: usize) -> Request {
    Request {
        prompt: Random(5).tokens(n_prompt, tiny.model.vocab()),
        sampling: SamplingParams::greedy(),
        limits: Limits {
            max_tokens: Some(n),
            ignore_end: true,
            ..Limits::default()
        },
        ..Request::default()
    }
}

/// Steps until all is done, and the one answer.
fn answer(scheduler: &mut Scheduler, request: &Request) -> (usize, Generation) {
    let mut outcome = Outcome::default();
    let id = scheduler.add(request.clone()).expect("a request");
    let mut steps = 0;
    while scheduler.is_busy() {
        outcome.take(scheduler.step().expect("a step"));
        steps += 1;
    }
    (steps, outcome.answers.remove(&id).expect("an answer"))
}

#[test]
fn right_guesses_save_steps_up_to_every_limit() {
    let tiny = Tiny::open("tiny-qwen3-q8_0-1");
    // The prompt takes a step, which gives a token; each step of 7 guesses gives 8.
    for (n_prompt, n, steps, finish) in [
        (20, 101, 1 + 13, Finish::Length),
        (20, 2, 1 + 1, Finish::Length),
        (CONTEXT - 40, 300, 5 + 5, Finish::Context),
    ] {
        let request = long(&tiny, n_prompt, n);
        let (oracle, answers) = oracle(&tiny, std::slice::from_ref(&request), 0);
        let mut scheduler = tiny.scheduler(tiny.on_cpu(CONTEXT / PAGE_TOKENS), 1);
        speculate(&mut scheduler, 7, &oracle);
        let (found_steps, found) = answer(&mut scheduler, &request);
        assert_same(&found, &answers[0], "right guesses");
        assert_eq!((found_steps, found.finish), (steps, finish), "{n} tokens");
        let stats = found.stats;
        assert_eq!(stats.accepted, stats.drafted);
        // The prompt's step and each later one choose one token that is no guess.
        let n_steps = stats.generated_tokens - stats.accepted;
        assert_eq!(n_steps, steps - n_prompt.div_ceil(48) + 1);
        assert_eq!(stats.prompt_tokens, n_prompt);
    }
}

#[test]
fn only_what_was_right_is_found_as_a_prefix() {
    let tiny = Tiny::open("tiny-qwen3-q8_0-1");
    let first = long(&tiny, 30, 150);
    for wrong in [0, 3, 8] {
        let (oracle, answers) = oracle(&tiny, std::slice::from_ref(&first), wrong);
        let mut scheduler = tiny.scheduler(tiny.on_cpu(8), 2);
        speculate(&mut scheduler, 9, &oracle);
        let (_, found) = answer(&mut scheduler, &first);
        assert_same(&found, &answers[0], "the first");
        let mut second = long(&tiny, 0, 20);
        second.prompt = [&first.prompt[..], &found.tokens, &[7, 7, 7]].concat();
        let (_, found) = answer(&mut scheduler, &second);
        // All of the text but its last token was computed.
        assert_eq!(found.stats.cached_tokens, 179 / PAGE_TOKENS * PAGE_TOKENS);
        assert_same(&found, &alone(&tiny, &second), "the second");
    }
}
