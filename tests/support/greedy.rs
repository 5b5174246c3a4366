//! Greedy tokens of an engine against those of a reference, to the end of the reference's text.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hyperion::backend::{Ask, Output};
use hyperion::cpu::CpuBackend;
use hyperion::engine::{Decode, Engine, Sequence};
use hyperion::model::Model;

/// What a reference chose after a prompt.
#[derive(Clone, Copy)]
pub struct GreedyText<'a> {
    pub name: &'a str,
    pub prompt: &'a [u32],
    /// The tokens that follow.
    pub greedy: &'a [u32],
    /// Distance between the best and the second logit at each of them.
    pub gaps: &'a [f32],
}

/// Compares a reference's text token by token. After a mismatch that the gap allows, the reference's token is
/// forced, so that every token is compared.
pub struct Follower<'a> {
    text: GreedyText<'a>,
    compared: usize,
}

impl<'a> Follower<'a> {
    pub fn new(text: GreedyText<'a>) -> Follower<'a> {
        assert_eq!(text.greedy.len(), text.gaps.len(), "{}", text.name);
        Follower { text, compared: 0 }
    }

    /// Compares the token that follows what was compared so far, and gives the one to go on with; `None` at the
    /// end of the text. Where the gap is at most `least_gap`, the runner-up is right as well, and no other token.
    pub fn next(&mut self, chosen: u32, least_gap: f32, runners_up: &mut RunnersUp) -> Option<u32> {
        let GreedyText {
            name, greedy, gaps, ..
        } = self.text;
        let (index, expected, gap) = (self.compared, greedy[self.compared], gaps[self.compared]);
        if chosen != expected {
            // Written so that a NaN fails.
            assert!(
                gap <= least_gap,
                "{name}: token {index} is {chosen}, not {expected} (gap {gap})"
            );
            let best = runners_up.best_two(&self.text)[index];
            assert!(
                best == [expected, chosen] || best == [chosen, expected],
                "{name}: token {index} is {chosen}, but the best two are {best:?} (gap {gap})"
            );
        }
        self.compared += 1;
        (self.compared < greedy.len()).then_some(expected)
    }

    /// How many tokens were compared.
    pub fn compared(&self) -> usize {
        self.compared
    }
}

/// Decodes `texts` side by side to their ends; gives the number of tokens compared.
pub fn compare_texts(
    engine: &mut Engine,
    texts: &[GreedyText<'_>],
    least_gap: f32,
    runners_up: &mut RunnersUp,
) -> usize {
    let run = AtomicBool::new(false);
    let mut sequences: Vec<Sequence> = texts.iter().map(|_| Sequence::new()).collect();
    let mut followers: Vec<Follower<'_>> = texts.iter().map(|&text| Follower::new(text)).collect();
    let mut next = |follower: &mut Follower<'_>, output: Output| {
        let token = output.token().expect("a token");
        follower.next(token, least_gap, runners_up)
    };
    let mut tokens = Vec::new();
    for (sequence, follower) in sequences.iter_mut().zip(&mut followers) {
        let output = engine.prefill(sequence, follower.text.prompt, Ask::GREEDY, &run);
        tokens.push(next(follower, output.expect("a prefill")));
    }
    while tokens.iter().any(Option::is_some) {
        let going = sequences.iter_mut().zip(&tokens);
        let going = going.filter_map(|(sequence, token)| {
            token.map(|token| Decode {
                sequence,
                token,
                ask: Ask::GREEDY,
            })
        });
        let outputs = engine.decode(&mut going.collect::<Vec<_>>());
        let mut outputs = outputs.expect("a step").into_iter();
        for (token, follower) in tokens.iter_mut().zip(&mut followers) {
            if token.is_some() {
                let output = outputs.next().expect("an output");
                *token = next(follower, output.expect("room"));
            }
        }
    }
    followers.iter().map(Follower::compared).sum()
}

/// The likeliest two tokens at each place of a text, by the CPU's forward of the whole text in float64.
/// Computed when first asked for: most runs have no mismatch.
pub struct RunnersUp {
    model: Arc<Model>,
    of_texts: HashMap<Vec<u32>, Vec<[u32; 2]>>,
}

impl RunnersUp {
    pub fn new(model: Arc<Model>) -> RunnersUp {
        RunnersUp {
            model,
            of_texts: HashMap::new(),
        }
    }

    fn best_two(&mut self, text: &GreedyText) -> &[[u32; 2]] {
        let tokens = [text.prompt, &text.greedy[..text.greedy.len() - 1]].concat();
        self.of_texts.entry(tokens).or_insert_with_key(|tokens| {
            let mut rows = best_two_tokens(&self.model, tokens);
            rows.drain(..text.prompt.len() - 1);
            rows
        })
    }
}

/// The likeliest two tokens after each of `tokens`.
fn best_two_tokens(model: &Arc<Model>, tokens: &[u32]) -> Vec<[u32; 2]> {
    let backend = CpuBackend::new(model.clone(), Engine::pages_for(tokens.len(), 1));
    let mut engine = Engine::new(Box::new(backend), tokens.len(), tokens.len());
    let run = AtomicBool::new(false);
    let output = engine.prefill(&mut Sequence::new(), tokens, Ask::ALL_LOGITS, &run);
    let logits = output.expect("a forward").logits;
    let rows = logits.chunks_exact(model.vocab()).map(|row| {
        let mut best = [0, 1];
        if row[1] > row[0] {
            best = [1, 0];
        }
        for (token, &logit) in row.iter().enumerate().skip(2) {
            if logit > row[best[0]] {
                best = [token, best[0]];
            } else if logit > row[best[1]] {
                best[1] = token;
            }
        }
        best.map(|token| token as u32)
    });
    rows.collect()
}
