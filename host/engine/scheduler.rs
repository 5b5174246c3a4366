//! Many requests on one backend: which of them take part in the next step.
//!
//! Each step has a budget of tokens. Requests that write get one each, then prompts are read in chunks, first come,
//! first served. When pages run out, the youngest request gives its own back and is computed again later; its random
//! numbers follow from positions, so that its text is the same. The oldest one always goes on, so that all end.

use std::collections::VecDeque;
use std::sync::Arc;

use super::active::Active;
use super::{EngineError, Finish, Generation, PagePool, Request, RequestId, Sequence};
use crate::backend::{
    Ask, Backend, BackendError, IN_FLIGHT, Logprobs, MAX_LOGPROBS, NewTokens, NoTrace, PAGE_TOKENS,
    Row, RowResult, Ticket,
};
use crate::model::Model;
use crate::tokenizer::Tokenizer;

/// Prompt tokens of a step, however many write.
const LEAST_CHUNK: usize = 64;

/// How a scheduler divides steps.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Most tokens of a sequence.
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

/// What happened to a request.
#[derive(Debug)]
pub enum Event {
    /// So many of its prompt's tokens are computed.
    Prompt {
        /// The request.
        id: RequestId,
        /// Tokens computed.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token was chosen.
    Token {
        /// The request.
        id: RequestId,
        /// The token.
        token: u32,
        /// The text that is certain with it: whole characters, perhaps none.
        text: String,
        /// Where they were asked for.
        logprobs: Option<Logprobs>,
    },
    /// The answer is complete.
    Finished {
        /// The request.
        id: RequestId,
        /// Text that was held back, because it could have begun a stop string.
        text: String,
        /// The whole answer.
        generation: Generation,
    },
    /// The request ended without an answer; no other one is concerned.
    Failed {
        /// The request.
        id: RequestId,
        /// Why.
        error: EngineError,
    },
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
        }
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

    /// Most tokens of a sequence.
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
                self.warm_up_step(n, 1)?;
            }
        }
        let chunk = self.options.chunk.min(self.options.context);
        for tokens in [chunk, self.options.mixed_chunk.min(chunk)] {
            self.warm_up_step(1, tokens)?;
        }
        Ok(())
    }

    /// A step of `n` rows of one token, the last of which has `last` instead.
    fn warm_up_step(&mut self, n: usize, last: usize) -> Result<(), EngineError> {
        let tokens = vec![0; last];
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
                ask: Ask::GREEDY,
            });
        let rows: Vec<Row<'_>> = rows.collect();
        self.backend.step(&rows, &mut NoTrace)?;
        Ok(())
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
        if request.prompt.len() > self.options.context {
            return Err(EngineError::Context {
                needed: request.prompt.len(),
                context: self.options.context,
            });
        }
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
        let active = Active::new(id, request, &self.tokenizer, vocab)?;
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
    /// its requests are as they were. Whatever else fails is the [`Event`] of the requests that it concerns.
    pub fn step(&mut self) -> Result<Vec<Event>, EngineError> {
        let mut events = Vec::new();
        self.end_cancelled(&mut events);
        self.admit();
        let is_sent = self.send(&mut events)?;
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
            let sequence = Sequence::with_prefix_of(next.tokens(), &self.pages);
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

    /// Sends the next step; false where there is none to be sent now.
    fn send(&mut self, events: &mut Vec<Event>) -> Result<bool, EngineError> {
        if self.must_drain && !self.under_way.is_empty() {
            return Ok(false);
        }
        self.must_drain = false;
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

    /// Which of those that run take part in the next step, and with how many tokens. Their pages are theirs.
    fn plan(&mut self) -> Vec<(usize, usize)> {
        let mut parts = Vec::new();
        let most_rows = self.backend.limits().max_sequences;
        let writes = |active: &Active| active.n_waiting() <= 1;
        let mut at = 0;
        while at < self.running.len() && parts.len() < most_rows {
            let active = &self.running[at];
            if writes(active) && active.can_go(self.options.context) && self.make_room(at, 1) {
                parts.push((at, 1));
            }
            at += 1;
        }
        let mut budget = match parts.is_empty() {
            true => self.options.chunk,
            false => (self.options.mixed_chunk.saturating_sub(parts.len())).max(LEAST_CHUNK),
        };
        budget = budget.min(self.backend.limits().max_tokens - parts.len());
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

    /// Waits for the oldest step under way and hands its results out.
    fn complete_oldest(&mut self, events: &mut Vec<Event>) {
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
        let taken = active.complete(row.n_tokens, &output, &self.tokenizer, self.options.context);
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
    fn finish(&mut self, mut active: Active, finish: Finish, events: &mut Vec<Event>) {
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

    /// Ends the requests `ids`, whose step failed with `error`.
    fn fail(&mut self, ids: &[RequestId], error: BackendError, events: &mut Vec<Event>) {
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
