//! What goes wrong in a template, and what it may spend.

use std::cell::Cell;

/// How a template failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The source is not Jinja.
    Syntax,
    /// `raise_exception` was called.
    Raised,
    /// An operation failed, as it would in Python.
    Failed,
    /// Too much work or memory.
    OutOfFuel,
}

/// An error, with the line of the template where it arose.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    pub line: Option<u32>,
}

/// What an operation gives, or how it failed.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation that failed.
pub fn failed(message: impl Into<String>) -> Error {
    Error {
        kind: Kind::Failed,
        message: message.into(),
        line: None,
    }
}

impl Error {
    /// With the line, unless an inner operation has set one.
    pub fn at(mut self, line: u32) -> Error {
        self.line.get_or_insert(line);
        self
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        match self.line {
            Some(line) => write!(f, " (line {line})"),
            None => Ok(()),
        }
    }
}

/// What a rendering may still spend, in units of one operation or 64 bytes of data.
#[derive(Debug)]
pub struct Budget {
    fuel: Cell<u64>,
}

impl Budget {
    /// A budget of `fuel` units.
    pub fn new(fuel: u64) -> Budget {
        Budget {
            fuel: Cell::new(fuel),
        }
    }

    /// Spends `units`.
    pub fn spend(&self, units: u64) -> Result<()> {
        let left = self.fuel.get().checked_sub(units);
        self.fuel.set(left.unwrap_or(0));
        match left {
            Some(_) => Ok(()),
            None => Err(Error {
                kind: Kind::OutOfFuel,
                message: "it takes more work or memory than a conversation of this size should"
                    .to_owned(),
                line: None,
            }),
        }
    }

    /// Spends what `bytes` of new data cost; asked before they are written.
    pub fn bytes(&self, bytes: usize) -> Result<()> {
        self.spend(1 + bytes as u64 / 64)
    }
}
