//! Running the requests of a file through the scheduler.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Identity, JournalError, RequestFile, ResultLine};
use crate::chat::{AnswerForm, ChatTemplate};
use crate::engine::{self, EngineError, Event, Generation, RequestId, Scheduler};
use crate::grammar::Grammars;
use crate::openai::{Answer, ApiError, Choice, Endpoint, Request, Response, wrong};

/// Requests that wait in the scheduler for those that run; more are admitted in one step at its beginning alone.
const READ_AHEAD: usize = 64;

/// Why a run ended before its requests. Whatever was finished is written; the next run goes on behind it.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The backend failed, which is no result of a request.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The results could not be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Standard output could not be written.
    #[error("writing results")]
    Output(#[from] io::Error),
}

/// What is run, and by what.
pub struct Batch<'a> {
    /// Runs the requests.
    pub scheduler: &'a mut Scheduler,
    /// Lays out conversations, where the model has a template that can.
    pub template: Option<&'a ChatTemplate>,
    /// Compiles what answers must look like.
    pub grammars: Grammars,
    /// The requests.
    pub requests: &'a RequestFile,
    /// Names results and gives seeds.
    pub identity: &'a Identity,
    /// What results call the model.
    pub model: &'a str,
}

/// How far a run has got.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Requests with a result.
    pub done: usize,
    /// Tokens generated.
    pub generated_tokens: usize,
    /// Pages of the KV cache that requests hold.
    pub pages_used: usize,
    /// All of its pages.
    pub pages: usize,
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    /// Requests with a result.
    pub requests: usize,
    /// Those of them whose result is an error.
    pub failed: usize,
    /// Tokens of their prompts.
    pub prompt_tokens: usize,
    /// Those that were in the cache.
    pub cached_tokens: usize,
    /// Tokens generated, also for requests that were not finished.
    pub generated_tokens: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// Whether it was stopped before all were done.
    pub is_interrupted: bool,
}

/// A request that the scheduler has.
struct Running {
    line: usize,
    endpoint: Endpoint,
    prompt_tokens: usize,
    seed: u64,
    has_logprobs: bool,
    form: AnswerForm,
    shown: Vec<u32>,
}

