//! Control and user-defined tokens: found in the text before the algorithm sees the rest.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, Input, MatchKind};

use super::TokenizerError;
use super::vocab::{TokenKind, Vocab};

/// A part of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Fragment<'t> {
    Text(&'t str),
    Token(u32),
}

/// A token in a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub start: usize,
    pub end: usize,
    pub id: u32,
}

#[derive(Debug)]
pub(super) struct SpecialTokens {
    /// Control, unknown and user-defined tokens.
    all: Matcher,
    /// User-defined tokens are ordinary text that the model's makers wanted whole: found always.
    user_defined: Matcher,
    control: BTreeSet<u32>,
    /// User-defined tokens that could be somebody's markup: more than one character, and not white
    /// space alone.
    visible: BTreeSet<u32>,
    /// Those of them that are spelled with U+2581.
    spaced: BTreeSet<u32>,
}

impl SpecialTokens {
    pub fn new(vocab: &Vocab) -> Result<SpecialTokens, TokenizerError> {
        let control = |kind| matches!(kind, TokenKind::Control | TokenKind::Unknown);
        let user_defined = |kind| matches!(kind, TokenKind::UserDefined);
        let ids = |wanted: &dyn Fn(&str, TokenKind) -> bool| -> BTreeSet<u32> {
            let tokens = vocab.iter().filter(|&(_, text, kind)| wanted(text, kind));
            tokens.map(|(id, ..)| id).collect()
        };
        Ok(SpecialTokens {
            all: Matcher::new(vocab, |kind| control(kind) || user_defined(kind))?,
            user_defined: Matcher::new(vocab, user_defined)?,
            control: ids(&|_, kind| control(kind)),
            visible: ids(&|text, kind| user_defined(kind) && is_visible(text)),
            spaced: ids(&|text, kind| user_defined(kind) && text.contains('\u{2581}')),
        })
    }

    /// The fragments of `text`; control tokens are recognized only if `parse_special`.
    pub fn split<'t>(&self, text: &'t str, parse_special: bool) -> Vec<Fragment<'t>> {
        let matcher = if parse_special {
            &self.all
        } else {
            &self.user_defined
        };
        let mut fragments = Vec::new();
        matcher.split(text, |_| true, &mut fragments);
        fragments
    }

    /// Appends the fragments of `text`, in which nothing is a control token, and user-defined ones
    /// only where `allowed`.
    pub fn split_plain<'t>(
        &self,
        text: &'t str,
        allowed: impl Fn(Found) -> bool,
        fragments: &mut Vec<Fragment<'t>>,
    ) {
        self.user_defined.split(text, allowed, fragments);
    }

    /// Whether a token is a user-defined one that could be markup.
    pub fn is_visible(&self, id: u32) -> bool {
        self.visible.contains(&id)
    }

    /// Those of them that are spelled without U+2581.
    pub fn visible_unspaced(&self) -> impl Iterator<Item = u32> {
        self.visible.difference(&self.spaced).copied()
    }

    /// The first control or user-defined token at or after `from`.
    pub fn find(&self, text: &str, from: usize) -> Option<Found> {
        self.all.find(text, from)
    }

    /// Whether a token is no text.
    pub fn is_control(&self, id: u32) -> bool {
        self.control.contains(&id)
    }

    /// Adds the user-defined tokens in a template's `text` that are markup.
    pub fn markup_in(&self, text: &str, markup: &mut BTreeSet<u32>) {
        let mut at = 0;
        while let Some(found) = self.all.find(text, at) {
            if self.is_visible(found.id) {
                markup.insert(found.id);
            }
            at = found.end;
        }
    }
}

/// Runs of white space and single characters are text like any other.
fn is_visible(text: &str) -> bool {
    let visible = text.chars().any(|c| !c.is_whitespace() && c != '\u{2581}');
    visible && text.chars().count() > 1
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

    /// The first match at or after `from`.
    fn find(&self, text: &str, from: usize) -> Option<Found> {
        let input = Input::new(text).range(from..);
        let found = self.automaton.as_ref()?.find(input)?;
        Some(Found {
            start: found.start(),
            end: found.end(),
            id: self.ids[found.pattern().as_usize()],
        })
    }

    fn split<'t>(
        &self,
        text: &'t str,
        allowed: impl Fn(Found) -> bool,
        out: &mut Vec<Fragment<'t>>,
    ) {
        let mut copied = 0;
        let mut at = 0;
        while let Some(found) = self.find(text, at) {
            let Found { start, end, id } = found;
            if !allowed(found) {
                // Not past the whole match: another may begin inside it.
                at = start + text[start..].chars().next().map_or(1, char::len_utf8);
                continue;
            }
            if copied < start {
                out.push(Fragment::Text(&text[copied..start]));
            }
            out.push(Fragment::Token(id));
            copied = end;
            at = end;
        }
        if copied < text.len() {
            out.push(Fragment::Text(&text[copied..]));
        }
    }
}
