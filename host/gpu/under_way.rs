//! Steps that were submitted and not collected.

use std::collections::VecDeque;

use super::GpuBackend;
use super::workspace::MAX_SEQUENCES;
use crate::backend::{BackendError, IN_FLIGHT, NewTokens, Row, RowResult, Ticket, TraceSink};

/// Words of the mailbox that the kernels post tokens to: a step's rows, for two steps in turn.
pub const MAILBOX_WORDS: usize = 2 * MAX_SEQUENCES;
/// Bytes of them: device memory on a simulator.
pub const MAILBOX_BYTES: u64 = 4 * MAILBOX_WORDS as u64;

/// Steps under way, oldest first.
#[derive(Default)]
pub struct UnderWay {
    n_steps: u64,
    steps: VecDeque<(Ticket, Vec<RowResult>)>,
}

impl UnderWay {
    /// Takes the results of the oldest step, which is `ticket`.
    pub fn take(&mut self, ticket: Ticket) -> Result<Vec<RowResult>, BackendError> {
        match self.steps.front() {
            Some(&(oldest, _)) if oldest == ticket => {}
            _ => return Err(BackendError::Ticket(ticket)),
        }
        let step = self.steps.pop_front();
        Ok(step.map_or_else(Vec::new, |(_, results)| results))
    }

    fn token(&self, ticket: Ticket, row: usize) -> Result<u32, BackendError> {
        let step = self.steps.iter().find(|(step, _)| *step == ticket);
        let result = step.and_then(|(_, results)| results.get(row));
        let result = result.ok_or(BackendError::Ticket(ticket))?;
        let token = result.as_ref().ok().and_then(|output| output.token());
        Ok(token.unwrap_or(0))
    }
}

impl GpuBackend {
    pub(super) fn send(
        &mut self,
        rows: &[Row<'_>],
        trace: &mut dyn TraceSink,
    ) -> Result<Ticket, BackendError> {
        if self.under_way.steps.len() >= IN_FLIGHT {
            return Err(BackendError::InFlight);
        }
        let resolved: Vec<Option<u32>> = rows
            .iter()
            .map(|row| match row.tokens {
                NewTokens::Known(_) => Ok(None),
                NewTokens::ChosenBy(ticket, row) => self.under_way.token(ticket, row).map(Some),
            })
            .collect::<Result<_, _>>()?;
        let rows: Vec<Row<'_>> = rows
            .iter()
            .zip(&resolved)
            .map(|(row, token)| Row {
                tokens: token
                    .as_ref()
                    .map_or(row.tokens, |token| NewTokens::Known(std::slice::from_ref(token))),
                ..*row
            })
            .collect();
        let results = self
            .run(&rows, trace)
            .map_err(|error| BackendError::Device(Box::new(error)))?;
        let ticket = Ticket(self.under_way.n_steps);
        self.under_way.n_steps += 1;
        self.under_way.steps.push_back((ticket, results));
        Ok(ticket)
    }
}
