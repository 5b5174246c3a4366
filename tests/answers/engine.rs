//! Constraints in the engine: beside other requests, with too few pages, and where they fail.

use std::sync::Arc;

use hyperion::backend::PAGE_TOKENS;
use hyperion::cpu::CpuBackend;
use hyperion::engine::{
    Constraint, ConstraintError, Event, Finish, Generation, Limits, Options, Request, Scheduler,
};
use hyperion::gguf::Gguf;
use hyperion::model::Model;
use hyperion::sampling::SamplingParams;
use hyperion::tokenizer::Tokenizer;

use crate::support;
use crate::support::oracle::Oracle;

/// Takes every token whose id leaves the same rest as the number of tokens before it, and then nothing, or an end.
#[derive(Debug, Clone)]
struct Residues {
    vocab: u32,
    taken: u32,
    /// Tokens after which the answer is complete.
    length: u32,
    ends: Vec<u32>,
    /// Whether nothing is allowed at this place.
    hole: Option<u32>,
    /// Whether it fails at this place.
    failure: Option<u32>,
}

const RESIDUES: u32 = 3;

impl Constraint for Residues {
    fn mask(&mut self) -> Result<Option<Vec<u32>>, ConstraintError> {
        let place = Some(self.taken);
        if self.failure == place {
            return Err(ConstraintError("too much".to_owned()));
        }
        let mut mask = vec![0; self.vocab.div_ceil(32) as usize];
        let is_of_place =
            |&token: &u32| token % RESIDUES == self.taken % RESIDUES && !self.ends.contains(&token);
        let tokens = (0..self.vocab).filter(is_of_place);
        for token in tokens.filter(|_| self.hole != place) {
            mask[token as usize / 32] |= 1 << (token % 32);
        }
        Ok(Some(mask))
    }

