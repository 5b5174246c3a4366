//! Responses in pieces.

use serde_json::{Value, json};

use super::error::error_body;
use super::message::{open_block, open_message, signature, stop_reason, usage};
use crate::chat::Piece;
use crate::openai::{ApiError, Change, Ending, EventData, Head, Part, Parts, Spent, StreamEvent};

/// A message on its way.
#[derive(Debug, Clone)]
pub struct MessageStream {
    head: Head,
    parts: Parts,
}

impl MessageStream {
    /// Nothing is sent yet.
    pub fn new(head: Head) -> MessageStream {
        MessageStream {
            head,
            parts: Parts::default(),
        }
    }

    /// The first event; of what it takes the prompt is known.
    pub fn start(&self, spent: &Spent) -> StreamEvent {
        let message = open_message(&self.head, spent);
        event("message_start", json!({ "message": message }))
    }

    /// The events of the next piece.
    pub fn push(&mut self, piece: Piece) -> Vec<StreamEvent> {
        let changes = self.parts.push(piece);
        let events = changes.into_iter().flat_map(|change| self.events(change));
        events.collect()
    }

    /// The last events.
    pub fn finish(&mut self, ending: &Ending) -> Vec<StreamEvent> {
        let ended = self.parts.finish();
        let mut events: Vec<_> = ended.into_iter().flat_map(|end| self.events(end)).collect();
        let stop_reason = stop_reason(ending, &self.parts);
        let delta = json!({"stop_reason": stop_reason, "stop_sequence": ending.stop});
        let usage = usage(&ending.spent);
        events.push(event(
            "message_delta",
            json!({"delta": delta, "usage": usage}),
        ));
        events.push(event("message_stop", json!({})));
        events
    }

    /// The event that ends the stream of an answer that failed.
    pub fn fail(error: &ApiError) -> StreamEvent {
        event("error", error_body(error))
    }

    fn events(&self, change: Change) -> Vec<StreamEvent> {
        match change {
            Change::Begun(index) => {
                let block = self.parts.as_slice().get(index).map(open_block);
                let block = json!({"index": index, "content_block": block});
                vec![event("content_block_start", block)]
            }
            Change::Grown(index, more) => {
                let delta = match self.parts.as_slice().get(index) {
                    Some(Part::Reasoning(_)) => json!({"type": "thinking_delta", "thinking": more}),
                    Some(Part::Call { .. }) => {
                        json!({"type": "input_json_delta", "partial_json": more})
                    }
                    _ => json!({"type": "text_delta", "text": more}),
                };
                vec![delta_event(index, delta)]
            }
            Change::Ended(index) => {
                let stop = event("content_block_stop", json!({ "index": index }));
                match self.parts.as_slice().get(index) {
                    Some(Part::Reasoning(text)) => {
                        let delta =
                            json!({"type": "signature_delta", "signature": signature(text)});
                        vec![delta_event(index, delta), stop]
                    }
                    _ => vec![stop],
                }
            }
        }
    }
}

/// What is sent while there is nothing to tell.
pub fn ping() -> StreamEvent {
    event("ping", json!({}))
}

fn delta_event(index: usize, delta: Value) -> StreamEvent {
    event(
        "content_block_delta",
        json!({"index": index, "delta": delta}),
    )
}

/// An event, whose data begins with its name.
fn event(name: &'static str, fields: Value) -> StreamEvent {
    let mut data = json!({ "type": name });
    if let (Some(data), Value::Object(fields)) = (data.as_object_mut(), fields) {
        data.extend(fields);
    }
    StreamEvent {
        name: Some(name),
        data: EventData::Json(data),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::anthropic::message_body;
    use crate::engine::Finish;
    use crate::openai::samples::{any_pieces, ending, head};

    fn data(event: StreamEvent) -> Value {
        let EventData::Json(data) = event.data else {
            panic!("this API's streams have no end mark");
        };
        assert_eq!(event.name.map(Value::from).as_ref(), Some(&data["type"]));
        data
    }

    /// The message that a client puts together.
    fn joined(events: Vec<StreamEvent>) -> Value {
        let mut events = events.into_iter().map(data);
        let first = events.next().expect("a first event");
        assert_eq!(first["type"], "message_start");
        let mut message = first["message"].clone();
        let mut open: Option<Value> = None;
        let mut json = String::new();
        let mut blocks = Vec::new();
        for event in events.by_ref() {
            match event["type"].as_str().expect("a type") {
                "content_block_start" => {
                    assert!(open.is_none());
                    assert_eq!(event["index"], blocks.len());
                    open = Some(event["content_block"].clone());
                    json.clear();
                }
                "content_block_delta" => {
                    assert_eq!(event["index"], blocks.len());
                    let block = open.as_mut().expect("an open block");
                    let delta = &event["delta"];
                    let (kind, name) = match delta["type"].as_str().expect("a type") {
                        "text_delta" => ("text", "text"),
                        "thinking_delta" => ("thinking", "thinking"),
                        "signature_delta" => ("thinking", "signature"),
                        _ => {
                            assert_eq!(block["type"], "tool_use");
                            json += delta["partial_json"].as_str().expect("a text");
                            continue;
                        }
                    };
                    assert_eq!(block["type"], kind);
                    let more = delta[name].as_str().expect("a text");
                    let whole = format!("{}{more}", block[name].as_str().expect("a text"));
                    block[name] = whole.into();
                }
                "content_block_stop" => {
                    assert_eq!(event["index"], blocks.len());
                    let mut block = open.take().expect("an open block");
                    if block["type"] == "tool_use" {
                        let input: Option<Value> = serde_json::from_str(&json).ok();
                        block["input"] = input.filter(Value::is_object).unwrap_or(json!({}));
                    }
                    blocks.push(block);
                }
                "message_delta" => {
                    assert!(open.is_none());
                    message["stop_reason"] = event["delta"]["stop_reason"].clone();
                    message["stop_sequence"] = event["delta"]["stop_sequence"].clone();
                    message["usage"] = event["usage"].clone();
                    break;
                }
                other => panic!("{other}"),
            }
        }
        let last = events.next().expect("a last event");
        assert_eq!(last, json!({"type": "message_stop"}));
        assert_eq!(events.next(), None);
        message["content"] = blocks.into();
        message
    }

    proptest! {
        /// Whatever the pieces are, a client has in the end what the response in one piece says.
        #[test]
        fn a_stream_is_well_formed_and_gives_the_same_message(
            pieces in any_pieces(),
            is_cut in any::<bool>(),
        ) {
            let finish = if is_cut { Finish::Length } else { Finish::EndOfText };
            let ending = ending(finish);
            let mut stream = MessageStream::new(head());
            let mut events = vec![stream.start(&Spent::default())];
            for piece in pieces.clone() {
                events.extend(stream.push(piece));
            }
            events.extend(stream.finish(&ending));
            let expected = message_body(&head(), &Parts::of(pieces), &ending);
            prop_assert_eq!(joined(events), expected);
        }
    }

    #[test]
    fn failures_and_silence_have_events() {
        let error = data(MessageStream::fail(&ApiError::server("gone")));
        let expected = json!({"type": "error", "error": {"type": "api_error", "message": "gone"}});
        assert_eq!(error, expected);
        assert_eq!(data(ping()), json!({"type": "ping"}));
    }
}
