//! A drafter that knows how texts go on, and at times says something else.

use std::sync::Arc;

use hyperion::engine::Drafter;

use super::random::Random;

/// Guesses from whole texts.
#[derive(Clone)]
pub struct Oracle {
    /// Prompts with their answers.
    pub texts: Arc<Vec<Vec<u32>>>,
    /// Of eight guesses so many are wrong, some of them no tokens at all.
    pub wrong: usize,
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// State of its random numbers.
    pub seed: u64,
}

impl std::fmt::Debug for Oracle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Oracle({} of 8 wrong)", self.wrong)
    }
}

impl Oracle {
    fn below(&mut self, n: usize) -> usize {
        let mut random = Random(self.seed);
        let number = random.below(n);
        self.seed = random.0;
        number
    }
}

impl Drafter for Oracle {
    fn expects(&mut self, _: &[u32]) -> bool {
        self.below(2) == 0
    }

    fn draft(&mut self, text: &[u32], most: usize) -> Vec<u32> {
        let texts = self.texts.clone();
        let whole = texts.iter().find(|whole| whole.starts_with(text));
        // At times more than it may, or nothing.
        let n = match self.wrong {
            0 => most,
            _ => self.below(most + 3),
        };
        let tokens = (text.len()..text.len() + n).map(|at| {
            let right = whole.and_then(|whole| whole.get(at)).copied();
            let is_wrong = self.below(8) < self.wrong;
            right
                .filter(|_| !is_wrong)
                .unwrap_or_else(|| self.below(self.vocab + 2) as u32)
        });
        tokens.collect()
    }
}
