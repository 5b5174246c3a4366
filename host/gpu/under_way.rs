//! Steps that were submitted and not collected.
//!
//! The device leaves tokens and log-probabilities in the host's memory, in two halves that take turns, so that the
//! host reads one step's while the next one runs: 15 to 20 µs of a step on an H100. What the host has to make of
//! logits or hidden states itself is made before a step counts as submitted.

use std::collections::VecDeque;
use std::ops::Range;

use kernels_gpu::abi::{MAX_LOGPROBS, NOT_FINITE, NOTHING_ALLOWED, POSTED_ROWS, PostedLogprobs};

use super::workspace::MAX_SEQUENCES;
use crate::backend::{
    BackendError, Logprobs, NotFinite, Output, Report, Row, RowError, RowResult, Ticket,
};
use crate::device::{Mailbox, Result};

const _: () = assert!(MAX_SEQUENCES <= POSTED_ROWS as usize);

/// Words of the mailbox before the log-probabilities: the tokens.
pub const LOGPROBS_AT: usize = 2 * POSTED_ROWS as usize;
const LOGPROBS_WORDS: usize = size_of::<PostedLogprobs>() / 4;
/// Words of the mailbox.
pub const MAILBOX_WORDS: usize = LOGPROBS_AT + 2 * POSTED_ROWS as usize * LOGPROBS_WORDS;
/// Bytes of them: device memory on a simulator.
pub const MAILBOX_BYTES: u64 = 4 * MAILBOX_WORDS as u64;

/// What becomes of a row.
pub enum Pending {
    /// The host made its result.
    Made(RowResult),
    /// The device chooses its tokens.
    Chosen(Chosen),
}

/// Tokens on their way.
pub struct Chosen {
    /// The rows of logits that they are chosen from.
    pub logits: Range<usize>,
    /// The half of the mailbox that each of these posts to.
    pub halves: Vec<u32>,
    /// Position of the first of the tokens that they follow.
    pub position: usize,
    /// Guesses of all of them but the last.
    pub drafts: Vec<u32>,
    /// How many of the likeliest tokens are reported.
    pub logprobs: Option<usize>,
}

impl Chosen {
    /// What `row` of a step waits for: tokens chosen from the rows `logits`, which post to these halves.
    pub fn new(row: &Row<'_>, logits: Range<usize>, turns: &[u32]) -> Chosen {
        let first = row.first_chosen();
        let drafts = row.tokens.known().get(first + 1..).unwrap_or_default();
        Chosen {
            halves: turns[logits.clone()].to_vec(),
            logits,
            position: row.start + first,
            drafts: drafts.to_vec(),
            logprobs: match row.ask.report {
                Report::TopLogprobs(most) => Some(most),
                _ => None,
            },
        }
    }

    /// The result, once the step is complete.
    fn result(&self, mailbox: &dyn Mailbox, sequence: usize) -> Result<RowResult> {
        let mut output = Output::default();
        for (index, row) in self.logits.clone().enumerate() {
            let position = self.position + index;
            let place = self.halves[index] as usize * POSTED_ROWS as usize + row;
            let token = match mailbox.word(place)? {
                // Behind a draft that was right: who asks again gets the error.
                NOT_FINITE | NOTHING_ALLOWED if index > 0 => break,
                NOT_FINITE => return Ok(Err(NotFinite { sequence, position }.into())),
                NOTHING_ALLOWED => return Ok(Err(RowError::NothingAllowed { position })),
                token => token,
            };
            output.tokens.push(token);
            if let Some(most) = self.logprobs {
                output.logprobs.push(logprobs(mailbox, place, most)?);
            }
            if self.drafts.get(index) != Some(&token) {
                break;
            }
        }
        Ok(Ok(output))
    }
}

fn logprobs(mailbox: &dyn Mailbox, place: usize, most: usize) -> Result<Logprobs> {
    // The fields of `PostedLogprobs`, in their order.
    const CHOSEN: usize = 1;
    const TOKENS: usize = 2;
    const PROBABILITIES: usize = TOKENS + MAX_LOGPROBS as usize;
    let at = LOGPROBS_AT + place * LOGPROBS_WORDS;
    let mut top = Vec::with_capacity(most);
    for index in 0..most {
        let token = mailbox.word(at + TOKENS + index)?;
        if token == NOT_FINITE {
            break;
        }
        let probability = mailbox.word(at + PROBABILITIES + index)?;
        top.push((token, f32::from_bits(probability)));
    }
    Ok(Logprobs {
        chosen: f32::from_bits(mailbox.word(at + CHOSEN)?),
        top,
    })
}

