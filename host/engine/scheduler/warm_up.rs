//! Steps before the first request, so that none of those has to load or record anything.

use super::Scheduler;
use crate::backend::{Ask, Choice, Draft, NewTokens, NoTrace, Row};
use crate::engine::speculation::Speculation;
use crate::engine::{EngineError, Sequence};

/// Tokens by which steps of writers and readers differ that take different kernels.
const MIXED_STEP: usize = 64;

impl Scheduler {
    /// Runs steps of all kinds and of many sizes, so that none of them has to load or record anything when requests
    /// first need it. Nothing of it is kept.
    ///
    /// # Errors
    /// The backend's.
    pub fn warm_up(&mut self) -> Result<(), EngineError> {
        let most = self.options.max_running.min(self.pages.n_pages());
        let sizes = (1..=most).filter(|&n| n <= 8 || n.is_multiple_of(8) || n == most);
        for n in sizes.collect::<Vec<_>>() {
            // Once as it is, once recorded, once replayed.
            for _ in 0..3 {
                self.warm_up_step(n, 1, 0)?;
            }
        }
        for drafts in Speculation::lengths(self.speculates.as_ref().map_or(0, |own| own.most)) {
            for _ in 0..3 {
                self.warm_up_step(1, 1 + drafts, drafts)?;
            }
        }
        let chunk = self.options.chunk.min(self.options.context);
        self.warm_up_step(1, chunk, 0)?;
        if most < 2 {
            return Ok(());
        }
        // One writes, one reads its prompt.
        let mixed = self.options.mixed_chunk.min(chunk);
        for tokens in (2..=mixed).rev().step_by(MIXED_STEP) {
            self.warm_up_step(2, tokens - 1, 0)?;
        }
        Ok(())
    }

    /// A step of `n` rows of one token, the last of which has `last` instead, that many of them `drafts`.
    fn warm_up_step(&mut self, n: usize, last: usize, drafts: usize) -> Result<(), EngineError> {
        let tokens = vec![0; last];
        let drafts = vec![Draft::default(); drafts];
        let choice = Choice {
            drafts: &drafts,
            ..Choice::GREEDY
        };
        let ask = Ask {
            choose: Some(choice),
            ..Ask::GREEDY
        };
        let mut sequences: Vec<Sequence> = (0..n).map(|_| Sequence::new()).collect();
        let lengths: Vec<usize> = (1..=n).map(|i| if i == n { last } else { 1 }).collect();
        for (sequence, &length) in sequences.iter_mut().zip(&lengths) {
            if !sequence.reserve(length, &self.pages) {
                return Ok(());
            }
        }
        let rows = sequences
            .iter()
            .zip(&lengths)
            .map(|(sequence, &length)| Row {
                tokens: NewTokens::Known(&tokens[..length]),
                start: 0,
                pages: sequence.page_ids(),
                ask: if length > 1 { ask } else { Ask::GREEDY },
            });
        let rows: Vec<Row<'_>> = rows.collect();
        self.backend.step(&rows, &mut NoTrace)?;
        Ok(())
    }
}
