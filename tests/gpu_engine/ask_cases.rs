//! Rows that ask for everything that can be asked for.

use hyperion::backend::{
    Ask, Backend, Choice, Draft, Draw, NewTokens, NoTrace, Penalties, Pooling, Report, Row,
};

use crate::choice_reference::chosen;
use crate::setup::*;

/// A row, behind `start` other tokens of its text.
pub struct Case {
    pub what: &'static str,
    pub text: Vec<u32>,
    pub start: usize,
    pub pages: [u32; 1],
    pub ask: Ask<'static>,
}

impl Case {
    pub fn row(&self) -> Row<'_> {
        Row {
            tokens: NewTokens::Known(&self.text[self.start..]),
            start: self.start,
            pages: &self.pages,
            ask: self.ask,
        }
    }

    pub fn asking<'a>(&'a self, ask: Ask<'a>) -> Row<'a> {
        Row { ask, ..self.row() }
    }
}

pub const DRAW: Draw = Draw {
    temperature: 1.5,
    top_k: 40,
    top_p: 0.95,
    min_p: 0.02,
    typical_p: 1.0,
    seed: 5,
};
const ALL: Draw = Draw {
    temperature: 0.7,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    typical_p: 1.0,
    seed: 6,
};
const TYPICAL: Draw = Draw {
    typical_p: 0.6,
    top_p: 0.9,
    ..ALL
};
pub const GREEDY: Choice<'static> = Choice::GREEDY;
pub const NOTHING: Report = Report::Nothing;

fn leaked<T>(values: Vec<T>) -> &'static [T] {
    // Asks of a test's whole life, without a lifetime in every signature.
    Box::leak(values.into_boxed_slice())
}