    fn take(&mut self, token: u32) -> Result<(), ConstraintError> {
        assert_eq!(token % RESIDUES, self.taken % RESIDUES);
        self.taken += 1;
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.taken == self.length
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

struct Tiny {
    model: Arc<Model>,
    tokenizer: Arc<Tokenizer>,
}

impl Tiny {
    fn open() -> Tiny {
        let path = support::fixture("tiny/tiny-qwen3-q8_0-1.gguf");
        let gguf = Gguf::open(&path).expect("a tiny model");
        Tiny {
            model: Arc::new(Model::from_gguf(&gguf).expect("a model")),
            tokenizer: Arc::new(Tokenizer::from_gguf(&gguf).expect("a tokenizer")),
        }
    }

    fn scheduler(&self, n_pages: usize, max_running: usize) -> Scheduler {
        let options = Options {
            context: 4 * PAGE_TOKENS,
            chunk: 48,
            mixed_chunk: 20,
            max_running,
        };
        let backend = Box::new(CpuBackend::new(self.model.clone(), n_pages));
        Scheduler::new(backend, self.tokenizer.clone(), options)
    }

    fn constraint(&self, length: u32) -> Residues {
        Residues {
            vocab: self.model.vocab() as u32,
            taken: 0,
            length,
            ends: self.tokenizer.end_of_generation().to_vec(),
            hole: None,
            failure: None,
        }
    }

    fn request(&self, seed: u64, constraint: Option<Residues>) -> Request {
        let n = 5 + 31 * (seed as usize % 4);
        let mut sampling = SamplingParams {
            repeat_penalty: if seed.is_multiple_of(2) { 1.2 } else { 1.0 },
            ..SamplingParams::default()
        };
        sampling.draw.seed = seed;
        Request {
            prompt: (0..n as u32).map(|i| (i * 7 + seed as u32) % 100).collect(),
            sampling,
            limits: Limits {
                max_tokens: Some(90),
                ignore_end: true,
                ..Limits::default()
            },
            constraint: constraint.map(|constraint| Box::new(constraint) as Box<dyn Constraint>),
            ..Request::default()
        }
    }
}

fn run(scheduler: &mut Scheduler, requests: Vec<Request>) -> Vec<Result<Generation, String>> {
    let ids: Vec<_> = requests
        .into_iter()
        .map(|request| scheduler.add(request).expect("a request"))
        .collect();
    let mut answers: Vec<_> = ids.iter().map(|_| Err("no end".to_owned())).collect();
    let place = |id| {
        ids.iter()
            .position(|&other| other == id)
            .expect("a request")
    };
    while scheduler.is_busy() {
        for event in scheduler.step().expect("a step") {
            match event {
                Event::Finished { id, generation, .. } => answers[place(id)] = Ok(generation),
                Event::Failed { id, error } => answers[place(id)] = Err(error.to_string()),
                _ => {}
            }
        }
    }
    assert_eq!(scheduler.pages().n_free(), scheduler.pages().n_pages());
    answers
}

#[test]
fn constrained_answers_are_the_same_beside_others_and_after_preemptions() {
    let tiny = Tiny::open();
    let request = |seed: u64| {
        let constraint = (!seed.is_multiple_of(3)).then(|| tiny.constraint(20 + 10 * seed as u32));
        tiny.request(seed, constraint)
    };
    // One request fits, and a bit of others.
    let together = run(&mut tiny.scheduler(6, 6), (0..9).map(request).collect());
    let mut preemptions = 0;
    for (seed, answer) in (0..).zip(together) {
        let answer = answer.expect("an answer");
        preemptions += answer.stats.preemptions;
        let alone = run(&mut tiny.scheduler(4, 1), vec![request(seed)]);
        let alone = alone.into_iter().next().expect("one").expect("an answer");
        assert_eq!(
            (&answer.tokens, answer.finish),
            (&alone.tokens, alone.finish),
            "{seed}"
        );
        if !seed.is_multiple_of(3) {
            let is_kept = |(place, &token): (u32, &u32)| token % RESIDUES == place % RESIDUES;
            assert!((0..).zip(&answer.tokens).all(is_kept), "{seed}");
            let length = 20 + 10 * seed as usize;
            let expected = match length <= 90 {
                true => (length, Finish::EndOfText),
                false => (90, Finish::Length),
            };
            assert_eq!((answer.tokens.len(), answer.finish), expected, "{seed}");
        }
    }
    assert!(
        preemptions > 0,
        "no pages ran out, so that nothing was tried"
    );
}

#[test]
fn a_constraint_that_fails_or_allows_nothing_is_its_requests_error() {
    let tiny = Tiny::open();
    let hole = Residues {
        hole: Some(3),
        ..tiny.constraint(50)
    };
    let failure = Residues {
        failure: Some(0),
        ..tiny.constraint(50)
    };
    let requests = vec![
        tiny.request(1, Some(hole)),
        tiny.request(2, None),
        tiny.request(3, Some(failure)),
    ];
    let answers = run(&mut tiny.scheduler(12, 3), requests);
    let hole = answers[0].as_ref().expect_err("nothing is allowed");
    assert!(hole.contains("no token may be chosen"), "{hole}");
    let failure = answers[2].as_ref().expect_err("it fails");
    assert!(failure.contains("too much"), "{failure}");
    let neighbour = answers[1].as_ref().expect("an answer");
    let alone = run(&mut tiny.scheduler(4, 1), vec![tiny.request(2, None)]);
    assert_eq!(
        Ok(&neighbour.tokens),
        alone[0].as_ref().map(|answer| &answer.tokens)
    );
}

#[test]
fn guesses_change_no_constrained_answer_and_no_error() {
    let tiny = Tiny::open();
    let broken = |seed: u64| Residues {
        hole: (seed == 1).then_some(9),
        failure: (seed == 2).then_some(8),
        ..tiny.constraint(20 + 10 * seed as u32)
    };
    let whole = |seed| tiny.request(seed, Some(tiny.constraint(60)));
    let texts = (0..6).map(|seed| {
        let alone = run(&mut tiny.scheduler(4, 1), vec![whole(seed)]);
        let answer = alone[0].as_ref().expect("an answer");
        [whole(seed).prompt, answer.tokens.clone()].concat()
    });
    let texts = Arc::new(texts.collect::<Vec<_>>());
    let requests = || {
        (0..6)
            .map(|seed| tiny.request(seed, Some(broken(seed))))
            .collect()
    };
    let expected = run(&mut tiny.scheduler(24, 6), requests());
    for wrong in [0, 3, 8] {
        let oracle = Oracle {
            texts: texts.clone(),
            wrong,
            vocab: tiny.model.vocab(),
            seed: 1,
        };
        // One request fits, and a bit of others.
        let mut scheduler = tiny.scheduler(6, 6);
        scheduler.speculate(5, move || Box::new(oracle.clone()));
        let mut accepted = 0;
        for (found, expected) in run(&mut scheduler, requests()).iter().zip(&expected) {
            match (found, expected) {
                (Ok(found), Ok(expected)) => {
                    accepted += found.stats.accepted;
                    assert_eq!(found.tokens, expected.tokens);
                    assert_eq!(found.finish, expected.finish);
                }
                (Err(found), Err(expected)) => assert_eq!(found, expected),
                other => panic!("{other:?}"),
            }
        }
        assert!(accepted > 50 || wrong > 0, "{accepted} guesses were right");
    }
}
