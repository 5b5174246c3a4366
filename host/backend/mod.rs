//! What a backend is: something that runs a step of a model and can report what it computed on
//! the way. The engine drives backends through this interface alone.

mod check;
mod draw;
mod instrumented;
mod row;
mod trace;

use std::sync::Arc;

pub use check::check_step;
pub use draw::{Candidate, Draw, OutOfRange, softmax, top_k};
pub use instrumented::{Instrumented, NotedLaunch};
pub use row::{
    Ask, Choice, Draft, Logprobs, MAX_LOGPROBS, NewTokens, Output, Penalties, Pooling, Report, Row,
    RowError, RowResult, Ticket,
};
pub use trace::{NoTrace, RecordedTensor, Recorder, TensorName, TraceSink, Tracer};

use crate::model::Model;

/// Tokens of one KV page. All layers of a token live in the same page.
pub const PAGE_TOKENS: usize = 64;

/// Index of a page in a backend's KV cache.
pub type PageId = u32;

/// A NaN or an infinity among the model's logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the logits at position {position} of sequence {sequence} are not finite: the model's weights or the \
     backend are broken (`hyperion verify` shows where)"
)]
pub struct NotFinite {
    /// Which row of the step, from 0.
    pub sequence: usize,
    /// The position of the token whose successor was asked for.
    pub position: usize,
}

