//! Guesses from the text itself: where its last tokens occurred before, it may go on as it did there. Edits, quotes and
//! JSON do, and it takes no second model.

use std::collections::HashMap;

use super::Drafter;

/// Tokens that must occur again.
const LEAST: usize = 2;
/// Earlier places that are compared, the newest ones.
const PLACES: usize = 16;
/// Tokens after which equal places count as equally good.
const ENOUGH: usize = 32;

/// What occurred where in a text.
#[derive(Debug, Default)]
pub struct Ngrams {
    /// The end of the newest occurrence of so many tokens, of those that something follows.
    newest: HashMap<[u32; LEAST], usize>,
    /// For each end the end of the occurrence before it, 0 where it is the first.
    before: Vec<usize>,
}

impl Ngrams {
    /// Notes what is new in `text`: its last tokens have no continuation yet.
    fn note(&mut self, text: &[u32]) {
        for end in self.before.len()..text.len() {
            let before = match gram(&text[..end]) {
                Some(gram) => self.newest.insert(gram, end),
                None => None,
            };
            self.before.push(before.unwrap_or(0));
        }
    }

    /// The end of the earlier place that has most in common with the end of `text`, the newest of equals.
    fn place(&self, text: &[u32]) -> Option<usize> {
        let newest = *self.newest.get(&gram(text)?)?;
        let places = std::iter::successors(Some(newest), |&end| {
            self.before.get(end).copied().filter(|&end| end > 0)
        });
        let common = |end: usize| {
            let backwards = text[..end].iter().rev().zip(text.iter().rev());
            let equal = backwards.take(ENOUGH).take_while(|(a, b)| a == b);
            equal.count()
        };
        // Of equals `max_by_key` takes the last.
        let places: Vec<usize> = places.take(PLACES).collect();
        (places.into_iter().rev()).max_by_key(|&end| common(end))
    }
}

/// The last tokens of `text`.
fn gram(text: &[u32]) -> Option<[u32; LEAST]> {
    text.last_chunk().copied()
}

impl Drafter for Ngrams {
    fn expects(&mut self, text: &[u32]) -> bool {
        self.note(text);
        gram(text).is_some_and(|gram| self.newest.contains_key(&gram))
    }

    fn draft(&mut self, text: &[u32], most: usize) -> Vec<u32> {
        self.note(text);
        let Some(place) = self.place(text) else {
            return Vec::new();
        };
        // What follows there may reach into the guess itself: a text that repeats itself.
        let period = text.len() - place;
        let mut drafts: Vec<u32> = text[place..].iter().take(most).copied().collect();
        while drafts.len() < most {
            drafts.push(drafts[drafts.len() - period]);
        }
        drafts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_goes_on_as_it_did_before() {
        let mut ngrams = Ngrams::default();
        let text = [1, 2, 3, 4, 5, 6, 2, 3];
        assert!(ngrams.draft(&text[..6], 4).is_empty());
        assert!(!ngrams.expects(&text[..7]));
        assert!(ngrams.expects(&text));
        assert_eq!(ngrams.draft(&text, 3), [4, 5, 6]);
        assert!(ngrams.draft(&[1, 2, 3, 4, 5, 6, 2, 3, 3], 3).is_empty());
    }

    #[test]
    fn the_longest_match_counts_then_the_newest() {
        let drafts = |text: &[u32]| Ngrams::default().draft(text, 1);
        assert_eq!(drafts(&[9, 1, 2, 7, 8, 1, 2, 6, 9, 1, 2]), [7]);
        assert_eq!(drafts(&[9, 1, 2, 7, 9, 1, 2, 6, 9, 1, 2]), [6]);
    }

    #[test]
    fn a_loop_goes_on() {
        let text = [5, 1, 2, 3, 1, 2, 3];
        assert_eq!(Ngrams::default().draft(&text, 7), [1, 2, 3, 1, 2, 3, 1]);
        assert_eq!(Ngrams::default().draft(&[4, 4, 4], 3), [4, 4, 4]);
    }

    /// Step by step it finds what a search through the whole text finds.
    #[test]
    fn what_is_noted_while_a_text_grows_is_all_of_it() {
        let mut random = 1u32;
        let text: Vec<u32> = (0..300)
            .map(|_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                random >> 29
            })
            .collect();
        let mut ngrams = Ngrams::default();
        for end in 0..text.len() {
            let text = &text[..end];
            let found = ngrams.draft(text, 5);
            assert_eq!(found, Ngrams::default().draft(text, 5));
            let occurred = (LEAST..end).any(|at| text[..at].ends_with(&text[end - LEAST..]));
            assert_eq!(found.len(), if occurred { 5 } else { 0 });
        }
    }
}
