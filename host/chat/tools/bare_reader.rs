//! Arguments with bare names and quotes of their own, turned into JSON while they are written.

use super::json::escaped;
use crate::grammar::{Marker, MarkerScan};

/// Reads one object.
#[derive(Debug, Clone)]
pub struct BareObject {
    quote: Marker,
    /// What is open, the innermost last: whether it is an object.
    open: Vec<bool>,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// Where a name, or the end of an object, comes.
    Name(Vec<u8>),
    /// Where a value comes; what may be its quote is there.
    Value(Vec<u8>),
    /// In a number or a word.
    Word,
    /// In a string; what may be of its end is held.
    Text { scan: MarkerScan, held: Vec<u8> },
    /// Behind a value.
    Behind,
}

impl BareObject {
    /// A reader before the object, whose strings are between two of `quote`.
    pub fn new(quote: &str) -> BareObject {
        BareObject {
            quote: Marker::anywhere(quote),
            open: Vec::new(),
            state: State::Value(Vec::new()),
        }
    }

    /// Takes the next byte: what it adds to the JSON, and whether the object ends with it.
    pub fn push(&mut self, byte: u8) -> (String, bool) {
        let nothing = (String::new(), false);
        match &mut self.state {
            State::Name(name) => match byte {
                b':' => {
                    let text = format!("\"{}\": ", escaped(&String::from_utf8_lossy(name)));
                    self.state = State::Value(Vec::new());
                    (text, false)
                }
                b'}' if name.is_empty() => self.close(byte),
                b' ' | b'\n' if name.is_empty() => nothing,
                _ => {
                    name.push(byte);
                    nothing
                }
            },
            State::Value(begun) => {
                begun.push(byte);
                if self.quote.text().as_bytes() == begun {
                    let scan = self.quote.scan();
                    self.state = State::Text {
                        scan,
                        held: Vec::new(),
                    };
                    return ("\"".to_owned(), false);
                }
                if self.quote.text().as_bytes().starts_with(begun) {
                    return nothing;
                }
                match begun[..] {
                    [b'{'] => {
                        self.open.push(true);
                        self.state = State::Name(Vec::new());
                        ("{".to_owned(), false)
                    }
                    [b'['] => {
                        self.open.push(false);
                        self.state = State::Value(Vec::new());
                        ("[".to_owned(), false)
                    }
                    [b']'] => self.close(byte),
                    [b' ' | b'\n'] => {
                        begun.clear();
                        nothing
                    }
                    _ => {
                        let text = String::from_utf8_lossy(begun).into_owned();
                        self.state = State::Word;
                        (text, false)
                    }
                }
            }
            State::Word | State::Behind => match byte {
                b',' => {
                    self.state = match self.open.last() {
                        Some(true) => State::Name(Vec::new()),
                        _ => State::Value(Vec::new()),
                    };
                    (", ".to_owned(), false)
                }
                b'}' | b']' => self.close(byte),
                _ => (char::from(byte).to_string(), false),
            },
            State::Text { scan, held } => {
                held.push(byte);
                if scan.push(byte) {
                    let text = held.len().saturating_sub(self.quote.text().len());
                    let text = escaped(&String::from_utf8_lossy(&held[..text]));
                    self.state = State::Behind;
                    return (text + "\"", false);
                }
                let mut certain = held.len() - scan.matched();
                if let Err(error) = std::str::from_utf8(&held[..certain]) {
                    certain = error.valid_up_to();
                }
                let text: Vec<u8> = held.drain(..certain).collect();
                (escaped(&String::from_utf8_lossy(&text)), false)
            }
        }
    }

    fn close(&mut self, byte: u8) -> (String, bool) {
        self.open.pop();
        self.state = State::Behind;
        (char::from(byte).to_string(), self.open.is_empty())
    }

    /// What was held of a string that breaks off.
    pub fn finish(&mut self) -> String {
        match &mut self.state {
            State::Text { held, .. } => escaped(&String::from_utf8_lossy(&std::mem::take(held))),
            _ => String::new(),
        }
    }
}