/// Errors of a backend.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// A token id outside the vocabulary.
    #[error("token {token} at position {position} is outside the vocabulary of {vocab}")]
    Token {
        /// The id.
        token: u32,
        /// Its position in the sequence.
        position: usize,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// A sequence without tokens, or pages that do not cover its positions.
    #[error(
        "a step of {tokens} tokens up to position {end} with {pages} pages of {PAGE_TOKENS} tokens"
    )]
    Pages {
        /// New tokens.
        tokens: usize,
        /// Positions to be covered.
        end: usize,
        /// Pages given.
        pages: usize,
    },
    /// A step that goes beyond the backend's context.
    #[error(
        "a step up to position {end} of sequence {sequence} is beyond the context of {context}"
    )]
    Context {
        /// Which sequence of the step.
        sequence: usize,
        /// Positions after the step.
        end: usize,
        /// Positions that the backend can represent.
        context: usize,
    },
    /// A page that a step writes and that it also uses for something else.
    #[error(
        "sequence {writer} of a step writes page {page}, which sequence {other} uses for other positions"
    )]
    SharedPage {
        /// The page.
        page: PageId,
        /// The sequence that writes it.
        writer: usize,
        /// The sequence that has it too; the same one where its own pages repeat.
        other: usize,
    },
    /// More than a step takes.
    #[error(
        "a step of {tokens} tokens of {sequences} sequences is over the {max_tokens} and {max_sequences} of a step"
    )]
    TooLarge {
        /// New tokens of all rows.
        tokens: usize,
        /// Rows.
        sequences: usize,
        /// Most tokens.
        max_tokens: usize,
        /// Most rows.
        max_sequences: usize,
    },
    /// A row that asks for what does not exist.
    #[error("row {row} of a step: {what}")]
    Ask {
        /// The row.
        row: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A row whose token belongs to a step that is not there any more, or a step collected out of turn.
    #[error("step {0:?} is not under way")]
    Ticket(Ticket),
    /// As many steps under way as there may be.
    #[error("{IN_FLIGHT} steps are under way and none was collected")]
    InFlight,
    /// A row's own error, where a text is evaluated as a whole.
    #[error(transparent)]
    Row(#[from] RowError),
    /// Somebody asked to stop in the middle of a step. What it wrote into the cache is void.
    #[error("interrupted")]
    Interrupted,
    /// The device failed.
    #[error(transparent)]
    Device(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// What a backend rounds activations to before it multiplies them with quantized weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationPrecision {
    /// 8-bit integers in blocks of 16 with a scale each; on a GPU where a step is a few tokens.
    Q8,
    /// Half precision everywhere; on the CPU, whose reference this is, not at all.
    F16,
}

/// Most steps that are submitted and not collected.
pub const IN_FLIGHT: usize = 2;

/// What a backend has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of a step, drafts counted as rows of their own.
    pub max_sequences: usize,
    /// New tokens of a step, of all rows together.
    pub max_tokens: usize,
    /// Pages in the KV cache.
    pub n_pages: usize,
    /// Positions of a sequence; at most what the pages hold.
    pub max_context: usize,
}

/// A model on some hardware, with its KV cache.
///
/// A step has two phases, so that the host can do its part of one while the device works on another:
/// [`submit`](Self::submit) sends it, [`collect`](Self::collect) waits for it. Steps are collected in their order,
/// and up to [`IN_FLIGHT`] of them are under way.
pub trait Backend: Send {
    /// The model it runs.
    fn model(&self) -> &Arc<Model>;

    /// What it has room for.
    fn limits(&self) -> Limits;

    /// Starts a step: computes the new tokens of all `rows` and writes their keys and values into their pages.
    /// `trace` hears of the tensors it asks for; with an active one the step is complete on return.
    ///
    /// # Errors
    /// A step that [`check_step`] refuses, a token of a step that is not under way, too many steps under way, or a
    /// device that fails.
    fn submit(
        &mut self,
        rows: &[Row<'_>],
        trace: &mut dyn TraceSink,
    ) -> Result<Ticket, BackendError>;

    /// Waits for the oldest step under way, which is `ticket`: a result for each of its rows.
    ///
    /// # Errors
    /// Another step, or a device that failed.
    fn collect(&mut self, ticket: Ticket) -> Result<Vec<RowResult>, BackendError>;

    /// Both phases of a step.
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit) and [`collect`](Self::collect).
    fn step(
        &mut self,
        rows: &[Row<'_>],
        trace: &mut dyn TraceSink,
    ) -> Result<Vec<RowResult>, BackendError> {
        let ticket = self.submit(rows, trace)?;
        self.collect(ticket)
    }

    /// Short description for people: `"cpu, 8 threads"`, `"NVIDIA H100 80GB"`.
    fn description(&self) -> String;

    /// The tensor `name` as the device holds it, dequantized there: the bits of its elements in half
    /// precision. `None` where the backend reads the file in place and so holds no copy.
    fn read_weight(&self, _name: &str) -> Option<Result<Vec<u16>, BackendError>> {
        None
    }

    /// The vector `name` (a norm's weight, a bias) as the device holds it. `None` where the backend holds no
    /// copy of it.
    fn read_vector(&self, _name: &str) -> Option<Result<Vec<f32>, BackendError>> {
        None
    }

    /// Cosines and sines of rotation `index` of [`Config::ropes`](crate::model::Config::ropes) as the device
    /// holds them, `[positions][pairs][2]`. `None` where the backend holds no such table.
    fn read_rope(&self, _index: usize) -> Option<Result<Vec<f32>, BackendError>> {
        None
    }

    /// What queries are multiplied by at each position, as the device holds it. `None` where the backend holds no such
    /// table.
    fn read_query_factors(&self) -> Option<Result<Vec<f32>, BackendError>> {
        None
    }

    /// Prompt tokens that a step should take unless the user asks otherwise.
    fn default_chunk(&self) -> usize {
        512
    }

    /// Whether [`submit`](Self::submit) returns while the step is still being computed.
    fn overlaps(&self) -> bool {
        false
    }

    /// What it rounds activations to; `None` where it computes in f32 or better.
    fn activations(&self) -> Option<ActivationPrecision> {
        None
    }

    /// Whether what [`activations`](Self::activations) says holds for long steps as well.
    fn rounds_every_step(&self) -> bool {
        false
    }

    /// Bytes of an element of its KV cache.
    fn kv_element_bytes(&self) -> usize {
        2
    }

    /// How to look into its steps, where they are made of kernels.
    fn instrumented(&self) -> Option<&dyn Instrumented> {
        None
    }
}
