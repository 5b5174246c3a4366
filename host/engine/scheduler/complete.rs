//! The results of a step, and the ends of requests.

use std::sync::Arc;

use super::{Scheduler, SentRow};
use crate::backend::{BackendError, RowResult};
use crate::engine::active::Active;
use crate::engine::{EngineError, Event, Finish, RequestId, Sequence};

impl Scheduler {
    /// Waits for the oldest step under way and hands its results out.
    pub(super) fn complete_oldest(&mut self, events: &mut Vec<Event>) {
        let Some(step) = self.under_way.pop_front() else {
            return;
        };
        match self.backend.collect(step.ticket) {
            Ok(results) => {
                for (row, result) in step.rows.iter().zip(results) {
                    self.complete_row(*row, result, events);
                }
            }
            Err(error) => {
                let ids: Vec<RequestId> = step.rows.iter().map(|row| row.id).collect();
                self.fail(&ids, error, events);
            }
        }
        self.retired.retain(|(last, _)| *last > step.ticket);
    }

    fn complete_row(&mut self, row: SentRow, result: RowResult, events: &mut Vec<Event>) {
        let id = row.id;
        let Ok(at) = self.running.binary_search_by_key(&id, |active| active.id) else {
            // It has ended: the row is for nothing.
            return;
        };
        let output = match result {
            Ok(output) => output,
            Err(error) => {
                let active = self.running.remove(at);
                self.retire(active.sequence, active.n_under_way - 1);
                let error = error.into();
                return events.push(Event::Failed { id, error });
            }
        };
        let active = &mut self.running[at];
        let was_reading = active.prompt_progress();
        let context = self.options.context;
        let taken = match active.complete(row.n_tokens, &output, &self.tokenizer, context) {
            Ok(taken) => taken,
            Err(error) => return self.fail_at(at, error.into(), events),
        };
        active.sequence.publish(&self.pages);
        let (done, total) = active.prompt_progress();
        if (done, total) != was_reading {
            events.push(Event::Prompt { id, done, total });
        }
        let mut finish = active.is_prompt_alone().then_some(Finish::Length);
        for taken in taken {
            finish = finish.or(taken.finish);
            events.push(Event::Token {
                id,
                token: taken.token,
                text: taken.text,
                logprobs: taken.logprobs,
            });
        }
        if let Some(finish) = finish {
            let active = self.running.remove(at);
            self.finish(active, finish, events);
        }
    }

    /// Ends a request, which is in no list any more.
    pub(super) fn finish(&mut self, mut active: Active, finish: Finish, events: &mut Vec<Event>) {
        let (id, n_under_way) = (active.id, active.n_under_way);
        let text = active.flush(finish);
        let (generation, sequence) = active.into_generation(finish);
        self.retire(sequence, n_under_way);
        events.push(Event::Finished {
            id,
            text,
            generation,
        });
    }

    /// Frees the pages of an ended request, of which `n_under_way` rows are under way, once these are complete.
    fn retire(&mut self, sequence: Sequence, n_under_way: usize) {
        if n_under_way > 0
            && let Some(newest) = self.under_way.back()
        {
            self.retired.push((newest.ticket, sequence));
        }
    }

    /// Ends `running[at]` with `error`.
    pub(super) fn fail_at(&mut self, at: usize, error: EngineError, events: &mut Vec<Event>) {
        let active = self.running.remove(at);
        let id = active.id;
        self.retire(active.sequence, active.n_under_way);
        events.push(Event::Failed { id, error });
    }

    /// Ends the requests `ids`, whose step failed with `error`.
    pub(super) fn fail(&mut self, ids: &[RequestId], error: BackendError, events: &mut Vec<Event>) {
        let error = Arc::new(error);
        for &id in ids {
            let Ok(at) = self.running.binary_search_by_key(&id, |active| active.id) else {
                continue;
            };
            let active = self.running.remove(at);
            self.retire(active.sequence, active.n_under_way);
            let error = EngineError::Step(error.clone());
            events.push(Event::Failed { id, error });
        }
    }
}
