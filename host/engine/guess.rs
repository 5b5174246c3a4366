//! A row's drafts, and what the choice behind each of them depends on.

use super::constrained::Constrained;
use crate::backend::Draft;
use crate::sampling::Sampler;

/// The tokens of a row with drafts.
#[derive(Default)]
pub struct Guess {
    /// The newest token of the text, and the drafts behind it.
    tokens: Vec<u32>,
    drafts: Vec<Draft>,
}

impl Guess {
    /// `drafts` behind the token `newest`, up to the first that cannot be right. `sampler` and `constrained`, whose mask is
    /// known, are those of the choice behind `newest`.
    pub fn new(
        newest: u32,
        drafts: &[u32],
        sampler: &Sampler,
        constrained: &Constrained,
        vocab: usize,
    ) -> Guess {
        let mut guess = Guess {
            tokens: vec![newest],
            drafts: Vec::new(),
        };
        let mut sampler = sampler.remembers().then(|| sampler.clone());
        let mut constrained = constrained.clone();
        for &token in drafts.iter().take_while(|&&token| (token as usize) < vocab) {
            // What fails here fails again when its turn comes, and what completes the answer has nothing behind it.
            let goes_on = constrained.allows(token)
                && matches!(constrained.take(token), Ok(false))
                && constrained.find_mask(vocab).is_ok();
            if !goes_on {
                break;
            }
            let counts = sampler.as_mut().map(|sampler| {
                sampler.accept(token);
                sampler.choice().counts.to_vec()
            });
            guess.tokens.push(token);
            guess.drafts.push(Draft {
                mask: constrained.mask().map(<[u32]>::to_vec),
                counts: counts.unwrap_or_default(),
            });
        }
        guess
    }

    /// The newest token of the text, and the drafts behind it.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
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
