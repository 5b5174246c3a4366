//! `/v1/responses`: OpenAI's Responses API, without a memory.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::Value;
use tracing::info;

use crate::chat::Piece;
use crate::openai::responses::{Echo, ResponseStream, ResponsesRequest, response_body};
use crate::openai::{ApiError, Ending, Head, Parts, StreamEvent};
use crate::server::body::{blocking, read_json};
use crate::server::one_answer::{Telling, prepare};
use crate::server::state::ServerState;

/// A response.
pub async fn create(
    State(state): State<Arc<ServerState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let served = state.served()?.clone();
    let body = read_json(request, &state.config.limits).await?;
    if state.config.logs_prompts {
        info!(%body, "asked");
    }
    let prepared = blocking({
        let (state, served) = (state.clone(), served.clone());
        move || {
            let mut request = ResponsesRequest::from_body(body)?;
            let echo = request.echo.clone();
            let telling = |head| Told::new(head, echo);
            match prepare(&mut request.chat, &state.config, &served, telling) {
                Ok(prepared) => Ok((request, prepared)),
                Err(error) => Err(request.error(error)),
            }
        }
    });
    let (request, prepared) = prepared.await?;
    let answer = prepared.answer(&served).await;
    answer.map_err(|error| request.error(error))
}

/// A response on its way.
struct Told {
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
