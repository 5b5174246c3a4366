//! Strings of a file that are not UTF-8: they are shown, but not used.

use std::str::Utf8Error;

use super::Problem;

/// A string that is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    /// What it is.
    pub(super) field: String,
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// How far it is UTF-8.
    pub(super) error: Utf8Error,
}

impl Damage {
    /// The same as a reason not to use it.
    pub(super) fn problem(&self) -> Problem {
        Problem::Field {
            field: self.field.clone(),
            offset: self.offset,
            reason: format!("the string is not UTF-8: {}", self.error),
        }
    }
}
