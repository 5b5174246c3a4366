//! `/v1/messages` and `/v1/messages/count_tokens`: Anthropic's API.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::anthropic::{
    MessageStream, MessagesRequest, count_body, error_body, message_body, ping,
};
use crate::chat::Piece;
use crate::openai::{ApiError, ChatRequest, Ending, Head, Parts, Spent, StreamEvent};
use crate::server::body::{blocking, read_json};
use crate::server::one_answer::{Asking, Telling, respond};
use crate::server::state::{Served, ServerState};

/// The next message.
pub async fn create(
    State(state): State<Arc<ServerState>>,
    request: Request,
) -> Result<Response, ApiError> {
    respond::<MessagesRequest>(state, request).await
}

impl Asking for MessagesRequest {
    type Telling = Message;

    fn read(body: Value) -> Result<MessagesRequest, ApiError> {
        MessagesRequest::from_body(body)
    }

    fn chat(&mut self) -> &mut ChatRequest {
        &mut self.chat
    }

    fn telling(&self, head: Head) -> Message {
        Message::new(head)
    }

    fn own_error(&self, error: ApiError) -> ApiError {
        self.error(error)
    }
}

/// How many tokens a request has.
pub async fn count(
    State(state): State<Arc<ServerState>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let served = state.served()?.clone();
    let body = read_json(request, &state.config.limits).await?;
    let count = blocking(move || {
        let request = MessagesRequest::to_count(body)?;
        let count = n_tokens(&request.chat, &served);
        count.map_err(|error| request.error(error))
    });
    Ok(Json(count_body(count.await?)))
}

fn n_tokens(chat: &ChatRequest, served: &Served) -> Result<usize, ApiError> {
    let prompt = chat.layout(served.template()?, true)?;
    let tokens = served.tokenizer.encode_prompt(&prompt);
    let tokens = tokens.map_err(|error| ApiError::field("messages", error.to_string()))?;
    Ok(tokens.len())
}

/// Gives errors on this API's paths its own form, also those that come up before a request is read.
pub async fn own_errors(request: Request, next: Next) -> Response {
    let is_own = request.uri().path().starts_with("/v1/messages");
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<ApiError>() {
        Some(error) if is_own => {
            let (mut parts, _) = response.into_parts();
            // It is of the body that is replaced.
            parts.headers.remove(header::CONTENT_LENGTH);
            let body = Json(error_body(&error)).into_response().into_body();
            Response::from_parts(parts, body)
        }
        _ => response,
    }
}

/// A message on its way.
pub struct Message {
    head: Head,
    stream: MessageStream,
}

impl Message {
    fn new(head: Head) -> Message {
        let stream = MessageStream::new(head.clone());
        Message { head, stream }
    }
}

impl Telling for Message {
    fn begin(&mut self, prompt_tokens: usize) -> Vec<StreamEvent> {
        // What was in the cache is known at the end.
        let spent = Spent {
            prompt: prompt_tokens,
            ..Spent::default()
        };
        vec![self.stream.start(&spent), ping()]
    }

    fn push(&mut self, piece: Piece) -> Vec<StreamEvent> {
        self.stream.push(piece)
    }

    fn finish(&mut self, ending: &Ending) -> Vec<StreamEvent> {
        self.stream.finish(ending)
    }

    fn fail(&mut self, error: &ApiError) -> Vec<StreamEvent> {
        vec![MessageStream::fail(error)]
    }

    fn whole(&self, parts: &Parts, ending: &Ending) -> Value {
        message_body(&self.head, parts, ending)
    }
}
