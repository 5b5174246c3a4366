//! From requests to steps of a backend: the scheduler of many requests, and KV pages; and an engine that runs
//! sequences step by step, for what measures and compares.

mod active;
mod constrained;
mod constraint;
mod embedding;
mod event;
mod generate;
mod guess;
mod ngrams;
mod pages;
mod request;
mod scheduler;
mod sequence;
mod speculation;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use constraint::{Constraint, ConstraintError};
pub use event::Event;
pub use ngrams::Ngrams;
pub use pages::{ContentId, Page, PagePool};
pub use request::{Finish, Generation, Limits, Request, RequestId, Stats};
pub use scheduler::{Options, Scheduler};
pub use sequence::Sequence;
pub use speculation::Drafter;

use crate::backend::{
    Ask, Backend, BackendError, MAX_LOGPROBS, NewTokens, NoTrace, Output, PAGE_TOKENS, Row,
    RowError, RowResult, Ticket, TraceSink,
};
use crate::model::Model;
use crate::sampling::SamplingError;

/// Errors of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A prompt that does not fit the context, or fills it where an answer is wanted.
    #[error("{}", context_message(*needed, *context))]
    Context {
        /// Tokens of the prompt.
        needed: usize,
        /// Tokens that fit, those of the answer included.
        context: usize,
    },
    /// All KV pages are in use by other sequences.
    #[error(
        "the KV cache is full: {needed} more tokens need pages and {free} of {total} pages are free"
    )]
    CacheFull {
        /// Tokens to be added.
        needed: usize,
        /// Free pages.
        free: usize,
        /// Pages of the cache.
        total: usize,
    },
    /// A prompt without tokens.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
    /// A row without an output; no other sequence of the step is concerned.
    #[error(transparent)]
    Row(#[from] RowError),
    /// A sampling parameter outside its range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// More alternatives than a token has.
    #[error("log-probabilities are there for at most {MAX_LOGPROBS} tokens at a position")]
    Logprobs,
    /// What an answer must look like could not be kept to.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// The backend failed.
    #[error(transparent)]
    Backend(BackendError),
    /// The backend failed in a step of several requests.
    #[error(transparent)]
    Step(Arc<BackendError>),
}

fn context_message(needed: usize, context: usize) -> String {
    match needed > context {
        true => format!("{needed} tokens do not fit the context of {context}"),
        false => format!(
            "a prompt of {needed} tokens leaves no room for an answer in the context of {context}"
        ),
    }
}

impl From<BackendError> for EngineError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Interrupted => Self::Interrupted,
            error => Self::Backend(error),
        }
    }
}

/// Runs sequences on a backend.
pub struct Engine {
    backend: Box<dyn Backend>,
    pages: PagePool,
    context: usize,
    chunk: usize,
}

/// One sequence's part in a decode step.
pub struct Decode<'a> {
    /// The sequence.
    pub sequence: &'a mut Sequence,
    /// Its newest token, not yet in the cache.
    pub token: u32,
    /// What to give back.
    pub ask: Ask<'a>,
}

impl Engine {
    /// An engine whose sequences hold at most `context` tokens and whose prompts run in steps of
    /// `chunk` tokens.
    pub fn new(backend: Box<dyn Backend>, context: usize, chunk: usize) -> Engine {
        let pages = PagePool::new(backend.limits().n_pages);
        let context = context.min(backend.limits().max_context);
        Engine {
            backend,
            pages,
            context,
            chunk: chunk.max(1),
        }
    }

    /// Pages that a cache for `sequences` sequences of `context` tokens needs.
    pub fn pages_for(context: usize, sequences: usize) -> usize {
        context.div_ceil(PAGE_TOKENS) * sequences
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        self.backend.model()
    }

    /// The backend.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Most tokens of a sequence.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The page pool.
    pub fn pages(&self) -> &PagePool {
        &self.pages
    }

    /// Adds `tokens` to `sequence` in chunks and gives what `ask` asks of the last chunk.
    pub fn prefill(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        ask: Ask<'_>,
        interrupt: &AtomicBool,
    ) -> Result<Output, EngineError> {
        self.prefill_traced(sequence, tokens, ask, interrupt, &mut NoTrace)
    }

