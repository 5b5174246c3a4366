//! Control and user-defined tokens: found in the text before the algorithm sees the rest.

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, Input, MatchKind};

use super::TokenizerError;
use super::vocab::{TokenKind, Vocab};

/// Placed before a control token's text to say that it is only text. A code point that Unicode
/// reserves for such internal use, so no text has another purpose for it.
pub(super) const SHIELD: char = '\u{FDD0}';

/// A part of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Fragment<'t> {
    Text(&'t str),
    Token(u32),
}

#[derive(Debug)]
pub(super) struct SpecialTokens {
    /// Control, unknown and user-defined tokens.
    all: Matcher,
    control: Matcher,
    /// User-defined tokens are ordinary text that the model's makers wanted whole: found always.
    user_defined: Matcher,
}

impl SpecialTokens {
    pub fn new(vocab: &Vocab) -> Result<SpecialTokens, TokenizerError> {
        let control = |kind| matches!(kind, TokenKind::Control | TokenKind::Unknown);
        let user_defined = |kind| matches!(kind, TokenKind::UserDefined);
        Ok(SpecialTokens {
            all: Matcher::new(vocab, |kind| control(kind) || user_defined(kind))?,
            control: Matcher::new(vocab, control)?,
            user_defined: Matcher::new(vocab, user_defined)?,
        })
    }

    /// The fragments of `text`; control tokens are recognized only if `parse_special`.
    pub fn split<'t>(&self, text: &'t str, parse_special: bool) -> Vec<Fragment<'t>> {
        let matcher = if parse_special {
            &self.all
        } else {
            &self.user_defined
        };
        matcher.split(text)
    }

    /// `text` with [`SHIELD`] before everything in it that spells a control token.
    pub fn shield<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut shielded = String::new();
        let mut copied = 0;
        let mut at = 0;
        while let Some((start, ..)) = self.control.find(text, at) {
            shielded.push_str(&text[copied..start]);
            shielded.push(SHIELD);
            copied = start;
            // Not past the whole match: another may begin inside it.
            at = start + char_len(text, start);
        }
        if copied == 0 && shielded.is_empty() {
            return Cow::Borrowed(text);
        }
        shielded.push_str(&text[copied..]);
        Cow::Owned(shielded)
    }
}

/// Finds tokens by their texts: the leftmost first, the longest of those that begin together, as
/// the models' own tokenizers do. In linear time, however many tokens there are (Gemma has 6,400;
/// llama.cpp searches for each in turn, longest first, which differs only where two overlap).
#[derive(Debug)]
struct Matcher {
    automaton: Option<AhoCorasick>,
    ids: Vec<u32>,
}

impl Matcher {
    fn new(vocab: &Vocab, wanted: impl Fn(TokenKind) -> bool) -> Result<Matcher, TokenizerError> {
        let (ids, texts): (Vec<u32>, Vec<&str>) = vocab
            .iter()
            .filter(|&(.., kind)| wanted(kind))
            .map(|(id, text, _)| (id, text))
            .unzip();
        // A search for no texts at all would still walk through the whole text.
        let automaton = if ids.is_empty() {
            None
        } else {
            let mut builder = AhoCorasick::builder();
            builder.match_kind(MatchKind::LeftmostLongest);
            let built = builder.build(texts);
            Some(built.map_err(|error| TokenizerError::Backend {
                what: "the search for special tokens",
                reason: error.to_string(),
            })?)
        };
        Ok(Matcher { automaton, ids })
    }

    /// Start, end and id of the first match at or after `from`.
    fn find(&self, text: &str, from: usize) -> Option<(usize, usize, u32)> {
        let found = self
            .automaton
            .as_ref()?
            .find(Input::new(text).range(from..))?;
        Some((
            found.start(),
            found.end(),
            self.ids[found.pattern().as_usize()],
        ))
    }

    fn split<'t>(&self, text: &'t str) -> Vec<Fragment<'t>> {
        let mut fragments = Vec::new();
        let mut copied = 0;
        let mut at = 0;
        while let Some((start, end, id)) = self.find(text, at) {
            if text[..start].ends_with(SHIELD) {
                at = start + char_len(text, start);
                continue;
            }
            if copied < start {
                fragments.push(Fragment::Text(&text[copied..start]));
            }
            fragments.push(Fragment::Token(id));
            copied = end;
            at = end;
        }
        if copied < text.len() {
            fragments.push(Fragment::Text(&text[copied..]));
        }
        fragments
    }
}

/// The length of the character at `at`.
fn char_len(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(1, char::len_utf8)
}
