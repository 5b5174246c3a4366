//! Calls of tools: in which form a model's template writes them, the grammar of that form, and reading it while it is
//! written.
//!
//! A call is generated under the grammar of its form, so that what is read is a known language and nothing is guessed.

mod described;
mod format;
mod grammar;
mod json;
mod parser;
mod xml;

use serde_json::Value;

pub use described::{described, format_of};
pub use format::ToolFormat;
pub use grammar::{CallGrammar, UnsupportedSchema};
pub use parser::{CallParser, push_content};

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name, of letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// The schema of its arguments, an object.
    pub parameters: Value,
}

/// Whether the model calls tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolChoice {
    /// It does not.
    None,
    /// As it likes.
    Auto,
    /// It calls one at least.
    Required,
    /// It calls this one of the list.
    One(usize),
}

/// The tools of a request, and what is wanted of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Tools {
    /// All of them.
    pub list: Vec<Tool>,
    /// Whether they are called.
    pub choice: ToolChoice,
    /// Whether an answer may have several calls.
    pub are_parallel: bool,
}

impl Tools {
    /// No tools.
    pub const NONE: Tools = Tools {
        list: Vec::new(),
        choice: ToolChoice::None,
        are_parallel: true,
    };

    /// Whether one must be called.
    pub fn are_required(&self) -> bool {
        matches!(self.choice, ToolChoice::Required | ToolChoice::One(_))
    }

    /// Those that may be called.
    pub fn callable(&self) -> &[Tool] {
        match self.choice {
            ToolChoice::None => &[],
            ToolChoice::Auto | ToolChoice::Required => &self.list,
            ToolChoice::One(index) => self.list.get(index..=index).unwrap_or_default(),
        }
    }
}
