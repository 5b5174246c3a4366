//! Answers at random: what a model without sense writes under a constraint.

use hyperion::engine::Constraint;
use hyperion::tokenizer::Tokenizer;
use serde_json::Value;

pub use crate::support::random::Random;

/// The tokens of an answer that ended by itself.
pub struct Walk {
    pub tokens: Vec<u32>,
    pub is_whole: bool,
}

pub fn allowed(mask: Option<&[u32]>, tokenizer: &Tokenizer) -> Vec<u32> {
    let is_allowed = |token: &u32| {
        mask.is_none_or(|mask| {
            let word = mask.get(*token as usize / 32).copied().unwrap_or(0);
            word >> (token % 32) & 1 == 1
        })
    };
    let all = 0..tokenizer.vocab_size() as u32;
    all.filter(is_allowed).collect()
}

/// Up to `most` tokens. What closes something is preferred, so that answers end; in free text `marks` come up often.
pub fn walk(
    constraint: &mut dyn Constraint,
    tokenizer: &Tokenizer,
    marks: &[u32],
    random: &mut Random,
    most: usize,
) -> Walk {
    let mut tokens = Vec::new();
    while tokens.len() < most && !constraint.is_complete() {
        let mask = constraint.mask().expect("a mask");
        let is_free = mask.is_none();
        let allowed = allowed(mask.as_deref(), tokenizer);
        assert!(
            !allowed.is_empty(),
            "nothing may follow {:?}",
            tokenizer.decode(&tokens)
        );
        let can_end = allowed
            .iter()
            .any(|&token| tokenizer.is_end_of_generation(token));
        if can_end && random.below(if is_free { 30 } else { 3 }) == 0 {
            return Walk {
                tokens,
                is_whole: true,
            };
        }
        let closes = |token: &&u32| {
            let bytes = tokenizer.token_bytes(**token);
            !tokenizer.is_control(**token)
                && bytes
                    .iter()
                    .all(|byte| b"\"}],:><0aeltrufs/\n".contains(byte))
        };
        let closing: Vec<u32> = allowed.iter().filter(closes).copied().collect();
        let text: Vec<u32> = allowed
            .iter()
            .filter(|&&token| !tokenizer.is_end_of_generation(token))
            .copied()
            .collect();
        let of = |list: &[u32], random: &mut Random| list[random.below(list.len())];
        let marked: Vec<u32> = marks
            .iter()
            .filter(|mark| allowed.contains(mark))
            .copied()
            .collect();
        let token = match random.below(4) {
            0 if is_free && !marked.is_empty() => of(&marked, random),
            1 | 2 if !closing.is_empty() => of(&closing, random),
            _ if text.is_empty() => {
                return Walk {
                    tokens,
                    is_whole: true,
                };
            }
            _ => of(&text, random),
        };
        constraint.take(token).expect("an allowed token");
        tokens.push(token);
    }
    Walk {
        is_whole: constraint.is_complete(),
        tokens,
    }
}

/// The value of `text`, which is JSON; `None` where a number is too large for the parser, as JSON allows.
pub fn parsed(text: &str) -> Option<Value> {
    match serde_json::from_str(text) {
        Ok(value) => Some(value),
        Err(error) if error.to_string().contains("number out of range") => None,
        Err(error) => panic!("{error}: {text}"),
    }
}

/// The text of `tokens`, in the pieces in which it comes.
pub fn pieces(tokenizer: &Tokenizer, shown: &[u32], tokens: &[u32]) -> Vec<String> {
    let mut stream = tokenizer.stream().showing(shown.to_vec());
    let mut pieces: Vec<String> = tokens.iter().map(|&token| stream.push(token)).collect();
    pieces.push(stream.finish());
    pieces
}
