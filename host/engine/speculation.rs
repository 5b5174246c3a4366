//! Guesses of how a text goes on, which its next step verifies: where they come from, how many are worth it, and what
//! the choice behind each of them depends on. A guess is right where it is the token that is chosen in any case, so
//! that the text is the same without them.

use std::fmt::Debug;

use super::{Constraint, ConstraintError};
use crate::backend::Draft;
use crate::sampling::Sampler;

/// Where guesses of one text come from.
pub trait Drafter: Debug + Send {
    /// Whether there may be a guess behind the token that follows `text` and is not known yet, so that it is worth
    /// waiting for.
    fn expects(&mut self, text: &[u32]) -> bool;

    /// Up to `most` tokens that may follow `text`. What was shown before is its beginning.
    fn draft(&mut self, text: &[u32], most: usize) -> Vec<u32>;
}

/// How far wrong guesses make a text pause: two to the power of this, in tokens.
const MOST_MISSES: u32 = 6;

/// A text's drafter, and how well it does. A draft that is wrong costs a part of a step: so there are fewer of them
/// where few are right, and none for a while where none was.
pub struct Speculation {
    drafter: Box<dyn Drafter>,
    most: usize,
    length: usize,
    /// Tokens until the next draft.
    pause: usize,
    /// Drafts without a right token since the last one with some.
    misses: u32,
}

impl Speculation {
    /// Of up to `most` tokens at a time by `drafter`.
    pub fn new(drafter: Box<dyn Drafter>, most: usize) -> Speculation {
        Speculation {
            drafter,
            most,
            length: most,
            pause: 0,
            misses: 0,
        }
    }

    /// How many tokens drafts have where `most` are allowed, the largest first: few numbers, because a device
    /// prepares for each.
    pub fn lengths(most: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(most), |&length| Some(length / 2))
            .take_while(|&length| length > 0)
    }

    /// Whether it is worth waiting for the token behind `text`.
    pub fn waits(&mut self, text: &[u32]) -> bool {
        self.pause == 0 && self.drafter.expects(text)
    }

    /// Guesses behind `text`, at most `room`.
    pub fn draft(&mut self, text: &[u32], room: usize) -> Vec<u32> {
        let most = self.length.min(room);
        if self.pause > 0 || most == 0 {
            return Vec::new();
        }
        let mut drafts = self.drafter.draft(text, most);
        drafts.truncate(most);
        drafts
    }

    /// A token came without a draft.
    pub fn passed(&mut self) {
        self.pause = self.pause.saturating_sub(1);
    }

    /// Of `drafted` tokens `accepted` were right.
    pub fn verified(&mut self, drafted: usize, accepted: usize) {
        if accepted == 0 {
            self.misses = (self.misses + 1).min(MOST_MISSES);
            self.pause = 1 << self.misses;
        } else {
            self.misses = 0;
        }
        let mut lengths = Self::lengths(self.most);
        if 2 * accepted < drafted {
            let shorter = lengths.find(|&length| length < self.length);
            self.length = shorter.unwrap_or(self.length);
        } else if accepted == drafted {
            let longer = lengths.take_while(|&length| length > self.length).last();
            self.length = longer.unwrap_or(self.length);
        }
    }
}

/// The tokens of a row with drafts.
#[derive(Default)]
pub struct Guess {
    /// The newest token of the text, and the drafts behind it.
    tokens: Vec<u32>,
    drafts: Vec<Draft>,
}

