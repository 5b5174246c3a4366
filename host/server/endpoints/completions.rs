//! `/v1/chat/completions` and `/v1/completions`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request as HttpRequest, State};
use axum::response::{IntoResponse, Response as HttpResponse};
use serde_json::Value;

use crate::chat::{AnswerForm, AnswerReader, Piece};
use crate::engine::{self, Generation};
use crate::openai::{
    Answer, ApiError, ChatLogprobs, ChatStream, Choice, CompletionLogprobs, CompletionStream,
    Endpoint, Request, Response, ShownToken, ShownTokens, StreamEvent, StreamHead, Usage,
};
use crate::sampling::random_seed;
use crate::server::Limits;
use crate::server::answer::{AnswerStream, Form, Tally, collect};
use crate::server::body::{blocking, read_asked};
use crate::server::sse;
use crate::server::state::{Served, ServerState, now};
use crate::tokenizer::Tokenizer;

/// The next message of a conversation.
pub async fn chat(
    State(state): State<Arc<ServerState>>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    answer(&state, Endpoint::ChatCompletions, request).await
}

/// The continuation of texts.
pub async fn text(
    State(state): State<Arc<ServerState>>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    answer(&state, Endpoint::Completions, request).await
}

async fn answer(
    state: &ServerState,
    endpoint: Endpoint,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let served = state.served()?.clone();
    let body = read_asked(request, &state.config).await?;
    let limits = state.config.limits;
    let prepare = {
        let served = served.clone();
        move || Asked::read(endpoint, body, &served, &limits)
    };
    let (asked, requests) = blocking(prepare).await?;
    let answers = served.engine.start(requests).await?;
    let tally = Tally::new(asked.prompt_tokens, asked.n);
    let name = &state.config.model_name;
    if !asked.stream {
        let generations = collect(answers).await?;
        return Ok(Json(asked.response(&generations, tally, name, &served)).into_response());
    }
    let tokens = || ShownTokens::new(&served.tokenizer, &asked.shown);
    let shown: Option<&dyn Fn() -> ShownTokens> = asked.has_logprobs.then_some(&tokens);
    Ok(match endpoint {
        Endpoint::ChatCompletions => {
            let form = asked.chat_form(name, &served, answers.n());
            sse::respond(AnswerStream::new(answers, form, shown, tally))
        }
        Endpoint::Completions => {
            let form = asked.text_form(name, &served);
            sse::respond(AnswerStream::new(answers, form, shown, tally))
        }
    })
}

/// What is to be told of a request beside its answers.
struct Asked {
    endpoint: Endpoint,
    id: String,
    seed: u64,
    n: usize,
    prompt_tokens: usize,
    has_logprobs: bool,
    stream: bool,
    include_usage: bool,
    /// How answers are read.
    form: AnswerForm,
    /// Control tokens that are part of their texts.
    shown: Vec<u32>,
}

impl Asked {
    /// Reads the body of a request, and what is asked of the engine.
    fn read(
        endpoint: Endpoint,
        body: Value,
        served: &Served,
        limits: &Limits,
    ) -> Result<(Asked, Vec<engine::Request>), ApiError> {
        let mut request = Request::from_body(endpoint, body)?;
        limits.limit_answer(request.settings_mut())?;
        let template = match endpoint {
            Endpoint::ChatCompletions => Some(served.template()?),
            Endpoint::Completions => None,
        };
        let prepared = request.prepare(template, &served.grammars)?;
        for prepared in &prepared {
            limits.check_prompt(prepared.prompt.len(), &served.engine)?;
        }
        let settings = request.settings();
        let seed = settings.seed.unwrap_or_else(random_seed);
        let asked = Asked {
            endpoint,
            id: format!("{:014x}{:014x}", random_seed(), random_seed()),
            seed,
            n: settings.n,
            prompt_tokens: prepared.iter().map(|text| text.prompt.len()).sum(),
            has_logprobs: settings.logprobs.is_some(),
            stream: settings.stream,
            include_usage: settings.include_usage,
            // Texts are all read alike, and there is one conversation.
            form: prepared
                .first()
                .map_or_else(AnswerForm::plain, |text| text.form.clone()),
            shown: prepared
                .first()
                .map_or_else(Vec::new, |text| text.shown.clone()),
        };
        let most = served.engine.most_open();
        if prepared.len().saturating_mul(settings.n) > most {
            let message = format!(
                "{} prompts with n = {} are more answers than the {most} that there is room for",
                prepared.len(),
                settings.n
            );
            return Err(ApiError::field("n", message));
        }
        let requests = prepared.iter();
        let requests = requests.flat_map(|text| text.requests(settings, seed));
        Ok((asked, requests.collect()))
    }

