//! The next step: which requests take part in it, and where their pages come from.

use rayon::prelude::*;

use super::{Scheduler, SentRow, Step};
use crate::backend::{BackendError, NoTrace, Row};
use crate::engine::active::Active;
use crate::engine::{ConstraintError, EngineError, Event};

/// Prompt tokens of a step, however many write.
const LEAST_CHUNK: usize = 64;

impl Scheduler {
    /// Sends the next step; false where there is none to be sent now.
    pub(super) fn send(&mut self, events: &mut Vec<Event>) -> Result<bool, EngineError> {
        if self.must_drain && !self.under_way.is_empty() {
            return Ok(false);
        }
        self.must_drain = false;
        self.find_masks(events);
        self.find_drafts();
        let parts = self.plan();
        if parts.is_empty() {
            return Ok(false);
        }
        let rows: Vec<Row<'_>> = parts
            .iter()
            .map(|&(at, n)| self.running[at].row(n))
            .collect();
        match self.backend.submit(&rows, &mut NoTrace) {
            Ok(ticket) => {
                let rows = parts.iter().enumerate().map(|(row, &(at, n_tokens))| {
                    let active = &mut self.running[at];
                    active.was_sent(n_tokens, ticket, row);
                    SentRow {
                        id: active.id,
                        n_tokens,
                    }
                });
                let rows = rows.collect();
                self.under_way.push_back(Step { ticket, rows });
                Ok(true)
            }
            Err(BackendError::Interrupted) => Err(EngineError::Interrupted),
            Err(error) => {
                let ids = parts.iter().map(|&(at, _)| self.running[at].id);
                self.fail(&ids.collect::<Vec<_>>(), error, events);
                Ok(true)
            }
        }
    }

    /// Asks the constraints of those that run which tokens may come next, one beside the other.
    fn find_masks(&mut self, events: &mut Vec<Event>) {
        let vocab = self.model().vocab();
        let of_running = self.running.par_iter_mut().enumerate();
        let failed: Vec<(usize, ConstraintError)> = of_running
            .filter(|(_, active)| active.needs_mask())
            .filter_map(|(at, active)| Some((at, active.find_mask(vocab).err()?)))
            .collect();
        for (at, error) in failed.into_iter().rev() {
            self.fail_at(at, error.into(), events);
        }
    }

    /// Lets those that run guess how their texts go on, one beside the other.
    fn find_drafts(&mut self) {
        let (vocab, context, tokenizer) =
            (self.model().vocab(), self.options.context, &self.tokenizer);
        if self.speculates.is_some() {
            (self.running.par_iter_mut())
                .for_each(|active| active.find_drafts(context, vocab, tokenizer));
        }
    }

    /// Which of those that run take part in the next step, and with how many tokens. Their pages are theirs.
    fn plan(&mut self) -> Vec<(usize, usize)> {
        let mut parts = Vec::new();
        let most_rows = self.backend.limits().max_sequences;
        let writes = |active: &Active| active.n_waiting() <= 1;
        let mut at = 0;
        while at < self.running.len() && parts.len() < most_rows {
            let active = &mut self.running[at];
            if writes(active) && active.can_go(self.options.context) && self.make_room(at, 1) {
                parts.push((at, 1));
            }
            at += 1;
        }
        let n_writing = self.add_drafts(&mut parts);
        let mut budget = match parts.is_empty() {
            true => self.options.chunk,
            false => (self.options.mixed_chunk.saturating_sub(n_writing)).max(LEAST_CHUNK),
        };
        budget = budget.min(self.backend.limits().max_tokens - n_writing);
        let mut at = 0;
        while at < self.running.len() && parts.len() < most_rows && budget > 0 {
            let active = &self.running[at];
            let n = active.n_waiting().min(budget);
            if !writes(active) && n > 0 && self.make_room(at, n) {
                parts.push((at, n));
                budget -= n;
            }
            at += 1;
        }
        // Those that had to give their pages back are behind all others.
        parts.retain(|&(at, _)| at < self.running.len());
        parts
    }

    /// Adds drafts to the rows of one token in `parts`, as far as there is room that nobody else needs: the tokens of
    /// all.
    fn add_drafts(&mut self, parts: &mut Vec<(usize, usize)>) -> usize {
        // Those that had to give their pages back are behind all others.
        parts.retain(|&(at, _)| at < self.running.len());
        let limits = self.backend.limits();
        let mut n_tokens = parts.len();
        for (at, n) in parts {
            let room = limits
                .max_sequences
                .min(limits.max_tokens)
                .saturating_sub(n_tokens);
            // Each of the others will need a page soon.
            let spare = self.pages.n_free().saturating_sub(self.running.len());
            let active = &mut self.running[*at];
            let drafts = active.keep_drafts(room, spare, &self.pages);
            *n += drafts;
            n_tokens += drafts;
        }
        n_tokens
    }

    /// Finds pages for the next `n` tokens of `running[at]`: free ones, or those of younger requests. False where it
    /// has to wait, or had to give up its own.
    fn make_room(&mut self, at: usize, n: usize) -> bool {
        loop {
            let Some(active) = self.running.get_mut(at) else {
                return false;
            };
            if active.sequence.reserve(active.sent + n, &self.pages) {
                return true;
            }
            if !self.under_way.is_empty() {
                // Pages that steps under way write cannot be given to others.
                self.must_drain = true;
                return false;
            }
            if let Some(mut youngest) = self.running.pop() {
                youngest.preempt();
                self.waiting.push_front(youngest);
            }
        }
    }
}
