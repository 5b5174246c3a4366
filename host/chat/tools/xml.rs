//! Arguments as one `<parameter=NAME>` after the other, turned into a JSON object while they are written.

use super::json::escaped;
use crate::grammar::{Marker, MarkerScan};

/// What every parameter begins with.
const OPEN: &str = "<parameter=";
/// What every value ends with.
const CLOSE: &str = "\n</parameter>";

/// Reads parameters. A call's own end is the reader's that has this one.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// Names whose values are strings as they are.
    texts: Vec<String>,
    n_begun: usize,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// Between two parameters, with what is there of the next one.
    Between(Vec<u8>),
    /// In a name.
    Name(Vec<u8>),
    /// Behind a name, where a value begins in a new line.
    Line { is_text: bool },
    /// In a value; what may be of its end is held.
    Value {
        is_text: bool,
        scan: MarkerScan,
        held: Vec<u8>,
    },
}

/// What a byte did.
pub enum Read {
    /// Text of the object, perhaps none.
    More(String),
    /// There is no further parameter: these bytes are behind the last one.
    Over(Vec<u8>),
}

impl Parameters {
    /// A reader at the beginning of the first parameter.
    pub fn new(texts: Vec<String>) -> Parameters {
        Parameters {
            texts,
            n_begun: 0,
            state: State::Between(Vec::new()),
        }
    }

    /// Takes the next byte.
    pub fn push(&mut self, byte: u8) -> Read {
        let nothing = || Read::More(String::new());
        match &mut self.state {
            State::Between(text) => {
                if text.is_empty() && byte.is_ascii_whitespace() {
                    return nothing();
                }
                text.push(byte);
                if text == OPEN.as_bytes() {
                    self.state = State::Name(Vec::new());
                } else if !OPEN.as_bytes().starts_with(text) {
                    return Read::Over(std::mem::take(text));
                }
                nothing()
            }
            State::Name(name) if byte != b'>' => {
                name.push(byte);
                nothing()
            }
            State::Name(name) => {
                let name = String::from_utf8_lossy(name).into_owned();
                let is_text = self.texts.contains(&name);
                let comma = if self.n_begun == 0 { "{" } else { ", " };
                let quote = if is_text { "\"" } else { "" };
                let text = format!("{comma}\"{}\": {quote}", escaped(&name));
                self.n_begun += 1;
                self.state = State::Line { is_text };
                Read::More(text)
            }
            State::Line { is_text } => {
                let is_text = *is_text;
                self.state = State::Value {
                    is_text,
                    scan: Marker::anywhere(CLOSE).scan(),
                    held: Vec::new(),
                };
                match byte {
                    b'\n' => nothing(),
                    _ => self.push(byte),
                }
            }
            State::Value {
                is_text,
                scan,
                held,
            } => {
                let is_text = *is_text;
                held.push(byte);
                if scan.push(byte) {
                    let value = held.split_off(0);
                    self.state = State::Between(Vec::new());
                    let value = value.get(..value.len().saturating_sub(CLOSE.len()));
                    let quote = if is_text { "\"" } else { "" };
                    return Read::More(written(value.unwrap_or_default(), is_text) + quote);
                }
                // Whole characters, none of which may be of the end.
                let mut certain = held.len() - scan.matched();
                if let Err(error) = std::str::from_utf8(&held[..certain]) {
                    certain = error.valid_up_to();
                }
                let value: Vec<u8> = held.drain(..certain).collect();
                Read::More(written(&value, is_text))
            }
        }
    }

    /// What ends the object.
    pub fn end(&self) -> &'static str {
        if self.n_begun == 0 { "{}" } else { "}" }
    }

    /// What was held of a value that breaks off.
    pub fn finish(&mut self) -> String {
        match &mut self.state {
            State::Value { is_text, held, .. } => written(&std::mem::take(held), *is_text),
            _ => String::new(),
        }
    }
}

fn written(value: &[u8], is_text: bool) -> String {
    let value = String::from_utf8_lossy(value);
    match is_text {
        true => escaped(&value),
        false => value.into_owned(),
    }
}
