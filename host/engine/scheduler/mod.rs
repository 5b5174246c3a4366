//! Many requests on one backend: which of them take part in the next step.
//!
//! Each step has a budget of tokens. Requests that write get one each, then prompts are read in chunks, first come,
//! first served. When pages run out, the youngest request gives its own back and is computed again later; its random
//! numbers follow from positions, so that its text is the same. The oldest one always goes on, so that all end.

mod complete;
mod send;
mod warm_up;

use std::collections::VecDeque;
use std::sync::Arc;

use super::active::Active;
use super::speculation::Speculation;
use super::{Drafter, EngineError, Event, Finish, PagePool, Request, RequestId, Sequence};
use crate::backend::{Backend, BackendError, IN_FLIGHT, MAX_LOGPROBS, PAGE_TOKENS, Ticket};
use crate::model::Model;
use crate::tokenizer::Tokenizer;

/// How a scheduler divides steps.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Most tokens of a prompt and its answer.
    pub context: usize,
    /// Tokens of a step that only reads prompts.
    pub chunk: usize,
    /// Tokens of a step in which some write and others read their prompts: what readers add to the time between
    /// tokens. All of the step's tokens count, so that steps are of one size, which a device's library of products
    /// has to be asked for only once.
    pub mixed_chunk: usize,
    /// Requests that run at the same time.
    pub max_running: usize,
}

/// Requests that wait and run, and the backend they run on.
pub struct Scheduler {
    backend: Box<dyn Backend>,
    tokenizer: Arc<Tokenizer>,
    pages: PagePool,
    options: Options,
    /// In the order in which they came; those that had to give their pages back are before the others.
    waiting: VecDeque<Active>,
    /// In the order in which they came.
    running: Vec<Active>,
    under_way: VecDeque<Step>,
    /// Pages of requests that have ended while rows of theirs are under way, up to the named step.
    retired: Vec<(Ticket, Sequence)>,
    /// Nothing is sent until all steps are complete: pages have to be given back.
    must_drain: bool,
    n_requests: u64,
    speculates: Option<Speculates>,
}

/// How requests guess their tokens.
struct Speculates {
    /// Tokens at a time.
    most: usize,
    /// Makes a request's drafter.
    drafter: Box<dyn Fn() -> Box<dyn Drafter> + Send>,
}

/// A step under way.
struct Step {
    ticket: Ticket,
    rows: Vec<SentRow>,
}

/// A row under way.
#[derive(Clone, Copy)]
struct SentRow {
    id: RequestId,
    n_tokens: usize,
}

impl Scheduler {
    /// A scheduler for `backend`, all of whose pages it owns.
    pub fn new(
        backend: Box<dyn Backend>,
        tokenizer: Arc<Tokenizer>,
        options: Options,
    ) -> Scheduler {
        let limits = backend.limits();
        let within = |tokens: usize| tokens.clamp(1, limits.max_tokens);
        Scheduler {
            pages: PagePool::new(limits.n_pages),
            options: Options {
                // A single sequence may have all pages.
                context: (options.context.min(limits.max_context))
                    .min(limits.n_pages * PAGE_TOKENS),
                chunk: within(options.chunk),
                mixed_chunk: within(options.mixed_chunk),
                max_running: options.max_running.clamp(1, limits.max_sequences),
            },
            backend,
            tokenizer,
            waiting: VecDeque::new(),
            running: Vec::new(),
            under_way: VecDeque::new(),
            retired: Vec::new(),
            must_drain: false,
            n_requests: 0,
            speculates: None,
        }
    }

    /// Lets each request guess up to `most` tokens at a time, by a drafter of its own that `drafter` makes, and verify
    /// them in one step: its text is the same, and may be there sooner. With 0 none does.
    pub fn speculate(
        &mut self,
        most: usize,
        drafter: impl Fn() -> Box<dyn Drafter> + Send + 'static,
    ) {
        let drafter = Box::new(drafter);
        self.speculates = (most > 0).then_some(Speculates { most, drafter });
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        self.backend.model()
    }

    /// The backend.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The pages.
    pub fn pages(&self) -> &PagePool {
        &self.pages
    }

    /// Most tokens of a prompt and its answer.
    pub fn context(&self) -> usize {
        self.options.context
    }

    /// Most requests that run at the same time.
    pub fn max_running(&self) -> usize {
        self.options.max_running
    }