    fn response(
        &self,
        generations: &[Generation],
        mut tally: Tally,
        model: &str,
        served: &Served,
    ) -> Response {
        for (choice, generation) in generations.iter().enumerate() {
            tally.add(choice, generation);
        }
        tally.log();
        let usage = tally.usage();
        let pieces = generations.iter().enumerate();
        let pieces = pieces
            .map(|(choice, generation)| self.form.read(&self.choice_id(choice), &generation.text));
        let pieces: Vec<Vec<Piece>> = pieces.collect();
        let choices = generations.iter().zip(&pieces);
        let choices: Vec<Choice<'_>> = choices
            .map(|(generation, pieces)| Choice { generation, pieces })
            .collect();
        let answer = Answer {
            choices: &choices,
            tokenizer: &served.tokenizer,
            id: &self.id,
            model,
            created: now(),
            seed: self.seed,
            prompt_tokens: self.prompt_tokens,
            has_logprobs: self.has_logprobs,
            shown: &self.shown,
            cached_tokens: usage
                .prompt_tokens_details
                .map(|details| details.cached_tokens),
        };
        Response::new(self.endpoint, &answer)
    }

    /// A name for one of the answers.
    fn choice_id(&self, choice: usize) -> String {
        format!("{}-{choice}", self.id)
    }

    fn head(&self, prefix: &str, model: &str) -> StreamHead {
        StreamHead {
            id: format!("{prefix}{}", self.id),
            object: "",
            created: now(),
            model: model.to_owned(),
            seed: self.seed,
        }
    }

    fn chat_form(&self, model: &str, served: &Served, n: usize) -> ChatForm {
        let head = self.head("chatcmpl-", model);
        ChatForm {
            stream: ChatStream::new(head, n, self.include_usage),
            readers: (0..n)
                .map(|choice| self.form.reader(&self.choice_id(choice)))
                .collect(),
            tokenizer: served.tokenizer.clone(),
        }
    }

    fn text_form(&self, model: &str, served: &Served) -> TextForm {
        let head = self.head("cmpl-", model);
        TextForm {
            stream: CompletionStream::new(head, self.include_usage),
            tokenizer: served.tokenizer.clone(),
        }
    }
}

/// Messages in pieces.
struct ChatForm {
    stream: ChatStream,
    readers: Vec<AnswerReader>,
    tokenizer: Arc<Tokenizer>,
}

impl Form for ChatForm {
    fn begin(&mut self) -> Vec<StreamEvent> {
        self.stream.begin()
    }

    fn text(&mut self, choice: usize, text: &str, tokens: &[ShownToken]) -> Vec<StreamEvent> {
        let reader = self.readers.get_mut(choice);
        let pieces = reader.map_or_else(Vec::new, |reader| reader.push(text));
        let logprobs = ChatLogprobs::new(tokens, &self.tokenizer);
        self.stream.pieces(choice, &pieces, Some(&logprobs))
    }

    fn finish(&mut self, choice: usize, generation: &Generation) -> Vec<StreamEvent> {
        let reader = self.readers.get_mut(choice);
        let pieces = reader.map_or_else(Vec::new, AnswerReader::finish);
        let mut events = self.stream.pieces(choice, &pieces, None);
        events.push(self.stream.finish(choice, generation.finish));
        events
    }

    fn end(&mut self, usage: Usage) -> Vec<StreamEvent> {
        self.stream.end(usage)
    }

    fn fail(&mut self, error: &ApiError) -> Vec<StreamEvent> {
        vec![StreamEvent::json(&error.body())]
    }
}

/// Texts in pieces.
struct TextForm {
    stream: CompletionStream,
    tokenizer: Arc<Tokenizer>,
}

impl Form for TextForm {
    fn begin(&mut self) -> Vec<StreamEvent> {
        Vec::new()
    }

    fn text(&mut self, choice: usize, text: &str, tokens: &[ShownToken]) -> Vec<StreamEvent> {
        let logprobs = CompletionLogprobs::new(tokens, &self.tokenizer);
        self.stream.text(choice, text, Some(&logprobs))
    }

    fn finish(&mut self, choice: usize, generation: &Generation) -> Vec<StreamEvent> {
        vec![self.stream.finish(choice, generation.finish)]
    }

    fn end(&mut self, usage: Usage) -> Vec<StreamEvent> {
        self.stream.end(usage)
    }

    fn fail(&mut self, error: &ApiError) -> Vec<StreamEvent> {
        vec![StreamEvent::json(&error.body())]
    }
}
