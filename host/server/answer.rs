//! Answers on their way from the engine to a client: whole, or as a stream of events in the form of an API.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio_stream::Stream;
use tracing::{Span, info, warn};

use super::engine_thread::Answers;
use crate::engine::{Event, Generation};
use crate::openai::{ApiError, ShownToken, ShownTokens, StreamEvent, Usage};

/// How an API tells of answers that are being made.
pub trait Form: Send + 'static {
    /// What comes before the first token.
    fn begin(&mut self) -> Vec<StreamEvent>;

    /// The text of answer `choice` goes on with `text`, and `tokens` are certain with it, where log-probabilities were
    /// asked for.
    fn text(&mut self, choice: usize, text: &str, tokens: &[ShownToken]) -> Vec<StreamEvent>;

    /// Answer `choice`, all of whose text was told, is complete.
    fn finish(&mut self, choice: usize, generation: &Generation) -> Vec<StreamEvent>;

    /// All answers are complete.
    fn end(&mut self, usage: Usage) -> Vec<StreamEvent>;

    /// There will be no more of them.
    fn fail(&mut self, error: &ApiError) -> Vec<StreamEvent>;
}

/// What answers to one request took together.
#[derive(Debug, Clone, Copy)]
pub struct Tally {
    prompt_tokens: usize,
    /// Answers to each prompt, of which the first one computes it.
    per_prompt: usize,
    completion_tokens: usize,
    cached_tokens: usize,
}

impl Tally {
    /// Nothing yet, of prompts with so many tokens in all.
    pub fn new(prompt_tokens: usize, per_prompt: usize) -> Tally {
        Tally {
            prompt_tokens,
            per_prompt,
            completion_tokens: 0,
            cached_tokens: 0,
        }
    }

    /// Counts the answer `choice`.
    pub fn add(&mut self, choice: usize, generation: &Generation) {
        self.completion_tokens += generation.tokens.len();
        if choice.is_multiple_of(self.per_prompt) {
            self.cached_tokens += generation.stats.cached_tokens;
        }
    }

    /// Logs them.
    pub fn log(&self) {
        let Tally {
            prompt_tokens,
            completion_tokens,
            cached_tokens,
            ..
        } = *self;
        info!(prompt_tokens, cached_tokens, completion_tokens, "answered");
    }

    /// In OpenAI's form.
    pub fn usage(&self) -> Usage {
        Usage::new(
            self.prompt_tokens,
            self.completion_tokens,
            Some(self.cached_tokens),
        )
    }
}

/// Waits for all `answers`, in their order.
///
/// # Errors
/// One of them failed.
pub async fn collect(mut answers: Answers) -> Result<Vec<Generation>, ApiError> {
    let mut finished: Vec<Option<Generation>> = (0..answers.n()).map(|_| None).collect();
    while finished.iter().any(Option::is_none) {
        match answers.next().await {
            Some((choice, Event::Finished { generation, .. })) => {
                if let Some(place) = finished.get_mut(choice) {
                    *place = Some(generation);
                }
            }
            Some((_, Event::Failed { error, .. })) => return Err(error.into()),
            Some((_, Event::Prompt { .. } | Event::Token { .. })) => {}
            None => return Err(cut_off()),
        }
    }
    Ok(finished.into_iter().flatten().collect())
}

/// The events of all answers, as they are made.
pub struct AnswerStream<F> {
    answers: Answers,
    form: F,
    /// The tokens of each answer's text, where log-probabilities were asked for.
    shown: Vec<ShownTokens>,
    tally: Tally,
    /// The request's name in the log.
    span: Span,
    /// Answers that are not finished.
    n_open: usize,
    /// Events that are to be told next.
    next: VecDeque<StreamEvent>,
}

impl<F: Form> AnswerStream<F> {
    /// The stream of `answers`; `shown` finds the tokens of a text, where log-probabilities were asked for.
    pub fn new(
        answers: Answers,
        mut form: F,
        shown: Option<&dyn Fn() -> ShownTokens>,
        tally: Tally,
    ) -> AnswerStream<F> {
        let n = answers.n();
        let shown = shown.map_or_else(Vec::new, |shown| (0..n).map(|_| shown()).collect());
        AnswerStream {
            next: form.begin().into(),
            answers,
            form,
            shown,
            tally,
            span: Span::current(),
            n_open: n,
        }
    }

    fn take(&mut self, choice: usize, event: Event) {
        let shown = self.shown.get_mut(choice);
        match event {
            Event::Prompt { .. } => {}
            Event::Token {
                token,
                text,
                logprobs,
                ..
            } => {
                let mut tokens = Vec::new();
                if let (Some(shown), Some(logprobs)) = (shown, logprobs) {
                    shown.push(token, logprobs);
                    tokens = shown.take(&text);
                }
                self.next.extend(self.form.text(choice, &text, &tokens));
            }
            Event::Finished {
                text, generation, ..
            } => {
                let tokens = shown.map_or_else(Vec::new, |shown| {
                    let mut tokens = shown.take(&text);
                    tokens.extend(shown.finish(generation.finish));
                    tokens
                });
                self.tally.add(choice, &generation);
                self.next.extend(self.form.text(choice, &text, &tokens));
                self.next.extend(self.form.finish(choice, &generation));
                self.n_open -= 1;
                if self.n_open == 0 {
                    self.span.in_scope(|| self.tally.log());
                    self.next.extend(self.form.end(self.tally.usage()));
                }
            }
            Event::Failed { error, .. } => self.fail(&error.into()),
        }
    }

    fn fail(&mut self, error: &ApiError) {
        self.span.in_scope(|| warn!(%error, "failed"));
        self.next.extend(self.form.fail(error));
        self.n_open = 0;
    }
}

impl<F: Form + Unpin> Stream for AnswerStream<F> {
    type Item = StreamEvent;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<StreamEvent>> {
        let stream = self.get_mut();
        loop {
            if let Some(event) = stream.next.pop_front() {
                return Poll::Ready(Some(event));
            }
            if stream.n_open == 0 {
                return Poll::Ready(None);
            }
            match ready!(stream.answers.poll_next(context)) {
                Some((choice, event)) => stream.take(choice, event),
                None => stream.fail(&cut_off()),
            }
        }
    }
}

fn cut_off() -> ApiError {
    ApiError::server(
        "the answer was cut off: the engine has ended, or the client is too far behind",
    )
}
