//! Requests for one answer in the forms of APIs that are not OpenAI's first one, and what is common to them.

use std::sync::Arc;

use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::answer::{AnswerStream, Form, Tally, collect};
use super::body::{blocking, read_asked};
use super::config::Config;
use super::sse;
use super::state::{Served, ServerState, now};
use crate::chat::{AnswerForm, AnswerReader, Piece};
use crate::engine::{self, Generation};
use crate::openai::{
    ApiError, ChatRequest, Ending, Head, Parts, ShownToken, Spent, StreamEvent, Usage,
    stop_that_ended,
};
use crate::sampling::random_seed;
use crate::tokenizer::StreamDecoder;

/// A request in the form of an API.
pub trait Asking: Sized + Send + 'static {
    /// How the API tells of the answer.
    type Telling: Telling;

    /// Reads a body.
    ///
    /// # Errors
    /// Whatever in it is wrong or not supported.
    fn read(body: Value) -> Result<Self, ApiError>;

    /// The conversation that it is.
    fn chat(&mut self) -> &mut ChatRequest;

    /// What tells of the answer with `head`.
    fn telling(&self, head: Head) -> Self::Telling;

    /// An error of the conversation in this API's own words.
    fn own_error(&self, error: ApiError) -> ApiError;
}

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

/// Answers a request, whole or as a stream.
///
/// # Errors
/// It is wrong, can never run, there is no room for it now, or the engine failed before anything was told.
pub async fn respond<A: Asking>(
    state: Arc<ServerState>,
    request: Request,
) -> Result<Response, ApiError> {
    let served = state.served()?.clone();
    let body = read_asked(request, &state.config).await?;
    let ready = blocking({
        let served = served.clone();
        move || {
            let mut asked = A::read(body)?;
            match prepare(&mut asked, &state.config, &served) {
                Ok(ready) => Ok((asked, ready)),
                Err(error) => Err(asked.own_error(error)),
            }
        }
    });
    let (asked, ready) = ready.await?;
    let response = ready.answer(&served).await;
    response.map_err(|error| asked.own_error(error))
}

/// A request that has only to be run.
struct Ready<T> {
    told: Told<T>,
    stream: bool,
    request: engine::Request,
}

/// Lays out the conversation and compiles what its answer must look like.
fn prepare<A: Asking>(
    asked: &mut A,
    config: &Config,
    served: &Served,
) -> Result<Ready<A::Telling>, ApiError> {
    let chat = asked.chat();
    config.limits.limit_answer(&mut chat.settings)?;
    let prepared = chat.prepare(served.template()?, &served.grammars)?;
    config
        .limits
        .check_prompt(prepared.prompt.len(), &served.engine)?;
    let settings = &chat.settings;
    let seed = settings.seed.unwrap_or_else(random_seed);
    let head = Head {
        id: format!("{:014x}{:014x}", random_seed(), random_seed()),
        model: config.model_name.clone(),
        created: now(),
        seed,
    };
    let request = prepared.request(settings, seed);
    let (stops, stream) = (settings.limits.stop.clone(), settings.stream);
    Ok(Ready {
        told: Told {
            reader: prepared.form.reader(&head.id),
            answer_id: head.id.clone(),
            telling: asked.telling(head),
            decoder: served.tokenizer.stream().showing(prepared.shown),
            prompt_tokens: prepared.prompt.len(),
            stops,
            form: prepared.form,
        },
        stream,
        request,
    })
}

impl<T: Telling> Ready<T> {
    async fn answer(self, served: &Served) -> Result<Response, ApiError> {
        let answers = served.engine.start(vec![self.request]).await?;
        let mut tally = Tally::new(self.told.prompt_tokens, 1);
        if self.stream {
            return Ok(sse::respond(AnswerStream::new(
                answers, self.told, None, tally,
            )));
        }
        let generations = collect(answers).await?;
        let generation = generations.first();
        let generation = generation.ok_or_else(|| ApiError::server("there is no answer"))?;
        tally.add(0, generation);
        tally.log();
        Ok(Json(self.told.whole(generation)).into_response())
    }
}

/// One answer on its way to a client.
struct Told<T> {
    telling: T,
    reader: AnswerReader,
    form: AnswerForm,
    answer_id: String,
    /// At the beginning of the answer's text.
    decoder: StreamDecoder,
    prompt_tokens: usize,
    stops: Vec<String>,
}

impl<T: Telling> Told<T> {
    fn whole(&self, generation: &Generation) -> Value {
        let pieces = self.form.read(&self.answer_id, &generation.text);
        self.telling
            .whole(&Parts::of(pieces), &self.ending(generation))
    }

    fn ending(&self, generation: &Generation) -> Ending {
        let stop = stop_that_ended(generation, self.decoder.clone(), &self.stops);
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
        let mut decoder = self.decoder.clone();
        let mut reader = self.form.reader(&self.answer_id);
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
