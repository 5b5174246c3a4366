//! The thread that owns the scheduler: it takes requests, runs steps, and hands events out.
//!
//! Nobody waits for a client here. Each request's events go into a channel that holds more than any client should be
//! behind; one that is full, or whose other end is gone, cancels the request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::Limits;
use super::metrics::{EngineLoad, EngineMetrics};
use crate::backend::BackendError;
use crate::engine::{EngineError, Event, Request, RequestId, Scheduler};
use crate::openai::ApiError;

/// Why the engine's thread ended before the server did.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineFailure {
    /// The device failed, and whatever is asked of it next would fail too.
    #[error("the device has failed")]
    Device(#[source] Arc<BackendError>),
    /// A fault of the program.
    #[error("the engine's thread has panicked")]
    Panic,
}

/// An event of one of a request's answers, by its place among them.
pub type AnswerEvent = (usize, Event);

/// Requests whose answers belong together.
struct Command {
    requests: Vec<Request>,
    events: mpsc::Sender<AnswerEvent>,
    accepted: oneshot::Sender<Result<(), ApiError>>,
}

/// Sends requests to the engine's thread. Clones reach the same one.
#[derive(Clone)]
pub struct EngineHandle {
    commands: Sender<Command>,
    shared: Arc<Shared>,
    context: usize,
    most_open: usize,
    most_behind: usize,
}

/// What the thread and those who wait for answers have in common.
struct Shared {
    /// Answers that somebody waits for.
    awaited: AtomicUsize,
    /// Ends a step in the middle.
    interrupt: &'static AtomicBool,
    /// After the last step, and when it ended.
    load: Mutex<(EngineLoad, Instant)>,
}

/// How old a rate may be.
const RATE_AGE: Duration = Duration::from_secs(3);

impl Shared {
    fn load(&self) -> std::sync::MutexGuard<'_, (EngineLoad, Instant)> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EngineHandle {
    /// Most tokens of a prompt and its answer.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Most answers at a time, those that wait included.
    pub fn most_open(&self) -> usize {
        self.most_open
    }

    /// How busy the engine is.
    pub fn load(&self) -> EngineLoad {
        let (mut load, when) = *self.shared.load();
        if load.running == 0 && when.elapsed() > RATE_AGE {
            load.tokens_per_second = 0.0;
        }
        load
    }

    /// Starts an answer to each of `requests`.
    ///
    /// # Errors
    /// A request that can never run, more of them than there is room for now, or an engine that has ended.
    pub async fn start(&self, requests: Vec<Request>) -> Result<Answers, ApiError> {
        let n = requests.len();
        for request in &requests {
            request.fits(self.context)?;
        }
        let (sender, events) = mpsc::channel(self.most_behind);
        let answers = self.admit(n, events)?;
        let (accepted, outcome) = oneshot::channel();
        let command = Command {
            requests,
            events: sender,
            accepted,
        };
        let ended = || ApiError::server("the engine has ended");
        self.commands.send(command).map_err(|_| ended())?;
        outcome.await.map_err(|_| ended())??;
        Ok(answers)
    }

    /// Room for `n` answers, which are awaited from now on.
    fn admit(&self, n: usize, events: mpsc::Receiver<AnswerEvent>) -> Result<Answers, ApiError> {
        let most = self.most_open;
        if n > most {
            let message = format!("{n} answers are more than the {most} that there is room for");
            return Err(ApiError::invalid(message));
        }
        let room = |awaited: usize| (awaited + n <= most).then_some(awaited + n);
        let admitted =
            (self.shared.awaited).fetch_update(Ordering::AcqRel, Ordering::Acquire, room);
        match admitted {
            Ok(_) => Ok(Answers {
                events,
                n,
                n_open: n,
                shared: self.shared.clone(),
            }),
            Err(_) => Err(ApiError::unavailable(
                "too many requests are waiting; try again a little later",
            )),
        }
    }
}

/// The answers to a request as they are made. Dropping them cancels those that are not finished.
pub struct Answers {
    events: mpsc::Receiver<AnswerEvent>,
    n: usize,
    /// Those that are not finished.
    n_open: usize,
    shared: Arc<Shared>,
}

impl Answers {
    /// How many there are.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The next event of any of them; `None` when there will be none.
    pub async fn next(&mut self) -> Option<AnswerEvent> {
        let event = self.events.recv().await;
        self.note(event.as_ref());
        event
    }

