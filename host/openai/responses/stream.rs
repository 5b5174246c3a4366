//! Responses in pieces.

use serde_json::{Map, Value, json};

use super::Echo;
use super::response::{
    Status, content_part, failed_response, item, item_id, open_item, open_response, response_body,
};
use crate::chat::Piece;
use crate::openai::{ApiError, Change, Ending, EventData, Head, Part, Parts, StreamEvent};

/// A response on its way.
#[derive(Debug, Clone)]
pub struct ResponseStream {
    head: Head,
    echo: Echo,
    parts: Parts,
    /// Events so far.
    n_events: u64,
}

impl ResponseStream {
    /// Nothing is sent yet.
    pub fn new(head: Head, echo: Echo) -> ResponseStream {
        ResponseStream {
            head,
            echo,
            parts: Parts::default(),
            n_events: 0,
        }
    }

    /// The first events.
    pub fn start(&mut self) -> Vec<StreamEvent> {
        let response = open_response(&self.head, &self.echo, Status::InProgress);
        let response = json!({ "response": response });
        vec![
            self.event("response.created", response.clone()),
            self.event("response.in_progress", response),
        ]
    }

    /// The events of the next piece.
    pub fn push(&mut self, piece: Piece) -> Vec<StreamEvent> {
        let changes = self.parts.push(piece);
        let mut events = Vec::new();
        for change in changes {
            self.add(change, Status::Completed, &mut events);
        }
        events
    }

    /// The last events.
    pub fn finish(&mut self, ending: &Ending) -> Vec<StreamEvent> {
        let status = Status::of(ending.finish);
        let mut events = self.end_last(status);
        let response = response_body(&self.head, &self.echo, &self.parts, ending);
        let name = match status {
            Status::Completed => "response.completed",
            _ => "response.incomplete",
        };
        events.push(self.event(name, json!({ "response": response })));
        events
    }

    /// The last events of an answer that failed.
    pub fn fail(&mut self, error: &ApiError) -> Vec<StreamEvent> {
        let mut events = self.end_last(Status::Incomplete);
        let response = failed_response(&self.head, &self.echo, &self.parts, error);
        events.push(self.event("response.failed", json!({ "response": response })));
        events
    }

    fn end_last(&mut self, status: Status) -> Vec<StreamEvent> {
        let mut events = Vec::new();
        if let Some(ended) = self.parts.finish() {
            self.add(ended, status, &mut events);
        }
        events
    }

    /// Adds the events of `change`. An item that ends is as far as `status` says.
    fn add(&mut self, change: Change, status: Status, events: &mut Vec<StreamEvent>) {
        let (Change::Begun(index) | Change::Grown(index, _) | Change::Ended(index)) = change;
        let Some(part) = self.parts.as_slice().get(index).cloned() else {
            return;
        };
        let place = Place {
            item_id: item_id(&self.head.id, index, &part),
            index,
        };
        match change {
            Change::Begun(_) => {
                let item = open_item(&self.head.id, index, &part);
                let added = json!({"output_index": index, "item": item});
                events.push(self.event("response.output_item.added", added));
                if let Some(empty) = empty_content(&part) {
                    let part = place.of_content("part", content_part(&empty));
                    events.push(self.event("response.content_part.added", part));
                }
            }
            Change::Grown(_, more) => events.push(self.grown(&part, &place, more)),
            Change::Ended(_) => {
                let done = self.done(&part, &place);
                events.push(done);
                if empty_content(&part).is_some() {
                    let part = place.of_content("part", content_part(&part));
                    events.push(self.event("response.content_part.done", part));
                }
                let item = item(&self.head.id, index, &part, status);
                let done = json!({"output_index": index, "item": item});
                events.push(self.event("response.output_item.done", done));
            }
        }
    }

    fn grown(&mut self, part: &Part, place: &Place, more: String) -> StreamEvent {
        match part {
            Part::Reasoning(_) => {
                let delta = place.of_content("delta", more);
                self.event("response.reasoning_text.delta", delta)
            }
            Part::Text(_) => {
                let delta = with_logprobs(place.of_content("delta", more));
                self.event("response.output_text.delta", delta)
            }
            Part::Call { .. } => {
                let delta = place.of_item("delta", more);
                self.event("response.function_call_arguments.delta", delta)
            }
        }
    }

    fn done(&mut self, part: &Part, place: &Place) -> StreamEvent {
        match part {
            Part::Reasoning(text) => {
                let done = place.of_content("text", text.clone());
                self.event("response.reasoning_text.done", done)
            }
            Part::Text(text) => {
                let done = with_logprobs(place.of_content("text", text.clone()));
                self.event("response.output_text.done", done)
            }
            Part::Call {
                name, arguments, ..
            } => {
                let mut done = place.of_item("arguments", arguments.clone());
                done["name"] = name.clone().into();
                self.event("response.function_call_arguments.done", done)
            }
        }
    }

    /// The next event, whose data begins with its name and its number.
    fn event(&mut self, name: &'static str, fields: Value) -> StreamEvent {
        let mut data = json!({"type": name, "sequence_number": self.n_events});
        self.n_events += 1;
        if let (Some(data), Value::Object(fields)) = (data.as_object_mut(), fields) {
            data.extend(fields);
        }
        StreamEvent {
            name: Some(name),
            data: EventData::Json(data),
        }
    }
}

/// Where an event's text belongs.
struct Place {
    item_id: String,
    index: usize,
}

