//! A request's constraint, and which tokens may come next by it.

use super::{Constraint, ConstraintError};

/// What an answer must look like, if anything.
#[derive(Clone)]
pub struct Constrained {
    constraint: Option<Box<dyn Constraint>>,
    mask: Mask,
}

/// The tokens that may come next.
#[derive(Clone)]
enum Mask {
    /// The constraint was not asked since the last token.
    Unknown,
    /// As it says, as long as the vocabulary.
    Known(Option<Vec<u32>>),
}

impl Constrained {
    /// By `constraint`, in its beginning.
    pub fn new(constraint: Option<Box<dyn Constraint>>) -> Constrained {
        Constrained {
            mask: match constraint {
                Some(_) => Mask::Unknown,
                None => Mask::Known(None),
            },
            constraint,
        }
    }

    /// Whether there is a constraint.
    pub fn is_any(&self) -> bool {
        self.constraint.is_some()
    }

    /// Whether the constraint has to be asked.
    pub fn needs_mask(&self) -> bool {
        matches!(self.mask, Mask::Unknown)
    }

    /// Asks the constraint, in a vocabulary of `vocab` tokens.
    pub fn find_mask(&mut self, vocab: usize) -> Result<(), ConstraintError> {
        if let Some(constraint) = &mut self.constraint {
            let mask = constraint.mask()?.map(|mut mask| {
                // A model may have more rows of logits than its tokenizer has tokens.
                mask.resize(vocab.div_ceil(32), 0);
                mask
            });
            self.mask = Mask::Known(mask);
        }
        Ok(())
    }

    /// What the constraint said; `None` where all tokens may come.
    pub fn mask(&self) -> Option<&[u32]> {
        match &self.mask {
            Mask::Known(Some(mask)) => Some(mask),
            _ => None,
        }
    }

    /// Whether it said that `token` may come.
    pub fn allows(&self, token: u32) -> bool {
        self.mask().is_none_or(|mask| {
            let word = mask.get(token as usize / 32);
            word.is_some_and(|word| word >> (token % 32) & 1 == 1)
        })
    }

    /// Takes a token, which is none that ends the answer: whether the answer is complete with it.
    pub fn take(&mut self, token: u32) -> Result<bool, ConstraintError> {
        let Some(constraint) = &mut self.constraint else {
            return Ok(false);
        };
        constraint.take(token)?;
        self.mask = Mask::Unknown;
        Ok(constraint.is_complete())
    }
}
