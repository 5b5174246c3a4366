//! Log-probabilities of an answer's tokens, in the forms of both endpoints.

use serde::{Serialize, Serializer};

use crate::backend::Logprobs;
use crate::engine::{Finish, Generation};
use crate::tokenizer::Tokenizer;

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
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Of a continued text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CompletionLogprobs {
    /// The tokens of the text.
    pub tokens: Vec<String>,
    /// The natural logarithm of each one's probability.
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
        serializer.collect_map(self.0.iter().map(|(token, logprob)| (token, logprob)))
    }
}

impl ChatLogprobs {
    /// Those of `generation`.
    pub fn new(generation: &Generation, tokenizer: &Tokenizer) -> ChatLogprobs {
        let content = shown(generation, tokenizer).map(|shown| {
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
    /// Those of `generation`.
    pub fn new(generation: &Generation, tokenizer: &Tokenizer) -> CompletionLogprobs {
        let mut all = CompletionLogprobs {
            tokens: Vec::new(),
            token_logprobs: Vec::new(),
            top_logprobs: Vec::new(),
            text_offset: Vec::new(),
        };
        for shown in shown(generation, tokenizer) {
            let mut top = LogprobByText::default();
            for &(token, logprob) in &shown.logprobs.top {
                top.add(tokenizer.token_text(token), logprob);
            }
            top.add(tokenizer.token_text(shown.token), shown.logprobs.chosen);
            all.tokens.push(tokenizer.token_text(shown.token));
            all.token_logprobs.push(finite(shown.logprobs.chosen));
            all.top_logprobs.push(top);
            all.text_offset.push(shown.offset);
        }
        all
    }
}

struct Shown<'a> {
    token: u32,
    logprobs: &'a Logprobs,
    /// Characters of the text before it.
    offset: usize,
}

/// The tokens of the text: without the one that ended it, and without those that lie in a stop string alone.
fn shown<'a>(generation: &'a Generation, tokenizer: &Tokenizer) -> impl Iterator<Item = Shown<'a>> {
    let length = generation.text.chars().count();
    let n_tokens = generation.tokens.len();
    let n_shown = match generation.finish {
        Finish::EndOfText => n_tokens.saturating_sub(1),
        _ => n_tokens,
    };
    let is_cut = generation.finish == Finish::StopString;
    let mut decoder = tokenizer.stream();
    let mut offset = 0;
    let tokens = generation.tokens.iter().zip(&generation.logprobs);
    let shown = tokens.take(n_shown).map(move |(&token, logprobs)| {
        let shown = Shown {
            token,
            logprobs,
            offset,
        };
        offset += decoder.push(token).chars().count();
        shown
    });
    shown.take_while(move |shown| !is_cut || shown.offset < length)
}

fn finite(logprob: f32) -> f32 {
    logprob.max(LEAST)
}
