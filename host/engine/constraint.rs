//! What an answer must look like: which tokens may come next.

use std::fmt::Debug;

/// Why a constraint cannot go on. Only its own request is concerned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the grammar of the answer failed: {0}")]
pub struct ConstraintError(pub String);

/// Decides, token by token, which ones may come next in an answer.
///
/// It says itself where the answer may end: a mask has the bits of end-of-generation tokens exactly where what was
/// taken so far is whole. Its state belongs to the answer alone, so that an answer that has to give its pages back goes
/// on with it.
pub trait Constraint: Debug + Send {
    /// The tokens that may come next, a bit for each, lowest first; bits that are missing at the end are 0. `None`
    /// where all may come.
    ///
    /// # Errors
    /// It takes more work than a token may.
    fn mask(&mut self) -> Result<Option<Vec<u32>>, ConstraintError>;

    /// Takes the token that was chosen, which is none that ends the answer.
    ///
    /// # Errors
    /// The token is not allowed, or takes more work than a token may.
    fn take(&mut self, token: u32) -> Result<(), ConstraintError>;

    /// Whether nothing can follow what was taken, so that the answer is complete without a token that says so.
    fn is_complete(&self) -> bool;

    /// The same in the same state, for another answer.
    fn fork(&self) -> Box<dyn Constraint>;
}

impl Clone for Box<dyn Constraint> {
    fn clone(&self) -> Self {
        self.fork()
    }
}