impl Guess {
    /// `drafts` behind the token `newest`, as far as `sampler` and `constraint`, which allows `mask` behind it, say what
    /// the choice behind each depends on.
    pub fn new(
        newest: u32,
        drafts: &[u32],
        sampler: &Sampler,
        constraint: Option<(&dyn Constraint, Option<&[u32]>)>,
        vocab: usize,
    ) -> Guess {
        let mut guess = Guess {
            tokens: vec![newest],
            drafts: Vec::new(),
        };
        let mut sampler = sampler.remembers().then(|| sampler.clone());
        let mut constraint =
            constraint.map(|(constraint, mask)| (constraint.fork(), mask.map(<[u32]>::to_vec)));
        for &token in drafts.iter().take_while(|&&token| (token as usize) < vocab) {
            let mask = match &mut constraint {
                None => None,
                Some((_, Some(mask))) if !allows(mask, token) => break,
                Some((constraint, mask)) => {
                    // What fails here fails again when its turn comes.
                    if constraint.take(token).is_err() || constraint.is_complete() {
                        break;
                    }
                    let Ok(next) = mask_of(&mut **constraint, vocab) else {
                        break;
                    };
                    mask.clone_from(&next);
                    next
                }
            };
            let counts = sampler.as_mut().map(|sampler| {
                sampler.accept(token);
                sampler.choice().counts.to_vec()
            });
            guess.tokens.push(token);
            guess.drafts.push(Draft {
                mask,
                counts: counts.unwrap_or_default(),
            });
        }
        guess
    }

    /// The newest token of the text, and the drafts behind it; empty where there are none.
    pub fn tokens(&self) -> &[u32] {
        match self.drafts.is_empty() {
            true => &[],
            false => &self.tokens,
        }
    }

    /// What the choices behind the drafts depend on.
    pub fn drafts(&self) -> &[Draft] {
        &self.drafts
    }

    /// Whether there is no draft.
    pub fn is_empty(&self) -> bool {
        self.drafts.is_empty()
    }

    /// Keeps the first `n` drafts.
    pub fn truncate(&mut self, n: usize) {
        self.drafts.truncate(n);
        self.tokens.truncate(1 + n);
    }

    /// How many drafts are what was `chosen`, one behind the other.
    pub fn n_right(&self, chosen: &[u32]) -> usize {
        let drafts = self.tokens.iter().skip(1);
        drafts.zip(chosen).take_while(|(a, b)| a == b).count()
    }
}

/// What `constraint` allows next, as a mask of `vocab` tokens.
pub fn mask_of(
    constraint: &mut dyn Constraint,
    vocab: usize,
) -> Result<Option<Vec<u32>>, ConstraintError> {
    let mask = constraint.mask()?;
    Ok(mask.map(|mut mask| {
        // A model may have more rows of logits than its tokenizer has tokens.
        mask.resize(vocab.div_ceil(32), 0);
        mask
    }))
}

fn allows(mask: &[u32], token: u32) -> bool {
    let word = mask.get(token as usize / 32);
    word.is_some_and(|word| word >> (token % 32) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guesses the same token again and again.
    #[derive(Debug)]
    struct Same;

    impl Drafter for Same {
        fn expects(&mut self, _: &[u32]) -> bool {
            true
        }

        fn draft(&mut self, _: &[u32], most: usize) -> Vec<u32> {
            vec![1; most]
        }
    }

    #[test]
    fn wrong_guesses_become_rare_and_short() {
        let mut speculation = Speculation::new(Box::new(Same), 7);
        let mut drafted = 0;
        for _ in 0..1000 {
            let drafts = speculation.draft(&[], 100);
            assert_eq!(speculation.waits(&[]), !drafts.is_empty());
            match drafts.len() {
                0 => speculation.passed(),
                n => {
                    speculation.verified(n, 0);
                    drafted += n;
                }
            }
        }
        assert!((15..40).contains(&drafted), "{drafted}");
        // One that is right ends the pauses, and lengths grow again.
        while speculation.pause > 0 {
            speculation.passed();
        }
        let mut lengths = Vec::new();
        for _ in 0..4 {
            let n = speculation.draft(&[], 100).len();
            speculation.verified(n, n);
            lengths.push(n);
        }
        assert_eq!(lengths, [1, 3, 7, 7]);
        assert_eq!(speculation.draft(&[], 2).len(), 2);
    }
}
