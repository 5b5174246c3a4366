//! Two steps under way: rows whose tokens are chosen by rows before them, in other places and beside prompts, and
//! rows that are for nothing. All of it gives the tokens of steps that wait for each other.

use std::collections::VecDeque;

use hyperion::backend::{
    ActivationPrecision, Ask, Backend, BackendError, Choice, Draw, IN_FLIGHT, NewTokens, NoTrace,
    PAGE_TOKENS, Report, Row, Ticket,
};
use hyperion::cpu::CpuBackend;

use crate::setup::*;

/// A sequence, of whose tokens the first `n_sent` are computed or under way.
struct Text {
    tokens: Vec<u32>,
    n_sent: usize,
    /// The row that chooses the token behind them.
    newest: Option<(Ticket, usize)>,
    pages: [u32; 2],
    has_ended: bool,
}

impl Text {
    fn new(prompt: Vec<u32>, pages: [u32; 2]) -> Text {
        Text {
            tokens: prompt,
            n_sent: 0,
            newest: None,
            pages,
            has_ended: false,
        }
    }

    /// All tokens that are known and not sent, or the one that is on its way.
    fn row<'a>(&'a self, ask: Ask<'a>) -> Row<'a> {
        let tokens = match &self.tokens[self.n_sent..] {
            [] => {
                let (ticket, row) = self.newest.expect("a row before");
                NewTokens::ChosenBy(ticket, row)
            }
            known => NewTokens::Known(known),
        };
        let end = self.n_sent + tokens.len();
        Row {
            tokens,
            start: self.n_sent,
            pages: &self.pages[..end.div_ceil(PAGE_TOKENS)],
            ask,
        }
    }
}

/// Steps of some texts, as many of them under way as it says.
struct Run<'a> {
    backend: &'a mut dyn Backend,
    ask: Ask<'static>,
    most_under_way: usize,
    texts: Vec<Text>,
    under_way: VecDeque<(Ticket, Vec<usize>)>,
}

impl Run<'_> {
    /// A step of the texts `of`, in this order.
    fn step(&mut self, of: &[usize]) {
        while self.under_way.len() >= self.most_under_way {
            self.complete();
        }
        let rows: Vec<Row<'_>> = of.iter().map(|&i| self.texts[i].row(self.ask)).collect();
        let ticket = self.backend.submit(&rows, &mut NoTrace).expect("a step");
        let lengths: Vec<usize> = rows.iter().map(|row| row.tokens.len()).collect();
        for (row, (&i, n)) in of.iter().zip(lengths).enumerate() {
            self.texts[i].n_sent += n;
            self.texts[i].newest = Some((ticket, row));
        }
        self.under_way.push_back((ticket, of.to_vec()));
    }

    fn complete(&mut self) {
        let (ticket, of) = self.under_way.pop_front().expect("a step under way");
        let outputs = sound(self.backend.collect(ticket).expect("results"));
        assert_eq!(outputs.len(), of.len());
        for (i, output) in of.into_iter().zip(outputs) {
            if !self.texts[i].has_ended {
                self.texts[i].tokens.push(output.token().expect("a token"));
            }
        }
    }
}

/// The tokens of three texts, of which the second one ends while rows of it are under way, and the third one begins
/// later, on `pages`.
fn tokens(
    backend: &mut dyn Backend,
    ask: Ask<'static>,
    most_under_way: usize,
    pages: [u32; 2],
) -> Vec<Vec<u32>> {
    let vocab = backend.model().vocab();
    let mut run = Run {
        backend,
        ask,
        most_under_way,
        texts: vec![
            // It goes over the end of a page.
            Text::new(text(1, 57, vocab), [3, 17]),
            Text::new(text(2, 5, vocab), [20, 4]),
            Text::new(text(3, 60, vocab), pages),
        ],
        under_way: VecDeque::new(),
    };
    (0..10).for_each(|_| run.step(&[0, 1]));
    (0..4).for_each(|_| run.step(&[1, 0]));
    run.texts[1].has_ended = true;
    // Its pages are free when its last row is complete.
    (0..3).for_each(|_| run.step(&[0]));
    run.step(&[0, 2]);
    (0..4).for_each(|_| run.step(&[2, 0]));
    // Each names a step that is not the newest one.
    (0..3).for_each(|_| {
        run.step(&[0]);
        run.step(&[2]);
    });
    while !run.under_way.is_empty() {
        run.complete();
    }
    run.texts.into_iter().map(|text| text.tokens).collect()
}

