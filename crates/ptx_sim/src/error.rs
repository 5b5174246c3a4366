//! What can be wrong with a PTX text.

use thiserror::Error;

/// A PTX text that cannot be parsed or uses something the simulator does not know.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("PTX line {line}, column {column}: {kind} at `{token}`")]
pub struct ParseError {
    /// One-based line of the text.
    pub line: u32,
    /// One-based column, in bytes.
    pub column: u32,
    /// The offending token or instruction.
    pub token: String,
    /// What is wrong with it.
    pub kind: ParseErrorKind,
}

/// The reason of a [`ParseError`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ParseErrorKind {
    /// The text does not follow PTX's grammar.
    #[error("expected {0}")]
    Expected(String),
    /// An instruction, or a modifier of one, that the simulator does not implement.
    #[error("unknown instruction")]
    UnknownInstruction,
    /// A directive that the simulator does not implement.
    #[error("unknown directive")]
    UnknownDirective,
    /// A name that nothing declares.
    #[error("undeclared name")]
    Undeclared,
    /// A name declared twice in one scope.
    #[error("duplicate declaration")]
    Duplicate,
    /// Operands that do not fit the instruction.
    #[error("invalid operand: {0}")]
    Operand(String),
    /// A call that cannot be executed.
    #[error("unsupported call: {0}")]
    Call(String),
    /// A number, size or nesting depth beyond what the simulator accepts.
    #[error("limit exceeded: {0}")]
    Limit(String),
}

pub(crate) type Result<T> = std::result::Result<T, ParseError>;