    /// The same for a hand-written stream.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<AnswerEvent>> {
        let event = self.events.poll_recv(context);
        if let Poll::Ready(event) = &event {
            self.note(event.as_ref());
        }
        event
    }

    fn note(&mut self, event: Option<&AnswerEvent>) {
        if let Some((_, Event::Finished { .. } | Event::Failed { .. })) = event {
            self.n_open = self.n_open.saturating_sub(1);
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.events.close();
        let others = self.shared.awaited.fetch_sub(self.n, Ordering::AcqRel) - self.n;
        if self.n_open > 0 && others == 0 {
            // Nobody waits for the step that may be under way. One that is for somebody else after all is sent again.
            self.shared.interrupt.store(true, Ordering::Relaxed);
        }
    }
}

/// An answer that is being made.
struct Open {
    choice: usize,
    events: mpsc::Sender<AnswerEvent>,
    /// Other answers to the same prompt, which begin when it is computed, so that they find it in the cache.
    followers: Vec<(usize, Request)>,
    arrived: Instant,
    newest_token: Option<Instant>,
    /// Prompt tokens that are not computed.
    prompt_left: usize,
}

/// What the thread does.
pub struct EngineThread {
    scheduler: Scheduler,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    open: BTreeMap<RequestId, Open>,
    metrics: EngineMetrics,
    load: EngineLoad,
    rate: Rate,
}

/// Tokens a second.
struct Rate {
    since: Instant,
    tokens: usize,
}

impl EngineThread {
    /// A thread for `scheduler`, not yet running.
    pub fn new(
        scheduler: Scheduler,
        interrupt: &'static AtomicBool,
        limits: &Limits,
        metrics: EngineMetrics,
    ) -> (EngineThread, EngineHandle) {
        let (sender, commands) = channel();
        let now = Instant::now();
        let load = EngineLoad {
            most_running: scheduler.max_running(),
            pages: scheduler.pages().n_pages(),
            ..EngineLoad::default()
        };
        let shared = Arc::new(Shared {
            awaited: AtomicUsize::new(0),
            interrupt,
            load: Mutex::new((load, now)),
        });
        let handle = EngineHandle {
            commands: sender,
            shared: shared.clone(),
            context: scheduler.context(),
            most_open: scheduler.max_running() + limits.queue,
            most_behind: limits.events_behind.max(1),
        };
        let thread = EngineThread {
            scheduler,
            commands,
            shared,
            open: BTreeMap::new(),
            metrics,
            load,
            rate: Rate {
                since: now,
                tokens: 0,
            },
        };
        (thread, handle)
    }

    /// Runs until all handles are gone.
    ///
    /// # Errors
    /// The device failed. All open requests have heard of it.
    pub fn run(&mut self) -> Result<(), EngineFailure> {
        loop {
            if !self.scheduler.is_busy() {
                match self.commands.recv() {
                    Ok(command) => self.take(command),
                    Err(_) => return Ok(()),
                }
            }
            while let Ok(command) = self.commands.try_recv() {
                self.take(command);
            }
            self.cancel_abandoned();
            // The first step of a long prompt may take a while.
            self.publish_load();
            match self.scheduler.step() {
                Ok(events) => self.hand_out(events)?,
                Err(EngineError::Interrupted) => {
                    self.shared.interrupt.store(false, Ordering::Relaxed);
                }
                // The scheduler's errors are events of requests.
                Err(_) => return Err(EngineFailure::Panic),
            }
            self.publish_load();
        }
    }

    fn publish_load(&mut self) {
        let now = Instant::now();
        let pages = self.scheduler.pages();
        let followers = self.open.values().map(|open| open.followers.len());
        self.load.running = self.scheduler.n_running();
        self.load.waiting = self.scheduler.n_waiting() + followers.sum::<usize>();
        self.load.prompt_tokens_left = self.open.values().map(|open| open.prompt_left).sum();
        self.load.pages_used = pages.n_pages() - pages.n_free();
        self.load.pages_cached = pages.n_cached();
        let window = now - self.rate.since;
        if window >= Duration::from_secs(1) {
            self.load.tokens_per_second = self.rate.tokens as f64 / window.as_secs_f64();
            self.rate = Rate {
                since: now,
                tokens: 0,
            };
        }
        *self.shared.load() = (self.load, now);
    }