impl Batch<'_> {
    /// Runs the requests of the lines `pending`. `write` takes each result as soon as it is there.
    ///
    /// # Errors
    /// The backend failed, or a result could not be written; an error of a request is its result.
    pub fn run(
        &mut self,
        pending: &[usize],
        interrupt: &AtomicBool,
        write: &mut dyn FnMut(&[u8]) -> Result<(), BatchError>,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Summary, BatchError> {
        let start = Instant::now();
        let mut summary = Summary::default();
        let mut pending: VecDeque<usize> = pending.iter().copied().collect();
        let mut running = BTreeMap::new();
        while !interrupt.load(Ordering::Relaxed) {
            self.fill(&mut pending, &mut running, &mut summary, write)?;
            progress(&self.progress(&summary));
            if running.is_empty() {
                summary.elapsed = start.elapsed();
                return Ok(summary);
            }
            match self.scheduler.step() {
                Err(EngineError::Interrupted) => break,
                events => self.take(events?, &mut running, &mut summary, write)?,
            }
        }
        summary.is_interrupted = true;
        summary.elapsed = start.elapsed();
        Ok(summary)
    }

    fn progress(&self, summary: &Summary) -> Progress {
        let pages = self.scheduler.pages();
        Progress {
            done: summary.requests,
            generated_tokens: summary.generated_tokens,
            pages_used: pages.n_pages() - pages.n_free(),
            pages: pages.n_pages(),
        }
    }

    /// Gives the scheduler enough requests to choose from. More would only take memory.
    fn fill(
        &mut self,
        pending: &mut VecDeque<usize>,
        running: &mut BTreeMap<RequestId, Running>,
        summary: &mut Summary,
        write: &mut dyn FnMut(&[u8]) -> Result<(), BatchError>,
    ) -> Result<(), BatchError> {
        while self.scheduler.n_waiting() < READ_AHEAD {
            let Some(line) = pending.pop_front() else {
                return Ok(());
            };
            let added = self.read(line).and_then(|(request, read)| {
                let id = self.scheduler.add(request)?;
                running.insert(id, read);
                Ok(())
            });
            if let Err(error) = added {
                self.write(line, Err(error), summary, write)?;
            }
        }
        Ok(())
    }

    /// The request of a line.
    fn read(&self, line: usize) -> Result<(engine::Request, Running), ApiError> {
        let named = &self.requests.lines()[line];
        let body = self.requests.body(named)?;
        if let Some(n) = body.body.get("n")
            && !n.is_null()
            && n.as_f64() != Some(1.0)
        {
            return Err(wrong("n", n, "1: a batch makes one answer"));
        }
        let request = Request::from_body(body.endpoint, body.body)?;
        let settings = request.settings();
        if settings.stream {
            let message = "stream is true; a batch has whole answers";
            return Err(ApiError::field("stream", message));
        }
        let seed = settings.seed.unwrap_or_else(|| self.identity.seed(named));
        let has_logprobs = settings.logprobs.is_some();
        let prepared = request.prepare(self.template, &self.grammars)?;
        let [prepared] = &prepared[..] else {
            let message = format!("prompt is a list of {}; a batch takes one", prepared.len());
            return Err(ApiError::field("prompt", message));
        };
        let request = prepared.request(settings, seed);
        let running = Running {
            line,
            endpoint: body.endpoint,
            prompt_tokens: request.prompt.len(),
            seed,
            has_logprobs,
            form: prepared.form.clone(),
            shown: prepared.shown.clone(),
        };
        Ok((request, running))
    }

    /// What happened in a step. Answers that were finished in it are written also where its backend failed.
    fn take(
        &self,
        events: Vec<Event>,
        running: &mut BTreeMap<RequestId, Running>,
        summary: &mut Summary,
        write: &mut dyn FnMut(&[u8]) -> Result<(), BatchError>,
    ) -> Result<(), BatchError> {
        let mut failure = None;
        for event in events {
            match event {
                Event::Prompt { .. } => {}
                Event::Token { .. } => summary.generated_tokens += 1,
                Event::Finished { id, generation, .. } => {
                    let Some(request) = running.remove(&id) else {
                        continue;
                    };
                    summary.prompt_tokens += request.prompt_tokens;
                    summary.cached_tokens += generation.stats.cached_tokens;
                    let response = self.response(&request, &generation);
                    self.write(request.line, Ok(response), summary, write)?;
                }
                Event::Failed {
                    error: error @ (EngineError::Step(_) | EngineError::Backend(_)),
                    ..
                } => failure = Some(error),
                Event::Failed { id, error } => {
                    if let Some(request) = running.remove(&id) {
                        summary.prompt_tokens += request.prompt_tokens;
                        self.write(request.line, Err(error.into()), summary, write)?;
                    }
                }
            }
        }
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// The response with `generation`. It says nothing of when and beside what it was made.
    fn response(&self, request: &Running, generation: &Generation) -> Response {
        let id = self.identity.id(&self.requests.lines()[request.line]);
        let pieces = request.form.read(&id, &generation.text);
        let answer = Answer {
            choices: &[Choice {
                generation,
                pieces: &pieces,
            }],
            tokenizer: self.scheduler.tokenizer(),
            id: &id,
            model: self.model,
            created: 0,
            seed: request.seed,
            prompt_tokens: request.prompt_tokens,
            has_logprobs: request.has_logprobs,
            shown: &request.shown,
            cached_tokens: None,
        };
        Response::new(request.endpoint, &answer)
    }

    fn write(
        &self,
        line: usize,
        outcome: Result<Response, ApiError>,
        summary: &mut Summary,
        write: &mut dyn FnMut(&[u8]) -> Result<(), BatchError>,
    ) -> Result<(), BatchError> {
        let named = &self.requests.lines()[line];
        let is_failed = outcome.is_err();
        let line = ResultLine {
            id: &self.identity.id(named),
            custom_id: named.custom_id.as_deref(),
            outcome,
        };
        write(&line.to_bytes().map_err(io::Error::from)?)?;
        summary.requests += 1;
        summary.failed += usize::from(is_failed);
        Ok(())
    }
}
