//! An answer in parts: what clients are told while the model writes.

/// A part of an answer, in the order in which it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Of what the model thinks before it answers.
    Reasoning(String),
    /// Of the answer's text.
    Content(String),
    /// A call of a tool begins.
    ToolCall {
        /// Its place among the calls of this answer, from 0.
        index: usize,
        /// Its name for the result that refers to it.
        id: String,
        /// The function.
        name: String,
    },
    /// More of the arguments of call `index`, which all together are the text of a JSON object.
    Arguments {
        /// The call.
        index: usize,
        /// Its next characters.
        text: String,
    },
}
