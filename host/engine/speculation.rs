//! Guesses of how a text goes on, which its next step verifies: where they come from, and how many are worth it. A
//! guess is right where it is the token that is chosen in any case, so that the text is the same without them.

use std::fmt::Debug;

/// Where guesses of one text come from.
pub trait Drafter: Debug + Send {
    /// Whether there may be a guess behind the token that follows `text` and is not known yet, so that it is worth
    /// waiting for.
    fn expects(&mut self, text: &[u32]) -> bool;

    /// Up to `most` tokens that may follow `text`. What was shown before is its beginning.
    fn draft(&mut self, text: &[u32], most: usize) -> Vec<u32>;
}

/// How far wrong guesses make a text pause: two to the power of this, in tokens.
const MOST_MISSES: u32 = 6;

/// A text's drafter, and how well it does. A draft that is wrong costs a part of a step: so there are fewer of them
/// where few are right, and none for a while where none was.
pub struct Speculation {
    drafter: Box<dyn Drafter>,
    most: usize,
    length: usize,
    /// Tokens until the next draft.
    pause: usize,
    /// What was in vain since the last draft with a right token.
    misses: u32,
    /// Whether the newest token was waited for.
    has_waited: bool,
}

impl Speculation {
    /// Of up to `most` tokens at a time by `drafter`.
    pub fn new(drafter: Box<dyn Drafter>, most: usize) -> Speculation {
        Speculation {
            drafter,
            most,
            length: most,
            pause: 0,
            misses: 0,
            has_waited: false,
        }
    }

    /// How many tokens drafts have where `most` are allowed, the largest first: few numbers, because a device
    /// prepares for each.
    pub fn lengths(most: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(most), |&length| Some(length / 2))
            .take_while(|&length| length > 0)
    }

    /// Whether it is worth waiting for the token behind `text`.
    pub fn waits(&mut self, text: &[u32]) -> bool {
        self.has_waited = self.pause == 0 && self.drafter.expects(text);
        self.has_waited
    }

    /// Guesses behind `text`, at most `room`.
    pub fn draft(&mut self, text: &[u32], room: usize) -> Vec<u32> {
        let most = self.length.min(room);
        if self.pause > 0 || most == 0 {
            return Vec::new();
        }
        let mut drafts = self.drafter.draft(text, most);
        drafts.truncate(most);
        if std::mem::take(&mut self.has_waited) && drafts.is_empty() {
            self.miss();
        }
        drafts
    }

    /// A token came without a draft.
    pub fn passed(&mut self) {
        self.pause = self.pause.saturating_sub(1);
    }

    /// Of `drafted` tokens `accepted` were right.
    pub fn verified(&mut self, drafted: usize, accepted: usize) {
        match accepted {
            0 => self.miss(),
            _ => self.misses = 0,
        }
        let mut lengths = Self::lengths(self.most);
        if 2 * accepted < drafted {
            let shorter = lengths.find(|&length| length < self.length);
            self.length = shorter.unwrap_or(self.length);
        } else if accepted == drafted {
            let longer = lengths.take_while(|&length| length > self.length).last();
            self.length = longer.unwrap_or(self.length);
        }
    }

    fn miss(&mut self) {
        self.misses = (self.misses + 1).min(MOST_MISSES);
        self.pause = 1 << self.misses;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guesses the same token again and again.
    #[derive(Debug)]
    struct Same;

    impl Drafter for Same {
        fn expects(&mut self, _: &[u32]) -> bool {
            true
        }

        fn draft(&mut self, _: &[u32], most: usize) -> Vec<u32> {
            vec![1; most]
        }
    }

    #[test]
    fn wrong_guesses_become_rare_and_short() {
        let mut speculation = Speculation::new(Box::new(Same), 7);
        let mut drafted = 0;
        for _ in 0..1000 {
            let drafts = speculation.draft(&[], 100);
            assert_eq!(speculation.waits(&[]), !drafts.is_empty());
            match drafts.len() {
                0 => speculation.passed(),
                n => {
                    speculation.verified(n, 0);
                    drafted += n;
                }
            }
        }
        assert!((15..40).contains(&drafted), "{drafted}");
        // One that is right ends the pauses, and lengths grow again.
        while speculation.pause > 0 {
            speculation.passed();
        }
        let mut lengths = Vec::new();
        for _ in 0..4 {
            let n = speculation.draft(&[], 100).len();
            speculation.verified(n, n);
            lengths.push(n);
        }
        assert_eq!(lengths, [1, 3, 7, 7]);
        assert_eq!(speculation.draft(&[], 2).len(), 2);
    }
}
