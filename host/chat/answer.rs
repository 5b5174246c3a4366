//! From the text of an answer to its parts.

use super::Piece;
use super::tools::{CallParser, ToolFormat, push_content};
use crate::grammar::{MarkerScan, Tags, Thinking, ThinkingScan};

/// How the answer to a request is written, so that it can be read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AnswerForm {
    thinking: Option<(Tags, bool)>,
    calls: Option<CallForm>,
    /// Whether white space before the content is none of it.
    is_trimmed: bool,
}

/// How calls in an answer are written.
#[derive(Debug, Clone, PartialEq)]
pub struct CallForm {
    /// The form.
    pub format: ToolFormat,
    /// For each function the arguments that are plain text.
    pub texts: Vec<(String, Vec<String>)>,
    /// Whether the answer is calls and nothing else.
    pub are_required: bool,
}

impl AnswerForm {
    /// An answer that is content and nothing else.
    pub fn plain() -> AnswerForm {
        AnswerForm::default()
    }

    /// An answer with thoughts between `thinking`, which the prompt may have opened, and calls in the form `calls`.
    /// `is_value` says that its content is a value in a grammar.
    pub fn new(
        thinking: Option<(Tags, bool)>,
        calls: Option<CallForm>,
        is_value: bool,
    ) -> AnswerForm {
        AnswerForm {
            is_trimmed: thinking.is_some() || calls.is_some() || is_value,
            thinking,
            calls,
        }
    }

    /// Whether there is nothing but calls behind the thoughts.
    fn has_no_content(&self) -> bool {
        self.calls.as_ref().is_some_and(|calls| calls.are_required)
    }

    /// The parts of a whole answer.
    pub fn read(&self, answer_id: &str, text: &str) -> Vec<Piece> {
        let mut reader = self.reader(answer_id);
        let mut pieces = reader.push(text);
        pieces.extend(reader.finish());
        pieces
    }

    /// A reader at the beginning of an answer. `answer_id` is what the names of calls follow from: the same for the
    /// same answer, and another one for every other.
    pub fn reader(&self, answer_id: &str) -> AnswerReader {
        AnswerReader {
            state: match self.thinking {
                Some((tags, are_open)) => State::Thinking {
                    scan: ThinkingScan::new(tags, are_open),
                    label: tags.label,
                    thought: Vec::new(),
                    has_thought: false,
                },
                None => State::content(self),
            },
            form: self.clone(),
            answer_id: answer_id.to_owned(),
        }
    }
}

/// Reads an answer piece by piece. Nothing that it gives is taken back later, and however the text is cut, all pieces
/// of a kind together are the same.
#[derive(Debug, Clone)]
pub struct AnswerReader {
    form: AnswerForm,
    answer_id: String,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// Thoughts, or what may be the beginning of some.
    Thinking {
        scan: ThinkingScan,
        /// What may come before them; nothing when it came.
        label: &'static str,
        /// What is not told yet: white space, and what may be of the marks or the label.
        thought: Vec<u8>,
        has_thought: bool,
    },
    Content {
        /// For what opens calls.
        scan: Option<MarkerScan>,
        /// What is not told yet: white space, and what may be of the marker.
        held: Vec<u8>,
        has_content: bool,
    },
    Calls(Box<CallParser>),
}

impl State {
    fn content(form: &AnswerForm) -> State {
        State::Content {
            scan: form
                .calls
                .as_ref()
                .map(|calls| calls.format.marker().scan()),
            held: Vec::new(),
            has_content: !form.is_trimmed,
        }
    }
}

