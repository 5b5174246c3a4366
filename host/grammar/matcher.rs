//! A compiled grammar, and how far an answer has got in it.

use std::fmt;

use llguidance::{Matcher, TokenParser};

use super::GrammarError;
use crate::engine::{Constraint, ConstraintError};

/// A grammar, and what was taken of it.
pub struct Grammar {
    matcher: Matcher,
}

impl Grammar {
    pub(super) fn new(parser: TokenParser) -> Result<Grammar, GrammarError> {
        let matcher = Matcher::new(Ok(parser));
        match matcher.get_error() {
            None => Ok(Grammar { matcher }),
            Some(error) => Err(GrammarError::Refused(super::first_line(&error))),
        }
    }

    /// The same grammar in the same state.
    pub fn copy(&self) -> Grammar {
        Grammar {
            matcher: self.matcher.deep_clone(),
        }
    }
}

impl Constraint for Grammar {
    fn mask(&mut self) -> Result<Option<Vec<u32>>, ConstraintError> {
        let mask = self.matcher.compute_mask_or_eos().map_err(failed)?;
        Ok(Some(mask.as_slice().to_vec()))
    }

    fn take(&mut self, token: u32) -> Result<(), ConstraintError> {
        self.matcher.consume_token(token).map_err(failed)
    }

    fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.copy())
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

fn failed(error: impl fmt::Display) -> ConstraintError {
    ConstraintError(super::first_line(&error.to_string()))
}
