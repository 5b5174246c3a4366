//! Responses.

use serde_json::{Value, json};

use super::Echo;
use crate::engine::Finish;
use crate::openai::{ApiError, Ending, ErrorKind, Head, Part, Parts, Spent};

/// How far a response or one of its items is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    InProgress,
    Completed,
    Incomplete,
    Failed,
}

impl Status {
    pub(super) fn word(self) -> &'static str {
        match self {
            Status::InProgress => "in_progress",
            Status::Completed => "completed",
            Status::Incomplete => "incomplete",
            Status::Failed => "failed",
        }
    }

    /// Of an answer that ended so.
    pub(super) fn of(finish: Finish) -> Status {
        match finish {
            Finish::EndOfText | Finish::StopString => Status::Completed,
            Finish::Length | Finish::Context | Finish::Interrupted => Status::Incomplete,
        }
    }
}

/// The response with all of `parts`.
pub fn response_body(head: &Head, echo: &Echo, parts: &Parts, ending: &Ending) -> Value {
    let status = Status::of(ending.finish);
    let mut response = open_response(head, echo, status);
    response["output"] = items(&head.id, parts, status).into();
    response["usage"] = usage(&ending.spent);
    if status == Status::Incomplete {
        response["incomplete_details"] = json!({"reason": "max_output_tokens"});
    }
    response
}

/// The response of an answer that failed after `parts`.
pub(super) fn failed_response(head: &Head, echo: &Echo, parts: &Parts, error: &ApiError) -> Value {
    let code = match error.kind {
        ErrorKind::InvalidRequestError => "invalid_prompt",
        _ => "server_error",
    };
    let mut response = open_response(head, echo, Status::Failed);
    response["output"] = items(&head.id, parts, Status::Incomplete).into();
    response["error"] = json!({"code": code, "message": error.message});
    response
}

/// A response of which nothing is written yet. What its request did not say has the API's default.
pub(super) fn open_response(head: &Head, echo: &Echo, status: Status) -> Value {
    let mut response = json!({
        "id": format!("resp_{}", head.id),
        "object": "response",
        "created_at": head.created,
        "status": status.word(),
        "background": false,
        "error": null,
        "incomplete_details": null,
        "max_tool_calls": null,
        "model": head.model,
        "output": [],
        "previous_response_id": null,
        "service_tier": "default",
        "store": false,
        "top_logprobs": 0,
        "truncation": "disabled",
        "usage": null,
        "user": null,
        "seed": head.seed,
    });
    if let Some(response) = response.as_object_mut() {
        response.extend(echo.0.clone());
    }
    response
}

fn usage(spent: &Spent) -> Value {
    json!({
        "input_tokens": spent.prompt,
        "input_tokens_details": {"cached_tokens": spent.cached, "cache_write_tokens": 0},
        "output_tokens": spent.answer,
        "output_tokens_details": {"reasoning_tokens": spent.reasoning},
        "total_tokens": spent.prompt + spent.answer,
    })
}

/// The items of an answer, of which the last one is as far as `status` says.
fn items(id: &str, parts: &Parts, status: Status) -> Vec<Value> {
    let parts = parts.as_slice();
    let items = parts.iter().enumerate().map(|(index, part)| {
        let is_last = index + 1 == parts.len();
        let status = if is_last { status } else { Status::Completed };
        item(id, index, part, status)
    });
    items.collect()
}

/// The name of item `index` of the response `id`: the same in all events.
pub(super) fn item_id(id: &str, index: usize, part: &Part) -> String {
    let kind = match part {
        Part::Reasoning(_) => "rs",
        Part::Text(_) => "msg",
        Part::Call { .. } => "fc",
    };
    format!("{kind}_{id}_{index}")
}

/// The item of a whole part.
pub(super) fn item(id: &str, index: usize, part: &Part, status: Status) -> Value {
    let mut item = open_item(id, index, part);
    item["status"] = status.word().into();
    match part {
        Part::Reasoning(_) | Part::Text(_) => item["content"] = json!([content_part(part)]),
        Part::Call { arguments, .. } => item["arguments"] = arguments.clone().into(),
    }
    item
}

/// An item before anything of it is written.
pub(super) fn open_item(id: &str, index: usize, part: &Part) -> Value {
    let id = item_id(id, index, part);
    match part {
        Part::Reasoning(_) => json!({
            "id": id, "type": "reasoning", "status": "in_progress", "summary": [], "content": [],
        }),
        Part::Text(_) => json!({
            "id": id, "type": "message", "status": "in_progress", "role": "assistant", "content": [],
        }),
        Part::Call {
            id: call_id, name, ..
        } => json!({
            "id": id, "type": "function_call", "status": "in_progress", "call_id": call_id,
            "name": name, "arguments": "",
        }),
    }
}

/// The one part that an item's content has.
pub(super) fn content_part(part: &Part) -> Value {
    match part {
        Part::Reasoning(text) => json!({"type": "reasoning_text", "text": text}),
        Part::Text(text) => {
            json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
        }
        Part::Call { .. } => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Piece;
    use crate::openai::responses::ResponsesRequest;
    use crate::openai::samples::{ending, head};

    fn response(finish: Finish) -> Value {
        let pieces = [
            Piece::Reasoning("hm".to_owned()),
            Piece::Content("I".to_owned()),
            Piece::ToolCall {
                index: 0,
                id: "call_1".to_owned(),
                name: "get".to_owned(),
            },
            Piece::Arguments {
                index: 0,
                text: "{}".to_owned(),
            },
        ];
        let request = ResponsesRequest::from_body(json!({"input": "hi"})).expect("a request");
        let parts = Parts::of(pieces);
        response_body(&head(), &request.echo, &parts, &ending(finish))
    }

    #[test]
    fn parts_are_items() {
        let response = response(Finish::EndOfText);
        assert_eq!(
            (&response["id"], &response["status"]),
            (&json!("resp_1"), &json!("completed"))
        );
        assert_eq!(
            response["output"],
            json!([
                {
                    "id": "rs_1_0", "type": "reasoning", "status": "completed", "summary": [],
                    "content": [{"type": "reasoning_text", "text": "hm"}],
                },
                {
                    "id": "msg_1_1", "type": "message", "status": "completed", "role": "assistant",
                    "content": [{"type": "output_text", "text": "I", "annotations": [], "logprobs": []}],
                },
                {
                    "id": "fc_1_2", "type": "function_call", "status": "completed", "call_id": "call_1",
                    "name": "get", "arguments": "{}",
                },
            ])
        );
        assert_eq!(response["usage"]["total_tokens"], 13);
        assert_eq!(
            response["usage"]["input_tokens_details"]["cached_tokens"],
            4
        );
        assert_eq!(
            response["usage"]["output_tokens_details"]["reasoning_tokens"],
            1
        );
        assert_eq!(response["temperature"], 1.0);
        assert_eq!(response["tool_choice"], "auto");
        assert_eq!(response["store"], false);
    }

    #[test]
    fn an_answer_that_was_cut_off_is_incomplete() {
        for finish in [Finish::Length, Finish::Context] {
            let response = response(finish);
            assert_eq!(response["status"], "incomplete");
            assert_eq!(
                response["incomplete_details"]["reason"],
                "max_output_tokens"
            );
            assert_eq!(response["output"][1]["status"], "completed");
            assert_eq!(response["output"][2]["status"], "incomplete");
        }
    }
}