impl AnswerReader {
    /// Takes more of the answer's text: what is certain with it.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for byte in text.bytes() {
            self.take(byte, &mut pieces);
        }
        pieces
    }

    /// The end of the answer: what was held back.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        match &mut self.state {
            State::Thinking {
                thought,
                has_thought,
                scan,
                label,
            } => {
                let rest = std::mem::take(thought);
                if scan.is_inside() {
                    let rest = behind_label(&rest, label).unwrap_or(&rest);
                    tell_thought(rest, has_thought, &mut pieces);
                } else if !self.form.has_no_content() {
                    // It ended before it was clear what it is.
                    let text = String::from_utf8_lossy(&rest).into_owned();
                    push_content(&mut pieces, text.trim_start());
                }
            }
            // The marker of a call, which was cut off before its end.
            State::Content { .. } if self.form.has_no_content() => {}
            State::Content {
                held, has_content, ..
            } => {
                let rest = String::from_utf8_lossy(&std::mem::take(held)).into_owned();
                let rest = match has_content {
                    true => &rest[..],
                    false => rest.trim_start(),
                };
                push_content(&mut pieces, rest);
            }
            State::Calls(parser) => parser.finish(&mut pieces),
        }
        pieces
    }

    /// Whether a call was told, so that the answer waits for results.
    pub fn has_calls(&self) -> bool {
        match &self.state {
            State::Calls(parser) => parser.n_calls() > 0,
            _ => false,
        }
    }

    fn take(&mut self, byte: u8, pieces: &mut Vec<Piece>) {
        match &mut self.state {
            State::Thinking {
                scan,
                label,
                thought,
                has_thought,
            } => {
                thought.push(byte);
                match scan.push(byte) {
                    Thinking::Undecided => {}
                    Thinking::Opens => thought.clear(),
                    Thinking::Thought => {
                        let mut certain = certain(thought, scan.held());
                        if !label.is_empty() {
                            let begun = thought[..certain].trim_ascii_start();
                            if label.as_bytes().starts_with(begun) {
                                return;
                            }
                            if let Some(rest) = behind_label(begun, label) {
                                let before = certain - rest.len();
                                thought.drain(..before);
                                certain -= before;
                            }
                            *label = "";
                        }
                        let told: Vec<u8> = thought.drain(..certain).collect();
                        tell_thought(&told, has_thought, pieces);
                    }
                    Thinking::Closes => {
                        // All that was held back is white space and what closes them.
                        self.state = State::content(&self.form);
                    }
                    Thinking::Answer => {
                        let undecided = std::mem::take(thought);
                        self.state = State::content(&self.form);
                        undecided
                            .into_iter()
                            .for_each(|byte| self.take(byte, pieces));
                    }
                }
            }
            State::Content {
                scan,
                held,
                has_content,
            } => {
                held.push(byte);
                if scan.as_mut().is_some_and(|scan| scan.push(byte)) {
                    return self.begin_calls(pieces);
                }
                let matched = scan.as_ref().map_or(0, MarkerScan::matched);
                // White space before a call is none of the text, so that it waits for what follows it.
                let is_plain = scan.is_none() && *has_content;
                let certain = match is_plain {
                    true => whole_characters(held, held.len()),
                    false => certain(held, matched),
                };
                let told: Vec<u8> = held.drain(..certain).collect();
                tell_content(&told, has_content, pieces);
            }
            State::Calls(parser) => parser.push(byte, pieces),
        }
    }

    /// The marker of the first call is complete.
    fn begin_calls(&mut self, pieces: &mut Vec<Piece>) {
        let State::Content {
            held, has_content, ..
        } = &mut self.state
        else {
            return;
        };
        let Some(calls) = &self.form.calls else {
            return;
        };
        let marker = calls.format.marker();
        let text = held.len().saturating_sub(marker.text().len());
        let text = held[..text].trim_ascii_end().to_vec();
        tell_content(&text, has_content, pieces);
        let parser = CallParser::new(calls.format, &self.answer_id, &calls.texts);
        self.state = State::Calls(Box::new(parser));
    }
}

/// How many of the first bytes of `held` are certain, where its last `matched` ones may be of a mark: whole
/// characters up to white space that such a mark may follow.
fn certain(held: &[u8], matched: usize) -> usize {
    let certain = whole_characters(held, held.len().saturating_sub(matched));
    held[..certain].trim_ascii_end().len()
}

/// What is behind `label`, where there is one and `thought` begins with it.
fn behind_label<'t>(thought: &'t [u8], label: &str) -> Option<&'t [u8]> {
    let thought = thought.trim_ascii_start();
    let rest = thought.strip_prefix(label.as_bytes())?;
    let is_word = rest.first().is_none_or(u8::is_ascii_whitespace);
    (!label.is_empty() && is_word).then_some(rest)
}

fn whole_characters(bytes: &[u8], n: usize) -> usize {
    match std::str::from_utf8(&bytes[..n]) {
        Ok(_) => n,
        Err(error) => error.valid_up_to(),
    }
}

fn tell_content(text: &[u8], has_content: &mut bool, pieces: &mut Vec<Piece>) {
    let text = String::from_utf8_lossy(text);
    let text = match has_content {
        true => &text[..],
        false => text.trim_ascii_start(),
    };
    *has_content |= !text.is_empty();
    push_content(pieces, text);
}

fn tell_thought(text: &[u8], has_thought: &mut bool, pieces: &mut Vec<Piece>) {
    let text = String::from_utf8_lossy(text);
    let text = match has_thought {
        true => &text[..],
        false => text.trim_ascii_start(),
    };
    if text.is_empty() {
        return;
    }
    *has_thought = true;
    match pieces.last_mut() {
        Some(Piece::Reasoning(reasoning)) => reasoning.push_str(text),
        _ => pieces.push(Piece::Reasoning(text.to_owned())),
    }
}
