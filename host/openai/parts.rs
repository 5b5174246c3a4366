//! An answer's pieces, put together to its parts: what the model thought, its texts and its calls, one after another.

use std::mem::discriminant;

use crate::chat::Piece;
use crate::engine::{Finish, Generation};
use crate::tokenizer::StreamDecoder;

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// What the model thought.
    Reasoning(String),
    /// A text.
    Text(String),
    /// A call of a tool.
    Call {
        /// Its name for the result that refers to it.
        id: String,
        /// The function.
        name: String,
        /// The text of a JSON object, unless the answer was cut off in it.
        arguments: String,
    },
}

/// What a piece does to the parts; each is told by its place among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A part begins, still empty.
    Begun(usize),
    /// The part that began last has so much more.
    Grown(usize, String),
    /// A part is complete.
    Ended(usize),
}

/// The parts so far. At most the last one is open.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    parts: Vec<Part>,
    is_open: bool,
}

impl Parts {
    /// The parts of a finished answer.
    pub fn of(pieces: impl IntoIterator<Item = Piece>) -> Parts {
        let mut parts = Parts::default();
        for piece in pieces {
            parts.push(piece);
        }
        parts.finish();
        parts
    }

    /// Takes the next piece. Empty texts change nothing; nor do arguments of a call that is not the one being written,
    /// because what is complete stays as it is.
    pub fn push(&mut self, piece: Piece) -> Vec<Change> {
        let (part, text) = match piece {
            Piece::Reasoning(text) => (Part::Reasoning(String::new()), text),
            Piece::Content(text) => (Part::Text(String::new()), text),
            Piece::ToolCall { id, name, .. } => {
                let arguments = String::new();
                return self.begin(Part::Call {
                    id,
                    name,
                    arguments,
                });
            }
            Piece::Arguments { index, text } => {
                let is_open = self.is_open && matches!(self.parts.last(), Some(Part::Call { .. }));
                return match is_open && index + 1 == self.n_calls() && !text.is_empty() {
                    true => vec![self.grow(text)],
                    false => Vec::new(),
                };
            }
        };
        if text.is_empty() {
            return Vec::new();
        }
        let mut changes = match self.continues(&part) {
            true => Vec::new(),
            false => self.begin(part),
        };
        changes.push(self.grow(text));
        changes
    }

    /// Ends the last part.
    pub fn finish(&mut self) -> Option<Change> {
        let was_open = std::mem::replace(&mut self.is_open, false);
        was_open.then(|| Change::Ended(self.parts.len() - 1))
    }

    /// The parts.
    pub fn as_slice(&self) -> &[Part] {
        &self.parts
    }

    /// How many calls are among them.
    pub fn n_calls(&self) -> usize {
        let calls = self.parts.iter();
        calls
            .filter(|part| matches!(part, Part::Call { .. }))
            .count()
    }

    fn continues(&self, part: &Part) -> bool {
        let last = self.parts.last().filter(|_| self.is_open);
        last.is_some_and(|last| discriminant(last) == discriminant(part))
    }

    fn begin(&mut self, part: Part) -> Vec<Change> {
        let ended = self.finish();
        self.parts.push(part);
        self.is_open = true;
        let begun = Change::Begun(self.parts.len() - 1);
        ended.into_iter().chain([begun]).collect()
    }

    fn grow(&mut self, more: String) -> Change {
        match self.parts.last_mut() {
            Some(
                Part::Reasoning(text)
                | Part::Text(text)
                | Part::Call {
                    arguments: text, ..
                },
            ) => text.push_str(&more),
            None => {}
        }
        Change::Grown(self.parts.len().saturating_sub(1), more)
    }
}

/// What all of an answer's events and its response tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// A name for it without what stands before it, such as `msg_`.
    pub id: String,
    /// The model's name.
    pub model: String,
    /// When, in seconds since 1970.
    pub created: u64,
    /// The seed that was used.
    pub seed: u64,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Why.
    pub finish: Finish,
    /// The stop string that ended it.
    pub stop: Option<String>,
    /// What it took.
    pub spent: Spent,
}

