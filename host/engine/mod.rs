//! Sequences over a backend: prompts in chunks, decode steps for several sequences, KV pages.

mod generate;
mod pages;
mod sequence;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use generate::{Finish, Generation, Generator, Limits, Stats};
pub use pages::{Page, PagePool};
pub use sequence::Sequence;

use crate::backend::{
    Backend, BackendError, NoTrace, NotFinite, Output, PAGE_TOKENS, SequenceStep, TraceSink, Want,
};
use crate::model::Model;

/// Errors of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A prompt or an answer outgrew the context.
    #[error("{needed} tokens do not fit the context of {context}")]
    Context {
        /// Tokens asked for.
        needed: usize,
        /// Tokens that fit.
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
    /// Logits that are not finite; no other sequence of the step is concerned.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    /// The backend failed.
    #[error(transparent)]
    Backend(BackendError),
    /// The text side failed.
    #[error(transparent)]
    Text(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl From<BackendError> for EngineError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Interrupted => Self::Interrupted,
            error => Self::Backend(error),
        }
    }
}

/// Hears after each chunk of a prompt how many of its tokens are computed, and how many there are.
pub type Progress = Box<dyn FnMut(usize, usize) + Send>;

/// Runs sequences on a backend.
pub struct Engine {
    backend: Box<dyn Backend>,
    pages: PagePool,
    context: usize,
    chunk: usize,
    progress: Option<Progress>,
}

/// One sequence's part in a decode step.
pub struct Decode<'a> {
    /// The sequence.
    pub sequence: &'a mut Sequence,
    /// Its newest token, not yet in the cache.
    pub token: u32,
    /// What to give back.
    pub want: Want,
}

impl Engine {
    /// An engine whose sequences hold at most `context` tokens and whose prompts run in steps of
    /// `chunk` tokens.
    pub fn new(backend: Box<dyn Backend>, context: usize, chunk: usize) -> Engine {
        let pages = PagePool::new(backend.n_pages());
        let context = context.min(backend.max_context());
        Engine {
            backend,
            pages,
            context,
            chunk: chunk.max(1),
            progress: None,
        }
    }

    /// From now on `progress` hears of every prompt.
    pub fn report_progress(&mut self, progress: Progress) {
        self.progress = Some(progress);
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

    /// Adds `tokens` to `sequence` in chunks and gives what `want` asks of the last chunk.
    pub fn prefill(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        want: Want,
        interrupt: &AtomicBool,
    ) -> Result<Output, EngineError> {
        self.prefill_traced(sequence, tokens, want, interrupt, &mut NoTrace)
    }

    /// [`Engine::prefill`] with a trace; a trace sees each chunk as a step of its own.
    pub fn prefill_traced(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        want: Want,
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
            let want = if index + 1 == n_chunks {
                want
            } else {
                Want::Nothing
            };
            let step = SequenceStep {
                tokens: chunk,
                start: sequence.len(),
                pages: sequence.page_ids(),
                want,
            };
            let outputs = self.backend.step(&[step], trace)?;
            sequence.append(chunk);
            if let Some(progress) = &mut self.progress {
                progress(index * self.chunk + chunk.len(), tokens.len());
            }
            output = outputs.into_iter().next().ok_or(EngineError::EmptyPrompt);
        }
        Ok(output?.finite()?)
    }

    /// One token for each of several sequences in one step. A sequence that has no room, or whose logits are not
    /// finite, gets its own error and does not hold the others up.
    pub fn decode(
        &mut self,
        batch: &mut [Decode<'_>],
    ) -> Result<Vec<Result<Output, EngineError>>, EngineError> {
        let rooms: Vec<_> = batch
            .iter_mut()
            .map(|item| self.make_room(item.sequence, 1))
            .collect();
        let ready = || batch.iter().zip(&rooms).filter(|(_, room)| room.is_ok());
        let steps: Vec<SequenceStep<'_>> = ready()
            .map(|(item, _)| SequenceStep {
                tokens: std::slice::from_ref(&item.token),
                start: item.sequence.len(),
                pages: item.sequence.page_ids(),
                want: item.want,
            })
            .collect();
        let mut outputs = match steps.is_empty() {
            true => Vec::new(),
            false => self.backend.step(&steps, &mut NoTrace)?,
        }
        .into_iter();
        let results = batch.iter_mut().zip(rooms).map(|(item, room)| {
            room?;
            item.sequence.append(&[item.token]);
            let output = outputs.next().ok_or(EngineError::EmptyPrompt)?;
            Ok(output.finite()?)
        });
        Ok(results.collect())
    }

    fn make_room(&self, sequence: &mut Sequence, n: usize) -> Result<(), EngineError> {
        let needed = sequence.len() + n;
        if needed > self.context {
            return Err(EngineError::Context {
                needed,
                context: self.context,
            });
        }
        if !sequence.reserve(n, &self.pages) {
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