    /// Requests that wait for their turn.
    pub fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests that run.
    pub fn n_running(&self) -> usize {
        self.running.len()
    }

    /// Whether there is anything left to do.
    pub fn is_busy(&self) -> bool {
        !(self.waiting.is_empty() && self.running.is_empty() && self.under_way.is_empty())
    }

    /// Takes a request.
    ///
    /// # Errors
    /// One that can never run: an empty prompt, one that does not fit the context, a token that there is not, or a
    /// parameter outside its range.
    pub fn add(&mut self, request: Request) -> Result<RequestId, EngineError> {
        if request.prompt.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        request.fits(self.options.context)?;
        let vocab = self.model().vocab();
        let is_unknown = |&token: &u32| token as usize >= vocab;
        if let Some(position) = request.prompt.iter().position(is_unknown) {
            let token = request.prompt[position];
            return Err(BackendError::Token {
                token,
                position,
                vocab,
            }
            .into());
        }
        if request.logprobs.is_some_and(|most| most > MAX_LOGPROBS) {
            return Err(EngineError::Logprobs);
        }
        let id = RequestId(self.n_requests);
        let speculation = self.speculates.as_ref().map(|speculates| {
            let Speculates { most, drafter } = speculates;
            Speculation::new(drafter(), *most)
        });
        let active = Active::new(id, request, &self.tokenizer, vocab, speculation)?;
        self.n_requests += 1;
        self.waiting.push_back(active);
        Ok(id)
    }

    /// Ends a request with what it has so far; this takes effect with the next step.
    pub fn cancel(&mut self, id: RequestId) {
        let all = self.waiting.iter_mut().chain(&mut self.running);
        for active in all.filter(|active| active.id == id) {
            active.is_cancelled = true;
        }
    }

    /// Sends a step if there is one to be sent, takes the results of the oldest one if it is its turn, and tells what
    /// happened.
    ///
    /// # Errors
    /// [`EngineError::Interrupted`], where somebody stopped the backend in the middle of a step: the step is void, and
    /// its requests are as they were. Requests that ended before it are told first, and the backend, which is stopped
    /// until somebody lets it go on, is asked again by the next call. Whatever else fails is the [`Event`] of the
    /// requests that it concerns.
    pub fn step(&mut self) -> Result<Vec<Event>, EngineError> {
        let mut events = Vec::new();
        self.end_cancelled(&mut events);
        self.admit();
        let is_sent = match self.send(&mut events) {
            Err(EngineError::Interrupted) if !events.is_empty() => return Ok(events),
            sent => sent?,
        };
        // A backend that computes a step at once has nothing to gain from the one behind it.
        let depth = if self.backend.overlaps() {
            IN_FLIGHT
        } else {
            1
        };
        if !is_sent || self.under_way.len() >= depth {
            self.complete_oldest(&mut events);
        }
        Ok(events)
    }

    fn end_cancelled(&mut self, events: &mut Vec<Event>) {
        let mut at = 0;
        while at < self.waiting.len() {
            match self.waiting[at].is_cancelled {
                false => at += 1,
                true => {
                    if let Some(active) = self.waiting.remove(at) {
                        self.finish(active, Finish::Interrupted, events);
                    }
                }
            }
        }
        let mut at = 0;
        while at < self.running.len() {
            match self.running[at].is_cancelled {
                false => at += 1,
                true => {
                    let active = self.running.remove(at);
                    self.finish(active, Finish::Interrupted, events);
                }
            }
        }
    }

    /// Lets waiting requests run, in their order, as far as their known tokens find pages.
    fn admit(&mut self) {
        while !self.must_drain && self.running.len() < self.options.max_running {
            let Some(next) = self.waiting.front() else {
                return;
            };
            let sequence = next.cached(&self.pages);
            let needed = sequence.missing_pages(next.tokens().len() + 1);
            // Those that run will need some soon, and what is admitted only to be put off again costs its prompt.
            let is_crowded = self.pages.n_free() < needed + self.running.len();
            if is_crowded && !self.running.is_empty() {
                return;
            }
            if let Some(mut active) = self.waiting.pop_front() {
                active.start(sequence);
                let at = self.running.partition_point(|other| other.id < active.id);
                self.running.insert(at, active);
            }
        }
    }
}
