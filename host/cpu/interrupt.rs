//! Ending a step early.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::backend::BackendError;

/// A flag that somebody outside sets. A layer of a large model takes seconds for a long prompt, so loops
/// over rows and heads look at it too, and leave out what is left.
#[derive(Debug, Clone, Copy)]
pub struct Interrupt(Option<&'static AtomicBool>);

impl Interrupt {
    /// Nobody interrupts.
    pub fn never() -> Self {
        Self(None)
    }

    /// Interrupted when `flag` is set.
    pub fn by(flag: &'static AtomicBool) -> Self {
        Self(Some(flag))
    }

    /// Whether to leave out what is left.
    #[inline]
    pub fn is_requested(self) -> bool {
        self.0.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// # Errors
    /// The flag is set.
    pub fn check(self) -> Result<(), BackendError> {
        match self.is_requested() {
            true => Err(BackendError::Interrupted),
            false => Ok(()),
        }
    }
}