const DRAW: Draw = Draw {
    temperature: 1.5,
    top_k: 40,
    top_p: 0.95,
    min_p: 0.01,
    typical_p: 1.0,
    seed: 11,
};

/// Chosen by the device, and in ways that may need the host.
fn asks() -> [Ask<'static>; 4] {
    let typical = Draw {
        typical_p: 0.9,
        ..DRAW
    };
    [
        Ask::GREEDY,
        drawn(DRAW),
        drawn(typical),
        Ask {
            choose: Some(Choice {
                bias: &[(3, f32::NEG_INFINITY), (7, 2.0)],
                ..Choice::GREEDY
            }),
            report: Report::TopLogprobs(2),
        },
    ]
}

#[test]
fn steps_under_way_change_nothing() {
    let _lock = device_lock();
    // What goes on between steps is the same for all models; one of the two has matrices of f16.
    for (name, model, asks) in [
        ("small", small_model(), &asks()[..]),
        ("tiny-qwen2-f16-1", model("tiny-qwen2-f16-1"), &asks()[1..2]),
    ] {
        let backends: [(&str, Box<dyn Backend>); 2] = [
            ("cpu", Box::new(CpuBackend::new(model.clone(), PAGES))),
            ("gpu", Box::new(gpu(&model, ActivationPrecision::F16))),
        ];
        for (kind, mut backend) in backends {
            let mut all = Vec::new();
            for &ask in asks {
                let waiting = tokens(&mut *backend, ask, 1, [30, 31]);
                let ahead = tokens(&mut *backend, ask, IN_FLIGHT, [20, 4]);
                let what = format!("{name}, {kind}, {ask:?}");
                for of in [0, 2] {
                    assert_eq!(ahead[of], waiting[of], "{what}: text {of}");
                }
                // Nobody heard of its last tokens.
                let heard = ahead[1].len();
                assert!(heard > 5 + 10, "{what}: {heard} tokens");
                assert_eq!(ahead[1], waiting[1][..heard], "{what}: the text that ended");
                all.push(waiting);
            }
            let is_other = |pair: &[Vec<Vec<u32>>]| pair[0] != pair[1];
            assert!(
                all[..all.len().min(3)].windows(2).all(is_other),
                "{name}, {kind}"
            );
        }
    }
}

#[test]
fn steps_are_collected_in_turn_and_there_are_only_so_many() {
    let _lock = device_lock();
    let model = small_model();
    let backends: [Box<dyn Backend>; 2] = [
        Box::new(CpuBackend::new(model.clone(), PAGES)),
        Box::new(gpu(&model, ActivationPrecision::F16)),
    ];
    for mut backend in backends {
        let kind = backend.description();
        let row = |tokens, start| Row {
            tokens,
            start,
            pages: &[6],
            ask: Ask::GREEDY,
        };
        let known = NewTokens::Known(&[1, 2]);
        let first = (backend.submit(&[row(known, 0)], &mut NoTrace)).expect("a step");
        let chosen = NewTokens::ChosenBy(first, 0);
        // A row that the step does not have.
        let missing = NewTokens::ChosenBy(first, 1);
        let found = backend.submit(&[row(missing, 2)], &mut NoTrace);
        let is_first =
            |found: &Result<_, _>| matches!(found, Err(BackendError::Ticket(t)) if *t == first);
        assert!(is_first(&found), "{kind}: {found:?}");
        let second = (backend.submit(&[row(chosen, 2)], &mut NoTrace)).expect("a step");
        let found = backend.submit(&[row(known, 0)], &mut NoTrace);
        assert!(
            matches!(found, Err(BackendError::InFlight)),
            "{kind}: {found:?}"
        );
        let found = backend.collect(second);
        assert!(
            matches!(found, Err(BackendError::Ticket(t)) if t == second),
            "{kind}: {found:?}"
        );
        // What was refused is as if it had not been asked for.
        let token = sound(backend.collect(first).expect("results"))[0].token();
        let next = sound(backend.collect(second).expect("results"))[0].token();
        for ticket in [first, second] {
            let found = backend.collect(ticket);
            assert!(
                matches!(found, Err(BackendError::Ticket(_))),
                "{kind}: {found:?}"
            );
        }
        let found = backend.submit(&[row(chosen, 2)], &mut NoTrace);
        assert!(is_first(&found), "{kind}: {found:?}");
        let all = [1, 2, token.expect("a token")];
        let plain = backend.step(&[row(NewTokens::Known(&all), 0)], &mut NoTrace);
        assert_eq!(sound(plain.expect("a step"))[0].token(), next, "{kind}");
    }
}