/// A step under way.
struct Step {
    ticket: Ticket,
    /// The mark behind it, where the device chooses tokens.
    mark: Option<usize>,
    /// What becomes of its rows, or why nothing does.
    rows: Result<Vec<Pending>>,
}

impl Step {
    /// Waits for `mark` behind it, and reads what it posted.
    fn settle(&mut self, mark: usize, mailbox: &dyn Mailbox) -> Result<()> {
        mailbox.wait(mark)?;
        let rows = self.rows.iter_mut().flatten();
        for (row, pending) in rows.enumerate() {
            if let Pending::Chosen(chosen) = pending {
                *pending = Pending::Made(chosen.result(mailbox, row)?);
            }
        }
        Ok(())
    }
}

/// Steps under way, oldest first.
#[derive(Default)]
pub struct UnderWay {
    n_steps: u64,
    /// The mark behind the step that was marked last; the other one is behind the step before it.
    newest_mark: usize,
    steps: VecDeque<Step>,
}

/// A token that an earlier step chooses.
pub enum Source {
    /// It is known.
    Token(u32),
    /// It is chosen from this row of logits of the last step.
    Logits(usize),
}

impl UnderWay {
    /// Steps under way.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// The mark to be put behind a step that was sent, where it needs one.
    pub fn next_mark(&self, rows: &[Pending]) -> Option<usize> {
        let is_pending = |row: &Pending| matches!(row, Pending::Chosen(_));
        rows.iter().any(is_pending).then_some(self.newest_mark ^ 1)
    }

    /// Notes a step that was sent, and the mark behind it.
    pub fn push(&mut self, rows: Vec<Pending>, mark: Option<usize>) -> Ticket {
        self.newest_mark = mark.unwrap_or(self.newest_mark);
        let ticket = Ticket(self.n_steps);
        self.n_steps += 1;
        self.steps.push_back(Step {
            ticket,
            mark,
            rows: Ok(rows),
        });
        ticket
    }

    /// Waits for the oldest step, which is `ticket`.
    ///
    /// # Errors
    /// Another step, or a fault of the device; the step is gone in that case too.
    pub fn take(
        &mut self,
        ticket: Ticket,
        mailbox: &dyn Mailbox,
    ) -> Result<Vec<RowResult>, BackendError> {
        let step = self.steps.pop_front_if(|step| step.ticket == ticket);
        let Some(step) = step else {
            return Err(BackendError::Ticket(ticket));
        };
        let device = |error| BackendError::Device(Box::new(error));
        if let Some(mark) = step.mark {
            mailbox.wait(mark).map_err(device)?;
        }
        let rows = step.rows.map_err(device)?.into_iter();
        let results = rows.enumerate().map(|(row, pending)| match pending {
            Pending::Made(result) => Ok(result),
            Pending::Chosen(chosen) => chosen.result(mailbox, row).map_err(device),
        });
        results.collect()
    }

    /// Reads now what the steps under way have posted, which steps to come may overwrite. Those that failed say so
    /// when they are collected.
    pub fn settle(&mut self, mailbox: &dyn Mailbox) {
        for step in &mut self.steps {
            if let Some(mark) = step.mark.take()
                && let Err(error) = step.settle(mark, mailbox)
            {
                step.rows = Err(error);
            }
        }
    }

    /// Where the token of row `row` of step `ticket` comes from.
    ///
    /// # Errors
    /// No such step is under way, or it is not the last one.
    pub fn source(&self, ticket: Ticket, row: usize) -> Result<Source, BackendError> {
        let gone = || BackendError::Ticket(ticket);
        let step = self.steps.iter().find(|step| step.ticket == ticket);
        let rows = step.and_then(|step| step.rows.as_ref().ok());
        match rows.and_then(|rows| rows.get(row)).ok_or_else(gone)? {
            Pending::Made(result) => {
                // A failed row's successor is for nothing.
                let token = result.as_ref().ok().and_then(Output::token);
                Ok(Source::Token(token.unwrap_or(0)))
            }
            // Which of several tokens is the last one is not known yet.
            Pending::Chosen(chosen) if chosen.logits.len() > 1 => Err(gone()),
            Pending::Chosen(chosen) => {
                let newest = self.steps.back().map(|step| step.ticket);
                match newest == Some(ticket) {
                    true => Ok(Source::Logits(chosen.logits.start)),
                    false => Err(gone()),
                }
            }
        }
    }
}