/// Texts of all cases, behind `start` tokens each; the asks follow from the logits of `backend`.
pub fn cases(backend: &mut dyn Backend, lengths: impl Fn(usize) -> usize) -> Vec<Case> {
    let vocab = backend.model().vocab();
    let with = |draw| Choice {
        draw: Some(draw),
        ..GREEDY
    };
    let plain: [(&str, Option<Choice<'static>>, Report); 15] = [
        ("greedy", Some(GREEDY), NOTHING),
        ("drawn", Some(with(DRAW)), NOTHING),
        ("masked", Some(GREEDY), NOTHING),
        ("biased and drawn", Some(with(ALL)), NOTHING),
        ("penalized", Some(GREEDY), Report::TopLogprobs(3)),
        ("logits", None, Report::Logits),
        ("all logits", None, Report::AllLogits),
        ("hidden", None, Report::Hidden(Pooling::Last)),
        ("mean hidden", None, Report::Hidden(Pooling::Mean)),
        ("drawn from all", Some(with(ALL)), Report::TopLogprobs(20)),
        (
            "greedy, hidden",
            Some(GREEDY),
            Report::Hidden(Pooling::Last),
        ),
        ("masked and drawn", Some(with(DRAW)), Report::Logits),
        ("nothing", None, NOTHING),
        ("greedy, all logits", Some(GREEDY), Report::AllLogits),
        ("typical", Some(with(TYPICAL)), Report::TopLogprobs(2)),
    ];
    let mut cases = Vec::new();
    for (s, (what, choose, report)) in plain.into_iter().enumerate() {
        let start = s * 5 % 11;
        let mut case = Case {
            what,
            text: text(s, start + lengths(s), vocab),
            start,
            pages: [(s * 13 % PAGES) as u32],
            ask: Ask { choose, report },
        };
        // The likeliest tokens, so that what is forbidden matters.
        let logits = prepared(backend, &case);
        let likeliest = |n: usize| -> Vec<u32> {
            let mut order: Vec<u32> = (0..vocab as u32).collect();
            order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
            order[..n].to_vec()
        };
        if let Some(choice) = &mut case.ask.choose {
            if what.starts_with("masked") {
                let mut mask = vec![u32::MAX; vocab.div_ceil(32)];
                for token in likeliest(5) {
                    mask[token as usize / 32] &= !(1 << (token % 32));
                }
                choice.mask = Some(leaked(mask));
            } else if what.starts_with("biased") {
                let last = likeliest(vocab)[vocab - 1];
                let bias = logits[likeliest(1)[0] as usize] - logits[last as usize];
                let forbidden = (likeliest(1)[0], f32::NEG_INFINITY);
                choice.bias = leaked(vec![forbidden, (last, bias)]);
            } else if what == "penalized" {
                let counts = likeliest(4).into_iter().zip([3, 1, 2, 1]);
                choice.counts = leaked(counts.collect());
                choice.penalties = Penalties {
                    repeat: 1.3,
                    presence: 0.5,
                    frequency: 0.75,
                };
            }
        }
        cases.push(case);
    }
    cases
}

/// Brings the tokens before a case's row into the cache: the logits behind the row's last one.
fn prepared(backend: &mut dyn Backend, case: &Case) -> Vec<f32> {
    let row = Row {
        tokens: NewTokens::Known(&case.text),
        start: 0,
        ..case.asking(Ask::LOGITS)
    };
    let outputs = sound(backend.step(&[row], &mut NoTrace).expect("a text"));
    outputs.into_iter().map(logits).next().expect("logits")
}

/// What the choice depends on in a row of the kind `what` where the logits are these: the likeliest tokens are
/// forbidden or penalized.
fn draft(what: &str, logits: &[f32]) -> Draft {
    let mut likeliest: Vec<u32> = (0..logits.len() as u32).collect();
    likeliest.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    let mut draft = Draft::default();
    if what.starts_with("masked") {
        let mask = draft.mask.insert(vec![u32::MAX; logits.len().div_ceil(32)]);
        for &token in &likeliest[..3] {
            mask[token as usize / 32] &= !(1 << (token % 32));
        }
    } else if what.starts_with("penalized") {
        draft.counts = likeliest[..2].iter().map(|&token| (token, 2)).collect();
        draft.counts.sort_unstable();
    }
    draft
}

/// Rows of `n_drafts` guesses behind `n_known` other tokens, of which the first `n_right` are what the choice takes.
pub fn drafts(backend: &mut dyn Backend, n_known: usize) -> Vec<Case> {
    let vocab = backend.model().vocab();
    let drawn = Choice {
        draw: Some(DRAW),
        ..GREEDY
    };
    let penalized = Choice {
        penalties: Penalties {
            repeat: 1.3,
            presence: 0.5,
            frequency: 0.75,
        },
        ..GREEDY
    };
    let shapes = [
        ("all drafts right", GREEDY, 2, 2, NOTHING),
        ("one draft right", GREEDY, 3, 1, Report::TopLogprobs(2)),
        ("no draft right", drawn, 2, 0, NOTHING),
        ("masked drafts", drawn, 3, 3, NOTHING),
        ("penalized drafts", penalized, 2, 2, Report::TopLogprobs(1)),
        ("drawn drafts", drawn, 3, 2, Report::Logits),
    ];
    let cases = shapes.into_iter().enumerate();
    cases
        .map(|(s, (what, choice, n_drafts, n_right, report))| {
            let start = 3 + 2 * s;
            let mut case = Case {
                what,
                text: text(20 + s, start + n_known, vocab),
                start,
                pages: [(30 + s) as u32],
                ask: Ask::NOTHING,
            };
            let mut behind = Vec::new();
            for at in 0..=n_drafts {
                let logits = prepared(backend, &case);
                behind.push(draft(what, &logits));
                if at < n_drafts {
                    let choice = Choice {
                        mask: behind[at].mask.as_deref(),
                        counts: &behind[at].counts,
                        ..choice
                    };
                    let right = chosen(&logits, &choice, case.text.len() - 1);
                    case.text.push(match at < n_right {
                        true => right,
                        false => (right + 1) % vocab as u32,
                    });
                }
            }
            let [first, drafts @ ..] = leaked(behind) else {
                panic!("no choice");
            };
            let choose = Some(Choice {
                mask: first.mask.as_deref(),
                counts: &first.counts,
                drafts,
                ..choice
            });
            case.ask = Ask { choose, report };
            case
        })
        .collect()
}
