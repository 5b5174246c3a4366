//! A rendered chat, of which some characters may be markup and others must not be.

use std::collections::BTreeSet;
use std::ops::Range;

use super::special::{Found, Fragment, SpecialTokens};

/// The text of a conversation, with who wrote what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The text.
    pub text: String,
    /// The bytes that the template did not write, in ascending order.
    pub foreign: Vec<Range<usize>>,
    /// What else the template spells: user-defined tokens in it are its markup.
    pub literals: Vec<String>,
}

impl Prompt {
    /// The stretches that the template wrote.
    fn trusted(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = std::iter::once(0).chain(self.foreign.iter().map(|range| range.end));
        let ends = self.foreign.iter().map(|range| range.start);
        let gaps = starts.zip(ends.chain([self.text.len()]));
        gaps.filter(|(start, end)| start < end)
            .map(|(start, end)| start..end)
    }

    /// Whether the bytes from `start` to `end` have one source.
    fn is_uniform(&self, start: usize, end: usize) -> bool {
        let after = self.foreign.partition_point(|range| range.end <= start);
        self.foreign
            .get(after)
            .is_none_or(|range| end <= range.start || (range.start <= start && end <= range.end))
    }

    /// The fragments of the text, and the user-defined tokens that no text between them may become.
    ///
    /// Control tokens and the template's markup are taken from what it wrote in one piece. Only then
    /// are other user-defined tokens taken from what remains. Those of white space may cross the
    /// border to a message, as they would in one text.
    pub(super) fn split(&self, special: &SpecialTokens) -> (Vec<Fragment<'_>>, BTreeSet<u32>) {
        let trusted: Vec<&str> = self.trusted().map(|range| &self.text[range]).collect();
        let mut markup = BTreeSet::new();
        for text in self.literals.iter().map(String::as_str).chain(trusted) {
            special.markup_in(text, &mut markup);
        }
        let plain = |from: usize, to: usize, fragments: &mut Vec<_>| {
            let allowed = |found: Found| {
                let uniform = || self.is_uniform(from + found.start, from + found.end);
                !special.is_visible(found.id) || (!markup.contains(&found.id) && uniform())
            };
            special.split_plain(&self.text[from..to], allowed, fragments);
        };

        let mut fragments = Vec::new();
        let mut copied = 0;
        for range in self.trusted() {
            let mut at = range.start;
            while let Some(found) = special.find(&self.text[..range.end], at) {
                at = found.end;
                if special.is_control(found.id) || markup.contains(&found.id) {
                    plain(copied, found.start, &mut fragments);
                    fragments.push(Fragment::Token(found.id));
                    copied = found.end;
                }
            }
        }
        plain(copied, self.text.len(), &mut fragments);
        // What is still there of the others was not allowed above. (SentencePiece spells spaces as
        // U+2581, so tokens with one are found by its algorithm alone.)
        markup.extend(special.visible_unspaced());
        (fragments, markup)
    }
}
