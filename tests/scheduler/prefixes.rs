//! What others computed already is found, and changes nothing.

use hyperion::backend::PAGE_TOKENS;
use hyperion::engine::{Limits, Request};

use crate::noted_logits::Noted;
use crate::setup::{Outcome, Random, Tiny, alone_on, assert_same, run};
use crate::support::TINY_MODELS;

#[test]
fn a_common_prefix_is_computed_once() {
    for name in TINY_MODELS {
        let tiny = Tiny::open(name);
        let vocab = tiny.model.vocab();
        let mut random = Random(11);
        let prefix = random.tokens(200, vocab);
        let noted = Noted::default();
        let mut scheduler = tiny.scheduler(noted.of(tiny.on_cpu(12)), 4);
        let mut alone = tiny.scheduler(noted.of(tiny.on_cpu(12)), 1);
        let mut outcome = Outcome::default();
        for expected in [0, 3 * PAGE_TOKENS] {
            let request = Request {
                prompt: [&prefix[..], &random.tokens(20, vocab)].concat(),
                limits: Limits {
                    max_tokens: Some(8),
                    ignore_end: true,
                    ..Limits::default()
                },
                ..Request::default()
            };
            let id = scheduler.add(request.clone()).expect("a request");
            run(&mut scheduler, &mut outcome);
            let found = &outcome.answers[&id];
            assert_eq!(found.stats.cached_tokens, expected, "{name}");
            assert_eq!(found.stats.prompt_tokens, 220 - expected, "{name}");
            let logits = noted.take();
            assert_same(found, &alone_on(&mut alone, &request), name);
            assert_eq!(logits.len(), 8, "{name}: one for each token");
            assert!(logits == noted.take(), "{name}: other logits");
        }
    }
}

/// An answer's own pages serve the next turn.
#[test]
fn a_conversation_goes_on_where_it_was() {
    let tiny = Tiny::open("tiny-llama-q4_k_m-1");
    let mut scheduler = tiny.scheduler(tiny.on_cpu(12), 4);
    let mut prompt = Random(5).tokens(50, tiny.model.vocab());
    let mut cached = Vec::new();
    for _ in 0..3 {
        let request = Request {
            prompt: prompt.clone(),
            limits: Limits {
                max_tokens: Some(40),
                ignore_end: true,
                ..Limits::default()
            },
            ..Request::default()
        };
        let mut outcome = Outcome::default();
        let id = scheduler.add(request).expect("a request");
        run(&mut scheduler, &mut outcome);
        let answer = outcome.answers.remove(&id).expect("an answer");
        cached.push(answer.stats.cached_tokens);
        prompt.extend(answer.tokens);
        prompt.extend([1, 2, 3]);
    }
    assert_eq!(cached, [0, PAGE_TOKENS, 2 * PAGE_TOKENS]);
}