/// What an answer took, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Of the prompt.
    pub prompt: usize,
    /// Those of the prompt that were in the cache.
    pub cached: usize,
    /// Of the answer, the one that ended it included.
    pub answer: usize,
    /// Those of the answer that are reasoning.
    pub reasoning: usize,
}

/// The one of `stops` that ended `generation`, whose text `decoder` makes of its tokens: of those that begin where
/// the text ends, the one that was complete first.
pub fn stop_that_ended<'a>(
    generation: &Generation,
    mut decoder: StreamDecoder,
    stops: &'a [String],
) -> Option<&'a str> {
    if generation.finish != Finish::StopString {
        return None;
    }
    let tokens = generation.tokens.iter();
    let mut whole: String = tokens.map(|&token| decoder.push(token)).collect();
    whole.push_str(&decoder.finish());
    let rest = whole.strip_prefix(generation.text.as_str())?;
    let stops = stops.iter().map(String::as_str);
    let found = stops.filter(|stop| !stop.is_empty() && rest.starts_with(stop));
    found.min_by_key(|stop| stop.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::openai::samples::any_pieces;

    fn text_of(part: &Part) -> &str {
        match part {
            Part::Reasoning(text) | Part::Text(text) => text,
            Part::Call { arguments, .. } => arguments,
        }
    }

    proptest! {
        #[test]
        fn parts_begin_and_end_once_and_in_order(pieces in any_pieces()) {
            let mut parts = Parts::default();
            let mut changes: Vec<Change> = Vec::new();
            for piece in pieces.clone() {
                changes.extend(parts.push(piece));
            }
            changes.extend(parts.finish());
            prop_assert_eq!(parts.finish(), None);
            let mut open: Option<usize> = None;
            let mut texts: Vec<String> = Vec::new();
            for change in changes {
                match change {
                    Change::Begun(index) => {
                        prop_assert_eq!((open, index), (None, texts.len()));
                        open = Some(index);
                        texts.push(String::new());
                    }
                    Change::Grown(index, more) => {
                        prop_assert_eq!(open, Some(index));
                        prop_assert!(!more.is_empty());
                        texts[index].push_str(&more);
                    }
                    Change::Ended(index) => {
                        prop_assert_eq!(open.take(), Some(index));
                    }
                }
            }
            prop_assert_eq!(open, None);
            let whole = Parts::of(pieces.clone());
            let expected: Vec<&str> = whole.as_slice().iter().map(text_of).collect();
            prop_assert_eq!(texts, expected);
            // Neighbours of one kind are one part, unless they are calls.
            for pair in whole.as_slice().windows(2) {
                let is_call = matches!(pair[0], Part::Call { .. });
                prop_assert!(is_call || discriminant(&pair[0]) != discriminant(&pair[1]));
            }
            let texts = pieces.iter().filter_map(|piece| match piece {
                Piece::Content(text) => Some(text.as_str()),
                _ => None,
            });
            let kept = whole.as_slice().iter().filter_map(|part| match part {
                Part::Text(text) => Some(text.as_str()),
                _ => None,
            });
            prop_assert_eq!(texts.collect::<String>(), kept.collect::<String>());
        }
    }

    #[test]
    fn arguments_of_another_call_do_not_reopen_it() {
        let call = |index: usize| Piece::ToolCall {
            index,
            id: index.to_string(),
            name: "f".to_owned(),
        };
        let arguments = |index| Piece::Arguments {
            index,
            text: "{}".to_owned(),
        };
        let mut parts = Parts::of([call(0), call(1)]);
        assert_eq!(parts.push(arguments(1)), []);
        let mut parts = Parts::default();
        parts.push(call(0));
        parts.push(call(1));
        assert_eq!(parts.push(arguments(0)), []);
        assert_eq!(
            parts.push(arguments(1)),
            [Change::Grown(1, "{}".to_owned())]
        );
    }
}
