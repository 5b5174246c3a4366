//! `/v1/responses`: OpenAI's Responses API, without a memory.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::Value;

use crate::chat::Piece;
use crate::openai::responses::{Echo, ResponseStream, ResponsesRequest, response_body};
use crate::openai::{ApiError, ChatRequest, Ending, Head, Parts, StreamEvent};
use crate::server::one_answer::{Asking, Telling, respond};
use crate::server::state::ServerState;

/// A response.
pub async fn create(
    State(state): State<Arc<ServerState>>,
    request: Request,
) -> Result<Response, ApiError> {
    respond::<ResponsesRequest>(state, request).await
}

impl Asking for ResponsesRequest {
    type Telling = Told;

    fn read(body: Value) -> Result<ResponsesRequest, ApiError> {
        ResponsesRequest::from_body(body)
    }

    fn chat(&mut self) -> &mut ChatRequest {
        &mut self.chat
    }

    fn telling(&self, head: Head) -> Told {
        Told::new(head, self.echo.clone())
    }

    fn own_error(&self, error: ApiError) -> ApiError {
        self.error(error)
    }
}

/// A response on its way.
pub struct Told {
    head: Head,
    echo: Echo,
    stream: ResponseStream,
}

impl Told {
    fn new(head: Head, echo: Echo) -> Told {
        Told {
            stream: ResponseStream::new(head.clone(), echo.clone()),
            head,
            echo,
        }
    }
}

impl Telling for Told {
    fn begin(&mut self, _prompt_tokens: usize) -> Vec<StreamEvent> {
        self.stream.start()
    }

    fn push(&mut self, piece: Piece) -> Vec<StreamEvent> {
        self.stream.push(piece)
    }

    fn finish(&mut self, ending: &Ending) -> Vec<StreamEvent> {
        self.stream.finish(ending)
    }

    fn fail(&mut self, error: &ApiError) -> Vec<StreamEvent> {
        self.stream.fail(error)
    }

    fn whole(&self, parts: &Parts, ending: &Ending) -> Value {
        response_body(&self.head, &self.echo, parts, ending)
    }
}
