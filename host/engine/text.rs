//! From the tokens of an answer to its text.

use super::Finish;
use crate::sampling::StopStrings;
use crate::tokenizer::{StreamDecoder, Tokenizer};

/// Tokens to text: whole characters, held back while they may be the start of a stop string.
pub struct AnswerText {
    decoder: StreamDecoder,
    stops: StopStrings,
    text: String,
}

impl AnswerText {
    /// No text yet; it will end before any of `stop`. The control tokens `shown` are written by their names.
    pub fn new(tokenizer: &Tokenizer, stop: &[String], shown: Vec<u32>) -> AnswerText {
        AnswerText {
            decoder: tokenizer.stream().showing(shown),
            stops: StopStrings::new(stop),
            text: String::new(),
        }
    }

    /// Takes a token: the text that is certain with it, and whether a stop string followed that.
    pub fn push(&mut self, token: u32) -> (String, bool) {
        let piece = self.decoder.push(token);
        let matched = self.stops.push(&piece);
        self.text.push_str(&matched.text);
        (matched.text, matched.stopped)
    }

    /// The text that was held back, when nothing follows it: none before a stop string.
    pub fn flush(&mut self, finish: Finish) -> String {
        if finish == Finish::StopString {
            return String::new();
        }
        let rest = self.decoder.finish();
        let mut held = self.stops.push(&rest).text;
        held.push_str(&self.stops.finish());
        self.text.push_str(&held);
        held
    }

    /// All of it.
    pub fn into_text(self) -> String {
        self.text
    }
}