    /// [`Engine::prefill`] with a trace; a trace sees each chunk as a step of its own.
    pub fn prefill_traced(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        ask: Ask<'_>,
        interrupt: &AtomicBool,
        trace: &mut dyn TraceSink,
    ) -> Result<Output, EngineError> {
        self.make_room(sequence, tokens.len())?;
        let n_chunks = tokens.len().div_ceil(self.chunk);
        let mut output = Err(EngineError::EmptyPrompt);
        for (index, chunk) in tokens.chunks(self.chunk).enumerate() {
            if interrupt.load(Ordering::Relaxed) {
                return Err(EngineError::Interrupted);
            }
            let is_last = index + 1 == n_chunks;
            let row = Row {
                tokens: NewTokens::Known(chunk),
                start: sequence.len(),
                pages: sequence.page_ids(),
                ask: if is_last { ask } else { Ask::NOTHING },
            };
            let results = self.backend.step(&[row], trace)?;
            sequence.append(chunk);
            output = results.into_iter().next().ok_or(EngineError::EmptyPrompt);
        }
        Ok(output??)
    }

    /// One token for each of several sequences in one step. A sequence that has no room, or whose row fails,
    /// gets its own error and does not hold the others up.
    pub fn decode(
        &mut self,
        batch: &mut [Decode<'_>],
    ) -> Result<Vec<Result<Output, EngineError>>, EngineError> {
        let rooms: Vec<_> = batch
            .iter_mut()
            .map(|item| self.make_room(item.sequence, 1))
            .collect();
        let ready = || batch.iter().zip(&rooms).filter(|(_, room)| room.is_ok());
        let rows: Vec<Row<'_>> = ready()
            .map(|(item, _)| Row {
                tokens: NewTokens::Known(std::slice::from_ref(&item.token)),
                start: item.sequence.len(),
                pages: item.sequence.page_ids(),
                ask: item.ask,
            })
            .collect();
        let mut results = match rows.is_empty() {
            true => Vec::new(),
            false => self.backend.step(&rows, &mut NoTrace)?,
        }
        .into_iter();
        let results = batch.iter_mut().zip(rooms).map(|(item, room)| {
            room?;
            item.sequence.append(&[item.token]);
            let result = results.next().ok_or(EngineError::EmptyPrompt)?;
            Ok(result?)
        });
        Ok(results.collect())
    }

    /// `n` steps of the `sequences`, each of which goes on with what `ask` chooses behind its token in `newest`,
    /// which the last choices replace. As many steps are under way as the backend takes.
    pub fn decode_ahead(
        &mut self,
        sequences: &mut [Sequence],
        newest: &mut [u32],
        ask: Ask<'_>,
        n: usize,
        interrupt: &AtomicBool,
    ) -> Result<(), EngineError> {
        let mut before: Option<Ticket> = None;
        for step in 0..n {
            if interrupt.load(Ordering::Relaxed) {
                break;
            }
            let mut rows = Vec::with_capacity(sequences.len());
            for (index, (sequence, token)) in sequences.iter_mut().zip(&*newest).enumerate() {
                let ahead = usize::from(before.is_some());
                self.make_room(sequence, ahead + 1)?;
                rows.push(Row {
                    tokens: match before {
                        Some(ticket) => NewTokens::ChosenBy(ticket, index),
                        None => NewTokens::Known(std::slice::from_ref(token)),
                    },
                    start: sequence.len() + ahead,
                    pages: sequence.page_ids(),
                    ask,
                });
            }
            let ticket = self.backend.submit(&rows, &mut NoTrace)?;
            if let Some(before) = before.replace(ticket)
                && let Err(error) = self.complete(before, sequences, newest)
            {
                // What was sent behind a failed step is for nothing.
                let _ = self.backend.collect(ticket);
                return Err(error);
            }
            if step + 1 == n || !self.backend.overlaps() {
                self.complete(ticket, sequences, newest)?;
                before = None;
            }
        }
        match before {
            Some(ticket) => self
                .complete(ticket, sequences, newest)
                .and(Err(EngineError::Interrupted)),
            None if interrupt.load(Ordering::Relaxed) => Err(EngineError::Interrupted),
            None => Ok(()),
        }
    }

    /// Takes the results of a step of one token for each of `sequences`.
    fn complete(
        &mut self,
        ticket: Ticket,
        sequences: &mut [Sequence],
        newest: &mut [u32],
    ) -> Result<(), EngineError> {
        let results: Vec<RowResult> = self.backend.collect(ticket)?;
        for ((sequence, newest), result) in sequences.iter_mut().zip(newest).zip(results) {
            sequence.append(&[*newest]);
            *newest = result?.token().ok_or(EngineError::EmptyPrompt)?;
        }
        Ok(())
    }

    fn make_room(&self, sequence: &mut Sequence, n: usize) -> Result<(), EngineError> {
        let needed = sequence.len() + n;
        if needed > self.context {
            return Err(EngineError::Context {
                needed,
                context: self.context,
            });
        }
        if !sequence.reserve(needed, &self.pages) {
            let (free, total) = (self.pages.n_free(), self.pages.n_pages());
            return Err(EngineError::CacheFull {
                needed: n,
                free,
                total,
            });
        }
        Ok(())
    }
}
