//! What a backend is: something that runs a step of a model and can report what it computed on
//! the way. The engine drives backends through this interface alone.

mod check;
mod instrumented;
mod trace;

use std::sync::Arc;

pub use check::check_step;
pub use instrumented::{Instrumented, NotedLaunch};
pub use trace::{NoTrace, RecordedTensor, Recorder, TensorName, TraceSink, Tracer};

use crate::model::Model;

/// Tokens of one KV page. All layers of a token live in the same page.
pub const PAGE_TOKENS: usize = 64;

/// Index of a page in a backend's KV cache.
pub type PageId = u32;

/// What a step should give back for a sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Want {
    /// Nothing: a chunk of a prompt whose end is still to come.
    Nothing,
    /// Logits of the last new token.
    LastLogits,
    /// Logits of every new token.
    AllLogits,
    /// The most probable next token after the last one, chosen by the backend itself.
    Argmax,
    /// A random next token after the last one, drawn by the backend itself. Backends that do not
    /// [draw](Backend::draws) give the logits.
    Draw(Draw),
}

/// How a token is drawn from the logits of all: what [`crate::sampling`] calls by the same names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Divides the logits; above 0.
    pub temperature: f32,
    /// Tokens to keep; 0 keeps all.
    pub top_k: u32,
    /// Probability to keep; 1 keeps all.
    pub top_p: f32,
    /// Least share of the likeliest token's probability; 0 keeps all.
    pub min_p: f32,
    /// Of the random numbers; which one it is follows from the position of the token whose successor is drawn.
    pub seed: u64,
}

/// The part of a step that belongs to one sequence.
#[derive(Debug, Clone, Copy)]
pub struct SequenceStep<'a> {
    /// New tokens, at least one.
    pub tokens: &'a [u32],
    /// Position of the first of them: the number of tokens already in the cache.
    pub start: usize,
    /// The pages of positions `0..start + tokens.len()`, in order.
    pub pages: &'a [PageId],
    /// What to give back.
    pub want: Want,
}

impl SequenceStep<'_> {
    /// Number of positions after this step.
    pub fn end(&self) -> usize {
        self.start + self.tokens.len()
    }
}

/// What a step gave for one sequence.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// For [`Want::Nothing`].
    Nothing,
    /// `[1 or tokens, vocab]`, row-major.
    Logits(Vec<f32>),
    /// For [`Want::Argmax`] and [`Want::Draw`].
    Token(u32),
    /// Instead of logits or a token where a wanted logit is NaN or infinite: any choice would hide it.
    NotFinite(NotFinite),
}

impl Output {
    /// The logits `[1 or tokens, vocab]` of sequence `sequence` of a step, the first row of which belongs to
    /// `position`: as they are if all are finite.
    pub fn logits(logits: Vec<f32>, vocab: usize, sequence: usize, position: usize) -> Output {
        match logits.iter().position(|logit| !logit.is_finite()) {
            None => Output::Logits(logits),
            Some(index) => Output::NotFinite(NotFinite {
                sequence,
                position: position + index / vocab.max(1),
            }),
        }
    }

    /// The output itself, or the error that stands in its place.
    pub fn finite(self) -> Result<Output, NotFinite> {
        match self {
            Output::NotFinite(error) => Err(error),
            output => Ok(output),
        }
    }
}

/// A NaN or an infinity among the model's logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the logits at position {position} of sequence {sequence} are not finite: the model's weights or the \
     backend are broken (`hyperion verify` shows where)"
)]
pub struct NotFinite {
    /// Which sequence of the step, from 0.
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
    /// Logits that are not finite, where a text is evaluated as a whole.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
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
    /// 8-bit integers in blocks of 16 with a scale each, where a step is a few tokens.
    Q8,
    /// Half precision everywhere.
    F16,
}

/// A model on some hardware, with its KV cache.
pub trait Backend: Send {
    /// The model it runs.
    fn model(&self) -> &Arc<Model>;

    /// Pages in its KV cache.
    fn n_pages(&self) -> usize;

    /// Positions that the backend can represent; at most what its pages hold.
    fn max_context(&self) -> usize {
        self.n_pages() * PAGE_TOKENS
    }

    /// Runs the new tokens of all `sequences`, writes their keys and values into their pages and
    /// gives one output for each sequence. `trace` hears of the tensors it asks for. Logits that are not
    /// finite are the [`Output`] of their sequence alone.
    ///
    /// # Errors
    /// A step that [`check_step`] refuses, or a device that fails.
    fn step(
        &mut self,
        sequences: &[SequenceStep<'_>],
        trace: &mut dyn TraceSink,
    ) -> Result<Vec<Output>, BackendError>;

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

    /// Prompt tokens that a step should take unless the user asks otherwise.
    fn default_chunk(&self) -> usize {
        512
    }

    /// What it rounds activations to; `None` where it computes in f32 or better.
    fn activations(&self) -> Option<ActivationPrecision> {
        None
    }

    /// Whether it draws random tokens itself.
    fn draws(&self) -> bool {
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
