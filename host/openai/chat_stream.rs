//! Messages in pieces: `chat.completion.chunk`.

use serde::Serialize;
use serde_json::{Value, json};

use super::chunks::Chunks;
use super::response::chat_finish_reason;
use super::{ChatLogprobs, StreamEvent, StreamHead, Usage};
use crate::chat::Piece;
use crate::engine::Finish;

/// The chunks of the answers to one request.
pub struct ChatStream {
    chunks: Chunks,
    /// For each answer, whether it calls tools.
    calls_tools: Vec<bool>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    delta: Value,
    logprobs: Option<&'a ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

impl ChatStream {
    /// Chunks of `n` answers; with `include_usage` the last one counts their tokens.
    pub fn new(head: StreamHead, n: usize, include_usage: bool) -> ChatStream {
        ChatStream {
            chunks: Chunks::new(head, "chat.completion.chunk", include_usage),
            calls_tools: vec![false; n],
        }
    }

    /// What comes before the first token: who speaks.
    pub fn begin(&self) -> Vec<StreamEvent> {
        let delta = || json!({"role": "assistant", "content": null});
        let choices = 0..self.calls_tools.len();
        choices
            .map(|choice| self.chunk(choice, delta(), None, None))
            .collect()
    }

    /// The next parts of an answer, with the log-probabilities of the tokens that are certain with them.
    pub fn pieces(
        &mut self,
        choice: usize,
        pieces: &[Piece],
        logprobs: Option<&ChatLogprobs>,
    ) -> Vec<StreamEvent> {
        let mut logprobs = logprobs.filter(|logprobs| !logprobs.content.is_empty());
        let mut events = Vec::with_capacity(pieces.len());
        for piece in pieces {
            if let (Piece::ToolCall { .. }, Some(calls)) = (piece, self.calls_tools.get_mut(choice))
            {
                *calls = true;
            }
            events.push(self.chunk(choice, delta(piece), logprobs.take(), None));
        }
        if logprobs.is_some() {
            events.push(self.chunk(choice, json!({}), logprobs, None));
        }
        events
    }

    /// The end of an answer.
    pub fn finish(&self, choice: usize, finish: Finish) -> StreamEvent {
        let calls_tools = self.calls_tools.get(choice).is_some_and(|calls| *calls);
        let reason = chat_finish_reason(finish, calls_tools);
        self.chunk(choice, json!({}), None, Some(reason))
    }

    /// The end of all answers, which took `usage`.
    pub fn end(&self, usage: Usage) -> Vec<StreamEvent> {
        self.chunks.end(usage)
    }

    fn chunk(
        &self,
        index: usize,
        delta: Value,
        logprobs: Option<&ChatLogprobs>,
        finish_reason: Option<&'static str>,
    ) -> StreamEvent {
        self.chunks.chunk(ChunkChoice {
            index,
            delta,
            logprobs,
            finish_reason,
        })
    }
}

/// What `piece` adds to the message.
fn delta(piece: &Piece) -> Value {
    match piece {
        Piece::Content(text) => json!({ "content": text }),
        // Both of vLLM's names: some clients know one of them only.
        Piece::Reasoning(text) => json!({"reasoning_content": text, "reasoning": text}),
        Piece::ToolCall { index, id, name } => {
            let function = json!({"name": name, "arguments": ""});
            let call = json!({"index": index, "id": id, "type": "function", "function": function});
            json!({ "tool_calls": [call] })
        }
        Piece::Arguments { index, text } => {
            let call = json!({"index": index, "function": {"arguments": text}});
            json!({ "tool_calls": [call] })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::EventData;

    fn stream(include_usage: bool) -> ChatStream {
        let head = StreamHead {
            id: "chatcmpl-1".to_owned(),
            object: "",
            created: 5,
            model: "m".to_owned(),
            seed: 7,
        };
        ChatStream::new(head, 1, include_usage)
    }

    fn choice(event: &StreamEvent) -> Value {
        match &event.data {
            EventData::Json(chunk) => chunk["choices"][0].clone(),
            EventData::Done => panic!("the stream is not complete"),
        }
    }

    #[test]
    fn a_chunk_has_a_head_and_its_part() {
        let events = stream(false).pieces(0, &[Piece::Content("hi".to_owned())], None);
        let expected = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "m", "seed": 7,
            "choices": [{"index": 0, "delta": {"content": "hi"}, "logprobs": null, "finish_reason": null}],
        });
        assert_eq!(events, [StreamEvent::json(&expected)]);
    }

    #[test]
    fn reasoning_has_two_names_and_calls_end_a_message_in_their_way() {
        let mut stream = stream(false);
        let pieces = [
            Piece::Reasoning("hm".to_owned()),
            Piece::ToolCall {
                index: 0,
                id: "c".to_owned(),
                name: "f".to_owned(),
            },
            Piece::Arguments {
                index: 0,
                text: "{}".to_owned(),
            },
        ];
        let events = stream.pieces(0, &pieces, None);
        let deltas: Vec<Value> = events
            .iter()
            .map(|event| choice(event)["delta"].clone())
            .collect();
        assert_eq!(
            deltas[0],
            json!({"reasoning_content": "hm", "reasoning": "hm"})
        );
        assert_eq!(deltas[1]["tool_calls"][0]["function"]["name"], "f");
        assert_eq!(
            deltas[2]["tool_calls"][0],
            json!({"index": 0, "function": {"arguments": "{}"}})
        );
        let finish = |finish| choice(&stream.finish(0, finish))["finish_reason"].clone();
        assert_eq!(finish(Finish::EndOfText), "tool_calls");
        assert_eq!(finish(Finish::Length), "length");
    }

    #[test]
    fn usage_comes_last_and_is_null_before() {
        let stream = stream(true);
        let EventData::Json(first) = &stream.begin()[0].data else {
            panic!("no chunk");
        };
        assert_eq!(first["usage"], Value::Null);
        assert!(
            first
                .as_object()
                .is_some_and(|first| first.contains_key("usage"))
        );
        let end = stream.end(Usage::new(3, 4, Some(2)));
        let EventData::Json(last) = &end[0].data else {
            panic!("no chunk");
        };
        assert_eq!(last["choices"], json!([]));
        assert_eq!(last["usage"]["total_tokens"], 7);
        assert_eq!(last["usage"]["prompt_tokens_details"]["cached_tokens"], 2);
        assert_eq!(end[1].data, EventData::Done);
        assert_eq!(self::stream(false).end(Usage::new(3, 4, None)).len(), 1);
    }
}