impl Place {
    fn of_item(&self, name: &str, value: impl Into<Value>) -> Value {
        let mut fields = Map::new();
        fields.insert("item_id".to_owned(), self.item_id.clone().into());
        fields.insert("output_index".to_owned(), self.index.into());
        fields.insert(name.to_owned(), value.into());
        fields.into()
    }

    /// In the one part of the item's content.
    fn of_content(&self, name: &str, value: impl Into<Value>) -> Value {
        let mut fields = self.of_item(name, value);
        fields["content_index"] = 0.into();
        fields
    }
}

/// The part of an item's content before anything of it is written; calls have none.
fn empty_content(part: &Part) -> Option<Part> {
    match part {
        Part::Reasoning(_) => Some(Part::Reasoning(String::new())),
        Part::Text(_) => Some(Part::Text(String::new())),
        Part::Call { .. } => None,
    }
}

/// Clients expect the field.
fn with_logprobs(mut fields: Value) -> Value {
    fields["logprobs"] = json!([]);
    fields
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::Finish;
    use crate::openai::responses::ResponsesRequest;
    use crate::openai::samples::{any_pieces, ending, head};

    fn request() -> ResponsesRequest {
        ResponsesRequest::from_body(json!({"input": "hi"})).expect("a request")
    }

    fn data(event: StreamEvent) -> Value {
        let EventData::Json(data) = event.data else {
            panic!("this API's streams have no end mark");
        };
        assert_eq!(event.name.map(Value::from).as_ref(), Some(&data["type"]));
        data
    }

    /// The item that a client puts together from its events, which begin with `added`.
    fn joined_item(added: &Value, events: &mut impl Iterator<Item = Value>) -> Value {
        let mut item = added["item"].clone();
        let mut text = String::new();
        let name = match item["type"].as_str().expect("a type") {
            "reasoning" => "response.reasoning_text",
            "message" => "response.output_text",
            _ => "response.function_call_arguments",
        };
        let has_content = item["type"] != "function_call";
        if has_content {
            let part = events.next().expect("a part");
            assert_eq!(part["type"], "response.content_part.added");
            assert_eq!(part["part"]["text"], "");
        }
        loop {
            let event = events.next().expect("more of the item");
            assert_eq!(event["item_id"], item["id"]);
            assert_eq!(event["output_index"], added["output_index"]);
            if event["type"] == format!("{name}.delta") {
                text += event["delta"].as_str().expect("a text");
                continue;
            }
            assert_eq!(event["type"], format!("{name}.done"));
            let whole = if has_content { "text" } else { "arguments" };
            assert_eq!(event[whole], text);
            break;
        }
        if has_content {
            let part = events.next().expect("a part");
            assert_eq!(part["type"], "response.content_part.done");
            assert_eq!(part["part"]["text"], text);
            item["content"] = json!([part["part"]]);
        } else {
            item["arguments"] = text.into();
        }
        let done = events.next().expect("the end of the item");
        assert_eq!(done["type"], "response.output_item.done");
        assert_eq!(done["output_index"], added["output_index"]);
        item["status"] = done["item"]["status"].clone();
        assert_eq!(done["item"], item);
        item
    }

    /// The response that a client puts together: its items, and the last event's name and response.
    fn joined(events: Vec<StreamEvent>) -> (Vec<Value>, Value, Value) {
        let mut number = 0;
        let mut events = events.into_iter().map(data).inspect(move |event| {
            assert_eq!(event["sequence_number"], number);
            number += 1;
        });
        for name in ["response.created", "response.in_progress"] {
            let event = events.next().expect("a first event");
            assert_eq!(event["type"], name);
            assert_eq!(event["response"]["status"], "in_progress");
        }
        let mut items = Vec::new();
        loop {
            let event = events.next().expect("more");
            if event["type"] == "response.output_item.added" {
                assert_eq!(event["output_index"], items.len());
                items.push(joined_item(&event, &mut events));
                continue;
            }
            assert_eq!(events.next(), None);
            return (items, event["type"].clone(), event["response"].clone());
        }
    }

    fn stream(pieces: &[Piece]) -> (ResponseStream, Vec<StreamEvent>) {
        let mut stream = ResponseStream::new(head(), request().echo);
        let mut events = stream.start();
        for piece in pieces {
            events.extend(stream.push(piece.clone()));
        }
        (stream, events)
    }

    proptest! {
        /// Whatever the pieces are, a client has in the end what the response in one piece says.
        #[test]
        fn a_stream_is_well_formed_and_gives_the_same_response(
            pieces in any_pieces(),
            is_cut in any::<bool>(),
        ) {
            let finish = if is_cut { Finish::Length } else { Finish::EndOfText };
            let ending = ending(finish);
            let (mut stream, mut events) = stream(&pieces);
            events.extend(stream.finish(&ending));
            let (items, name, response) = joined(events);
            let expected = response_body(&head(), &request().echo, &Parts::of(pieces), &ending);
            prop_assert_eq!(&response, &expected);
            prop_assert_eq!(Value::from(items), response["output"].clone());
            prop_assert_eq!(name, if is_cut { "response.incomplete" } else { "response.completed" });
        }

        #[test]
        fn a_stream_that_fails_is_well_formed(pieces in any_pieces()) {
            let (mut stream, mut events) = stream(&pieces);
            events.extend(stream.fail(&ApiError::server("gone")));
            let (items, name, response) = joined(events);
            prop_assert_eq!(name, "response.failed");
            prop_assert_eq!(Value::from(items), response["output"].clone());
            prop_assert_eq!(
                response["error"].clone(),
                json!({"code": "server_error", "message": "gone"})
            );
        }
    }
}
