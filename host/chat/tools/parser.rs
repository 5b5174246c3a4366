//! Reading calls while they are written.

use sha2::{Digest, Sha256};

use super::ToolFormat;
use super::bare_reader::BareObject;
use super::format::{Arguments, CallId, Layout};
use super::json::ObjectEnd;
use super::xml::{Parameters, Read};
use crate::chat::Piece;

/// Reads the calls of an answer, from behind the marker of the first one to the end of the answer.
///
/// Nothing is told that a later text could take back: a call is told with its name, when that is whole, and what of its
/// arguments is certain.
#[derive(Debug, Clone)]
pub struct CallParser {
    format: ToolFormat,
    layout: Layout,
    /// What names of calls follow from.
    answer_id: String,
    /// For each function the arguments that are written as plain text.
    texts: Vec<(String, Vec<String>)>,
    /// The function that is called.
    function: String,
    state: State,
    /// What was read since the last thing that was told.
    untold: Vec<u8>,
    n_calls: usize,
}

#[derive(Debug, Clone)]
enum State {
    /// In this text, of which so many bytes are there.
    Fixed(&'static str, usize, Next),
    /// Where the call's own name may come, with what is there of it, and in its place the text.
    BeforeId(CallId, Vec<u8>, &'static str, Next),
    /// In that name, and what follows it.
    Id(CallId, &'static str, Next),
    Name(String),
    Json(ObjectEnd, bool),
    Xml(Parameters),
    Bare(BareObject),
    /// Behind a call, with what is there of what follows it.
    Between(Vec<u8>),
    /// Behind the last call.
    Over,
    /// It is no call: all that follows is text.
    Broken,
}

/// What follows a fixed text.
#[derive(Debug, Clone, Copy)]
enum Next {
    Name,
    Arguments,
    Between,
}

impl CallParser {
    /// A reader of calls in `format`. `answer_id` is what their names follow from; `texts` has for each function the
    /// arguments that are strings, which some forms write as they are.
    pub fn new(format: ToolFormat, answer_id: &str, texts: &[(String, Vec<String>)]) -> CallParser {
        let layout = format.layout();
        let mut parser = CallParser {
            format,
            layout,
            answer_id: answer_id.to_owned(),
            texts: texts.to_vec(),
            function: String::new(),
            state: State::Over,
            untold: layout.marker.as_bytes().to_vec(),
            n_calls: 0,
        };
        parser.expect(layout.head, Next::Name);
        parser
    }

    /// How many calls were told.
    pub fn n_calls(&self) -> usize {
        self.n_calls
    }

    /// Takes the next byte and appends what is certain with it.
    pub fn push(&mut self, byte: u8, pieces: &mut Vec<Piece>) {
        match &mut self.state {
            State::Fixed(text, matched, next) => {
                let (text, matched, next) = (*text, *matched, *next);
                self.untold.push(byte);
                if matched == 0 && byte.is_ascii_whitespace() {
                    return;
                }
                if text.as_bytes().get(matched) != Some(&byte) {
                    return self.give_up(pieces);
                }
                match matched + 1 == text.len() {
                    false => self.state = State::Fixed(text, matched + 1, next),
                    true => self.follow(next),
                }
            }
            State::BeforeId(id, found, text, next) => {
                let (id, text, next) = (*id, *text, *next);
                self.untold.push(byte);
                found.push(byte);
                if found == id.open.as_bytes() {
                    self.state = State::Id(id, text, next);
                } else if !id.open.as_bytes().starts_with(found) {
                    // It was of the text.
                    let found = std::mem::take(found);
                    self.untold.truncate(self.untold.len() - found.len());
                    self.expect(text, next);
                    found.into_iter().for_each(|byte| self.push(byte, pieces));
                }
            }
            State::Id(id, text, next) => {
                let (id, text, next) = (*id, *text, *next);
                if byte.is_ascii_alphanumeric() {
                    return self.untold.push(byte);
                }
                self.expect(text, next);
                if id.close.as_bytes() != [byte] {
                    return self.push(byte, pieces);
                }
                self.untold.push(byte);
            }
            State::Name(name) => {
                if byte.is_ascii_alphanumeric() || b"_-.".contains(&byte) {
                    self.untold.push(byte);
                    return name.push(char::from(byte));
                }
                if name.is_empty() {
                    self.untold.push(byte);
                    return self.give_up(pieces);
                }
                self.n_calls += 1;
                let name = std::mem::take(name);
                let index = self.n_calls - 1;
                self.function.clone_from(&name);
                pieces.push(Piece::ToolCall {
                    index,
                    id: call_id(self.format, &self.answer_id, index),
                    name,
                });
                self.untold.clear();
                self.expect_behind_id(false, self.layout.middle, Next::Arguments);
                self.push(byte, pieces);
            }
            State::Json(end, has_begun) => {
                if !*has_begun && byte.is_ascii_whitespace() {
                    return;
                }
                if !*has_begun && byte != b'{' {
                    self.untold.push(byte);
                    return self.give_up(pieces);
                }
                *has_begun = true;
                self.untold.push(byte);
                let is_end = end.push(byte);
                match String::from_utf8(std::mem::take(&mut self.untold)) {
                    Ok(text) => self.tell_arguments(&text, pieces),
                    // Half of a character.
                    Err(error) => self.untold = error.into_bytes(),
                }
                if is_end {
                    self.expect_tail();
                }
            }
            State::Xml(parameters) => match parameters.push(byte) {
                Read::More(text) => self.tell_arguments(&text, pieces),
                Read::Over(rest) => {
                    let end = parameters.end();
                    self.tell_arguments(end, pieces);
                    self.expect_tail();
                    rest.into_iter().for_each(|byte| self.push(byte, pieces));
                }
            },
            State::Bare(object) => {
                let (text, is_end) = object.push(byte);
                self.tell_arguments(&text, pieces);
                if is_end {
                    self.expect_tail();
                }
            }
            State::Between(found) => {
                self.untold.push(byte);
                if found.is_empty() && byte.is_ascii_whitespace() {
                    return;
                }
                found.push(byte);
                let next = self.layout.next.map(str::trim_start).unwrap_or_default();
                let end = self.layout.end;
                if found == next.as_bytes() {
                    self.state = State::Name(String::new());
                } else if found == end.as_bytes() {
                    self.untold.clear();
                    self.state = State::Over;
                } else if !next.as_bytes().starts_with(found) && !end.as_bytes().starts_with(found)
                {
                    self.give_up(pieces);
                }
            }
            State::Over => {
                if !byte.is_ascii_whitespace() {
                    self.untold.push(byte);
                    self.give_up(pieces);
                }
            }
            State::Broken => {
                self.untold.push(byte);
                self.tell_text(pieces);
            }
        }
    }

    /// What is left when nothing follows. Of a call that was not told yet, nothing is.
    pub fn finish(&mut self, pieces: &mut Vec<Piece>) {
        let text = match &mut self.state {
            State::Xml(parameters) => parameters.finish(),
            State::Bare(object) => object.finish(),
            _ => return,
        };
        self.tell_arguments(&text, pieces);
    }

    fn expect(&mut self, text: &'static str, next: Next) {
        // White space around a fixed text is skipped where it is, and not missed where it is not.
        match text.trim() {
            "" => self.follow(next),
            text => self.state = State::Fixed(text, 0, next),
        }
    }

    fn expect_tail(&mut self) {
        self.untold.clear();
        self.expect_behind_id(true, self.layout.tail, Next::Between);
    }

    /// Expects `text`, before which the call's own name may be.
    fn expect_behind_id(&mut self, is_last: bool, text: &'static str, next: Next) {
        match self.layout.id {
            Some(id) if id.is_last == is_last => {
                self.state = State::BeforeId(id, Vec::new(), text, next);
            }
            _ => self.expect(text, next),
        }
    }

    fn follow(&mut self, next: Next) {
        match next {
            Next::Name => self.state = State::Name(String::new()),
            Next::Arguments => {
                self.untold.clear();
                self.state = self.arguments();
            }
            Next::Between => {
                self.untold.clear();
                self.state = State::Between(Vec::new());
            }
        }
    }

    fn arguments(&self) -> State {
        let of_function = self.texts.iter().find(|(name, _)| *name == self.function);
        let texts = of_function.map(|(_, texts)| texts.clone());
        match self.layout.arguments {
            Arguments::Json => State::Json(ObjectEnd::default(), false),
            Arguments::Bare(quote) => State::Bare(BareObject::new(quote)),
            Arguments::Xml => State::Xml(Parameters::new(texts.unwrap_or_default())),
        }
    }

    fn give_up(&mut self, pieces: &mut Vec<Piece>) {
        self.state = State::Broken;
        self.tell_text(pieces);
    }

    fn tell_text(&mut self, pieces: &mut Vec<Piece>) {
        let untold = std::mem::take(&mut self.untold);
        match String::from_utf8(untold) {
            Ok(text) => push_content(pieces, &text),
            // Half of a character.
            Err(error) => self.untold = error.into_bytes(),
        }
    }

    fn tell_arguments(&mut self, text: &str, pieces: &mut Vec<Piece>) {
        let index = self.n_calls.saturating_sub(1);
        match pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Arguments {
                index: last,
                text: arguments,
            }) if *last == index => arguments.push_str(text),
            _ => pieces.push(Piece::Arguments {
                index,
                text: text.to_owned(),
            }),
        }
    }
}

/// Appends `text` to the content at the end of `pieces`.
pub fn push_content(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some(Piece::Content(content)) => content.push_str(text),
        _ => pieces.push(Piece::Content(text.to_owned())),
    }
}

/// A name for call `index` of an answer. Mistral's templates accept nine letters and digits alone.
fn call_id(format: ToolFormat, answer_id: &str, index: usize) -> String {
    let digest = Sha256::digest(format!("{answer_id}/{index}"));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    match format {
        ToolFormat::MistralList | ToolFormat::MistralNamed => hex[..9].to_owned(),
        _ => format!("call_{}", &hex[..24]),
    }
}