    /// Gives the scheduler the requests of a command; those with the prompt of the one before wait for that one.
    fn take(&mut self, command: Command) {
        let mut leader: Option<(RequestId, Vec<u32>)> = None;
        for (choice, request) in command.requests.into_iter().enumerate() {
            if let Some((id, prompt)) = &leader
                && *prompt == request.prompt
                && let Some(open) = self.open.get_mut(id)
            {
                open.followers.push((choice, request));
                continue;
            }
            let prompt = request.prompt.clone();
            match self.add(choice, request, &command.events) {
                Ok(id) => leader = Some((id, prompt)),
                Err(error) => {
                    // Those before it are cancelled when their receiver is dropped.
                    let _ = command.accepted.send(Err(error));
                    return;
                }
            }
        }
        // Whoever has gone is noticed by the closed channel.
        let _ = command.accepted.send(Ok(()));
    }

    fn add(
        &mut self,
        choice: usize,
        request: Request,
        events: &mpsc::Sender<AnswerEvent>,
    ) -> Result<RequestId, ApiError> {
        let prompt_left = request.prompt.len();
        let id = self.scheduler.add(request)?;
        let open = Open {
            choice,
            events: events.clone(),
            followers: Vec::new(),
            arrived: Instant::now(),
            newest_token: None,
            prompt_left,
        };
        self.open.insert(id, open);
        Ok(id)
    }

    fn cancel_abandoned(&mut self) {
        let (scheduler, metrics) = (&mut self.scheduler, &self.metrics);
        self.open.retain(|&id, open| {
            let is_abandoned = open.events.is_closed();
            if is_abandoned {
                scheduler.cancel(id);
                metrics.cancelled();
            }
            !is_abandoned
        });
    }

    fn hand_out(&mut self, events: Vec<Event>) -> Result<(), EngineFailure> {
        let mut failure = None;
        for event in events {
            self.count(&event);
            let (id, is_end) = match &event {
                Event::Prompt { .. } => continue,
                Event::Token { id, .. } => (*id, false),
                Event::Finished { id, .. } => (*id, true),
                Event::Failed { id, error } => {
                    failure = failure.or(device_failure(error));
                    (*id, true)
                }
            };
            self.send(id, event, is_end);
        }
        match failure {
            None => Ok(()),
            Some(error) => {
                self.fail_all(&error);
                Err(EngineFailure::Device(error))
            }
        }
    }

    /// Tells the client of `id` of an event, and lets those begin that waited for its prompt.
    fn send(&mut self, id: RequestId, event: Event, is_end: bool) {
        let Some(open) = self.open.get_mut(&id) else {
            // It was cancelled.
            return;
        };
        let (sender, followers) = (open.events.clone(), std::mem::take(&mut open.followers));
        if sender.try_send((open.choice, event)).is_err() {
            self.scheduler.cancel(id);
            self.metrics.cancelled();
            self.open.remove(&id);
            return;
        }
        if is_end {
            self.open.remove(&id);
        }
        for (choice, request) in followers {
            let added = self.add(choice, request, &sender);
            debug_assert!(added.is_ok(), "the one before was accepted");
        }
    }

    fn count(&mut self, event: &Event) {
        let now = Instant::now();
        match event {
            Event::Prompt { id, done, total } => {
                if let Some(open) = self.open.get_mut(id) {
                    open.prompt_left = total - done;
                }
            }
            Event::Token { id, .. } => {
                self.rate.tokens += 1;
                if let Some(open) = self.open.get_mut(id) {
                    open.prompt_left = 0;
                    match open.newest_token.replace(now) {
                        None => self.metrics.first_token(now - open.arrived),
                        Some(before) => self.metrics.next_token(now - before),
                    }
                }
            }
            Event::Finished { id, generation, .. } => {
                let stats = &generation.stats;
                self.load.cached_tokens += stats.cached_tokens as u64;
                self.load.prompt_tokens += (stats.prompt_tokens + stats.cached_tokens) as u64;
                let arrived = self.open.get(id).map_or(now, |open| open.arrived);
                self.metrics
                    .finished(generation.finish, stats, now - arrived);
            }
            Event::Failed { .. } => self.metrics.failed(),
        }
    }

    /// Tells all open requests that the device failed.
    fn fail_all(&mut self, error: &Arc<BackendError>) {
        for (id, open) in std::mem::take(&mut self.open) {
            let error = EngineError::Step(error.clone());
            let _ = open
                .events
                .try_send((open.choice, Event::Failed { id, error }));
        }
    }
}

/// The error of a device that will not recover.
fn device_failure(error: &EngineError) -> Option<Arc<BackendError>> {
    match error {
        EngineError::Step(error) if matches!(**error, BackendError::Device(_)) => {
            Some(error.clone())
        }
        _ => None,
    }
}
