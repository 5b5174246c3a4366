//! From the text of an answer to its parts.

use crate::chat::Piece;

/// Reads the text of one answer to a conversation as it grows.
#[derive(Default)]
pub struct Reader;

impl Reader {
    /// The parts that are certain with the next text.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        match text {
            "" => Vec::new(),
            text => vec![Piece::Content(text.to_owned())],
        }
    }

    /// The parts that were held back, when no text follows.
    pub fn finish(&mut self) -> Vec<Piece> {
        Vec::new()
    }
}
