//! Requests for one answer in the forms of APIs that are not OpenAI's first one, and what is common to them.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::answer::{AnswerStream, Form, Tally, collect};
use super::sse;
use super::state::{Served, now};
use crate::chat::{AnswerForm, AnswerReader, Piece};
use crate::engine::{self, Generation};
use crate::openai::{
    ApiError, ChatRequest, Ending, Head, Parts, ShownToken, Spent, StreamEvent, Usage,
    stop_that_ended,
};
use crate::sampling::random_seed;
use crate::tokenizer::Tokenizer;

/// How an API tells of one answer.
pub trait Telling: Send + Unpin + 'static {
    /// What comes before the first token, of an answer to so many tokens.
    fn begin(&mut self, prompt_tokens: usize) -> Vec<StreamEvent>;

    /// The next part of the answer.
    fn push(&mut self, piece: Piece) -> Vec<StreamEvent>;

    /// The end of the answer.
    fn finish(&mut self, ending: &Ending) -> Vec<StreamEvent>;

    /// There will be no more of it.
    fn fail(&mut self, error: &ApiError) -> Vec<StreamEvent>;

    /// The answer in one piece.
    fn whole(&self, parts: &Parts, ending: &Ending) -> Value;
}

/// A request that has only to be run.
pub struct Prepared<T> {
    telling: T,
    prompt_tokens: usize,
    stops: Vec<String>,
    stream: bool,
    answer_id: String,
    form: AnswerForm,
    shown: Vec<u32>,
    requests: Vec<engine::Request>,
}

/// Lays out the conversation of `chat`, whose answer is told by what `telling` makes of its head.
///
/// # Errors
/// There is no template, or it refuses the conversation.
pub fn prepare<T: Telling>(
    chat: &ChatRequest,
    model: &str,
    served: &Served,
    telling: impl FnOnce(Head) -> T,
) -> Result<Prepared<T>, ApiError> {
    let settings = &chat.settings;
    let prepared = chat.prepare(served.template()?, &served.grammars)?;
    let seed = settings.seed.unwrap_or_else(random_seed);
    let head = Head {
        id: format!("{:014x}{:014x}", random_seed(), random_seed()),
        model: model.to_owned(),
        created: now(),
        seed,
    };
    Ok(Prepared {
        answer_id: head.id.clone(),
        telling: telling(head),
        prompt_tokens: prepared.prompt.len(),
        stops: settings.limits.stop.clone(),
        stream: settings.stream,
        requests: prepared.requests(settings, seed),
        form: prepared.form,
        shown: prepared.shown,
    })
}

/// The tokens of the conversation, up to where the answer begins.
///
/// # Errors
/// As [`prepare`].
pub fn tokens(chat: &ChatRequest, served: &Served) -> Result<Vec<u32>, ApiError> {
    Ok(chat.prepare(served.template()?, &served.grammars)?.prompt)
}

/// Reads a request beside the threads that serve connections: templates and tokenizers take a while for long texts.
///
/// # Errors
/// Those of `read`.
pub async fn off_thread<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|_| ApiError::server("reading the request failed"))?
}

impl<T: Telling> Prepared<T> {
    /// Runs it: the response, whole or as a stream.
    ///
    /// # Errors
    /// It can never run, there is no room for it now, or the engine failed before anything was told.
    pub async fn answer(self, served: &Served) -> Result<Response, ApiError> {
        let answers = served.engine.start(self.requests).await?;
        let mut told = Told {
            telling: self.telling,
            reader: self.form.reader(&self.answer_id),
            form: self.form,
            shown: self.shown,
            tokenizer: served.tokenizer.clone(),
            prompt_tokens: self.prompt_tokens,
            stops: self.stops,
        };
        if self.stream {
            let tally = Tally::new(self.prompt_tokens, 1);
            return Ok(sse::respond(AnswerStream::new(answers, told, None, tally)));
        }
        let generations = collect(answers).await?;
        let generation = generations.first();
        let generation = generation.ok_or_else(|| ApiError::server("there is no answer"))?;
        Ok(Json(told.whole(generation)).into_response())
    }
}

/// One answer on its way to a client.
struct Told<T> {
    telling: T,
    form: AnswerForm,
    /// Control tokens that are part of its text.
    shown: Vec<u32>,
    reader: AnswerReader,
    tokenizer: Arc<Tokenizer>,
    prompt_tokens: usize,
    stops: Vec<String>,
}

impl<T: Telling> Told<T> {
    fn whole(&mut self, generation: &Generation) -> Value {
        let mut pieces = self.reader.push(&generation.text);
        pieces.extend(self.reader.finish());
        let parts = Parts::of(pieces);
        self.telling.whole(&parts, &self.ending(generation))
    }

    fn ending(&self, generation: &Generation) -> Ending {
        let stop = stop_that_ended(generation, &self.tokenizer, &self.stops);
        Ending {
            finish: generation.finish,
            stop: stop.map(str::to_owned),
            spent: Spent {
                prompt: self.prompt_tokens,
                cached: generation.stats.cached_tokens,
                answer: generation.tokens.len(),
                reasoning: self.n_reasoning(generation),
            },
        }
    }

    /// How many tokens of the answer went on with its reasoning.
    fn n_reasoning(&self, generation: &Generation) -> usize {
        let mut decoder = self.tokenizer.stream().showing(self.shown.clone());
        let mut reader = self.form.reader("");
        let is_reasoning = |piece: &Piece| matches!(piece, Piece::Reasoning(_));
        let tokens = generation.tokens.iter();
        tokens
            .filter(|&&token| reader.push(&decoder.push(token)).iter().any(is_reasoning))
            .count()
    }

    fn push(&mut self, pieces: Vec<Piece>) -> Vec<StreamEvent> {
        let events = pieces.into_iter();
        events.flat_map(|piece| self.telling.push(piece)).collect()
    }
}

impl<T: Telling> Form for Told<T> {
    fn begin(&mut self) -> Vec<StreamEvent> {
        self.telling.begin(self.prompt_tokens)
    }

    fn text(&mut self, _choice: usize, text: &str, _tokens: &[ShownToken]) -> Vec<StreamEvent> {
        let pieces = self.reader.push(text);
        self.push(pieces)
    }

    fn finish(&mut self, _choice: usize, generation: &Generation) -> Vec<StreamEvent> {
        let pieces = self.reader.finish();
        let mut events = self.push(pieces);
        let ending = self.ending(generation);
        events.extend(self.telling.finish(&ending));
        events
    }

    fn end(&mut self, _usage: Usage) -> Vec<StreamEvent> {
        Vec::new()
    }

    fn fail(&mut self, error: &ApiError) -> Vec<StreamEvent> {
        self.telling.fail(error)
    }
}
