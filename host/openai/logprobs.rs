//! Log-probabilities of an answer's tokens, in the forms of both endpoints.

use std::collections::VecDeque;

use serde::{Serialize, Serializer};

use crate::backend::Logprobs;
use crate::engine::{Finish, Generation};
use crate::tokenizer::{StreamDecoder, Tokenizer};

/// What stands for less than any probability, in OpenAI's API too. JSON has no infinity.
const LEAST: f32 = -9999.0;

/// Of a message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatLogprobs {
    /// For each token of the text.
    pub content: Vec<TokenLogprob>,
}

/// A token of an answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenLogprob {
    /// Its text; U+FFFD for a part of a character.
    pub token: String,
    /// The natural logarithm of its probability.
    #[serde(serialize_with = "shortest")]
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The likeliest tokens in its place.
    pub top_logprobs: Vec<TopLogprob>,
}

/// A token that could have been chosen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopLogprob {
    /// Its text.
    pub token: String,
    /// The natural logarithm of its probability.
    #[serde(serialize_with = "shortest")]
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Of a continued text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CompletionLogprobs {
    /// The tokens of the text; `bytes:\xe2\x80` where they are no text of their own.
    pub tokens: Vec<String>,
    /// The natural logarithm of each one's probability.
    #[serde(serialize_with = "all_shortest")]
    pub token_logprobs: Vec<f32>,
    /// The likeliest tokens in each one's place, and it itself.
    pub top_logprobs: Vec<LogprobByText>,
    /// Where each one begins in the text, in characters.
    pub text_offset: Vec<usize>,
}

/// Logarithms of probabilities by the tokens' texts; of tokens with one text, the first one's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogprobByText(Vec<(String, f32)>);

impl LogprobByText {
    fn add(&mut self, token: String, logprob: f32) {
        if self.0.iter().all(|(other, _)| *other != token) {
            self.0.push((token, finite(logprob)));
        }
    }
}

impl Serialize for LogprobByText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = self.0.iter();
        serializer.collect_map(entries.map(|(token, logprob)| (token, decimal(*logprob))))
    }
}

impl ChatLogprobs {
    /// Those of `tokens`.
    pub fn new(tokens: &[ShownToken], tokenizer: &Tokenizer) -> ChatLogprobs {
        let content = tokens.iter().map(|shown| {
            let top = shown
                .logprobs
                .top
                .iter()
                .map(|&(token, logprob)| TopLogprob {
                    token: tokenizer.token_text(token),
                    logprob: finite(logprob),
                    bytes: tokenizer.token_bytes(token),
                });
            TokenLogprob {
                token: tokenizer.token_text(shown.token),
                logprob: finite(shown.logprobs.chosen),
                bytes: tokenizer.token_bytes(shown.token),
                top_logprobs: top.collect(),
            }
        });
        ChatLogprobs {
            content: content.collect(),
        }
    }
}

impl CompletionLogprobs {
    /// Those of `tokens`.
    pub fn new(tokens: &[ShownToken], tokenizer: &Tokenizer) -> CompletionLogprobs {
        let mut all = CompletionLogprobs {
            tokens: Vec::new(),
            token_logprobs: Vec::new(),
            top_logprobs: Vec::new(),
            text_offset: Vec::new(),
        };
        for shown in tokens {
            let mut top = LogprobByText::default();
            for &(token, logprob) in &shown.logprobs.top {
                top.add(text_or_bytes(token, tokenizer), logprob);
            }
            let text = text_or_bytes(shown.token, tokenizer);
            top.add(text.clone(), shown.logprobs.chosen);
            all.tokens.push(text);
            all.token_logprobs.push(finite(shown.logprobs.chosen));
            all.top_logprobs.push(top);
            all.text_offset.push(shown.offset);
        }
        all
    }
}

/// A token's text, or its bytes in OpenAI's form where they are no text, such as a part of a character: so that tokens
/// with other bytes have other names.
fn text_or_bytes(token: u32, tokenizer: &Tokenizer) -> String {
    named(&tokenizer.token_bytes(token)).unwrap_or_else(|| tokenizer.token_text(token))
}

/// The name of bytes that are no text.
fn named(bytes: &[u8]) -> Option<String> {
    let is_text = std::str::from_utf8(bytes).is_ok();
    let escaped = bytes.iter().map(|byte| format!("\\x{byte:02x}"));
    (!is_text).then(|| format!("bytes:{}", escaped.collect::<String>()))
}

/// A token of an answer's text.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownToken {
    /// Its id.
    pub token: u32,
    /// What is known of it.
    pub logprobs: Logprobs,
    /// Characters of the text before it.
    pub offset: usize,
}

/// The tokens of an answer's text, as the text grows: without the one that ended it, and without those that lie in a
/// stop string alone.
pub struct ShownTokens {
    decoder: StreamDecoder,
    /// Characters of all tokens so far.
    decoded: usize,
    /// Characters of the text so far.
    certain: usize,
    /// Tokens that are not in that text yet.
    waiting: VecDeque<ShownToken>,
}

impl ShownTokens {
    /// No tokens yet. The control tokens `shown` are part of the text.
    pub fn new(tokenizer: &Tokenizer, shown: &[u32]) -> ShownTokens {
        ShownTokens {
            decoder: tokenizer.stream().showing(shown.to_vec()),
            decoded: 0,
            certain: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Those of a whole answer.
    pub fn of(generation: &Generation, tokenizer: &Tokenizer, shown: &[u32]) -> Vec<ShownToken> {
        let mut tokens = ShownTokens::new(tokenizer, shown);
        for (&token, logprobs) in generation.tokens.iter().zip(&generation.logprobs) {
            tokens.push(token, logprobs.clone());
        }
        let mut shown = tokens.take(&generation.text);
        shown.extend(tokens.finish(generation.finish));
        shown
    }

    /// Takes the next token.
    pub fn push(&mut self, token: u32, logprobs: Logprobs) {
        let offset = self.decoded;
        self.decoded += self.decoder.push(token).chars().count();
        self.waiting.push_back(ShownToken {
            token,
            logprobs,
            offset,
        });
    }

    /// The tokens that begin in the text so far, which goes on with `text`.
    pub fn take(&mut self, text: &str) -> Vec<ShownToken> {
        self.certain += text.chars().count();
        let n = self
            .waiting
            .partition_point(|token| token.offset < self.certain);
        self.waiting.drain(..n).collect()
    }

    /// The other tokens of an answer that ended with `finish`.
    pub fn finish(&mut self, finish: Finish) -> Vec<ShownToken> {
        match finish {
            Finish::StopString => self.waiting.clear(),
            Finish::EndOfText => drop(self.waiting.pop_back()),
            Finish::Length | Finish::Context | Finish::Interrupted => {}
        }
        self.waiting.drain(..).collect()
    }
}

fn finite(logprob: f32) -> f32 {
    logprob.max(LEAST)
}

/// With the digits of the `f32`, not those of the `f64` of the same value.
fn shortest<S: Serializer>(logprob: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(decimal(*logprob))
}

fn all_shortest<S: Serializer>(logprobs: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(logprobs.iter().map(|logprob| decimal(*logprob)))
}

fn decimal(logprob: f32) -> f64 {
    logprob.to_string().parse().unwrap_or(f64::from(logprob))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_have_names_of_their_own() {
        assert_eq!(named("é".as_bytes()), None);
        assert_eq!(named(b""), None);
        assert_eq!(named(&[0x9d]).as_deref(), Some(r"bytes:\x9d"));
        assert_eq!(named(&[0xe2, 0x80]).as_deref(), Some(r"bytes:\xe2\x80"));
    }
}
