//! Responses.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::engine::Finish;
use crate::openai::{Ending, Head, Part, Parts, Spent};

/// The message with all of `parts`.
pub fn message_body(head: &Head, parts: &Parts, ending: &Ending) -> Value {
    let mut message = open_message(head, &ending.spent);
    let blocks: Vec<Value> = parts.as_slice().iter().map(block).collect();
    message["content"] = blocks.into();
    message["stop_reason"] = stop_reason(ending, parts).into();
    message["stop_sequence"] = ending.stop.clone().into();
    message
}

/// The response to a request for the number of tokens.
pub fn count_body(n_tokens: usize) -> Value {
    json!({ "input_tokens": n_tokens })
}

/// A message of which nothing is written yet.
pub(super) fn open_message(head: &Head, spent: &Spent) -> Value {
    json!({
        "id": format!("msg_{}", head.id),
        "type": "message",
        "role": "assistant",
        "model": head.model,
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": usage(spent),
        "seed": head.seed,
    })
}

/// What it took. Anthropic counts the tokens of a prompt that were in the cache apart from the others; none are
/// written for a price of their own.
pub(super) fn usage(spent: &Spent) -> Value {
    json!({
        "input_tokens": spent.prompt.saturating_sub(spent.cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": spent.cached,
        "output_tokens": spent.answer,
    })
}

/// Anthropic's word for why an answer ended.
pub(super) fn stop_reason(ending: &Ending, parts: &Parts) -> &'static str {
    match ending.finish {
        Finish::EndOfText | Finish::Interrupted if parts.n_calls() > 0 => "tool_use",
        Finish::EndOfText | Finish::Interrupted => "end_turn",
        Finish::StopString => "stop_sequence",
        Finish::Length => "max_tokens",
        Finish::Context => "model_context_window_exceeded",
    }
}

/// A block before anything of it is written.
pub(super) fn open_block(part: &Part) -> Value {
    match part {
        Part::Reasoning(_) => json!({"type": "thinking", "thinking": "", "signature": ""}),
        Part::Text(_) => json!({"type": "text", "text": ""}),
        Part::Call { id, name, .. } => {
            json!({"type": "tool_use", "id": id, "name": name, "input": {}})
        }
    }
}

fn block(part: &Part) -> Value {
    let mut block = open_block(part);
    match part {
        Part::Reasoning(text) => {
            block["thinking"] = text.clone().into();
            block["signature"] = signature(text).into();
        }
        Part::Text(text) => block["text"] = text.clone().into(),
        Part::Call { arguments, .. } => block["input"] = input(arguments).into(),
    }
    block
}

/// What clients send back beside a thinking block, and drop the block where it is missing: a digest of the text. It is
/// no proof, and none is asked for.
pub(super) fn signature(thinking: &str) -> String {
    STANDARD.encode(Sha256::digest(thinking))
}

/// The arguments of a call. Those that the answer's end cut off are none: they are no JSON, and `stop_reason` says that
/// the answer is not complete.
fn input(arguments: &str) -> Map<String, Value> {
    serde_json::from_str(arguments).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Piece;
    use crate::openai::samples::{ending, head};

    fn call(arguments: &str) -> [Piece; 2] {
        [
            Piece::ToolCall {
                index: 0,
                id: "toolu_1".to_owned(),
                name: "get".to_owned(),
            },
            Piece::Arguments {
                index: 0,
                text: arguments.to_owned(),
            },
        ]
    }

    fn message(pieces: impl IntoIterator<Item = Piece>, finish: Finish) -> Value {
        message_body(&head(), &Parts::of(pieces), &ending(finish))
    }

    #[test]
    fn parts_are_blocks() {
        let thought = [
            Piece::Reasoning("hm".to_owned()),
            Piece::Content("I".to_owned()),
        ];
        let pieces = thought.into_iter().chain(call("{\"at\": \"sea\"}"));
        let message = message(pieces, Finish::EndOfText);
        assert_eq!(message["id"], "msg_1");
        assert_eq!(message["stop_reason"], "tool_use");
        assert_eq!(message["content"][0]["thinking"], "hm");
        assert!(
            message["content"][0]["signature"]
                .as_str()
                .is_some_and(|text| text.len() == 44)
        );
        assert_eq!(message["content"][1], json!({"type": "text", "text": "I"}));
        assert_eq!(
            message["content"][2],
            json!({"type": "tool_use", "id": "toolu_1", "name": "get", "input": {"at": "sea"}})
        );
        assert_eq!(
            message["usage"],
            json!({
                "input_tokens": 6, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4,
                "output_tokens": 3,
            })
        );
    }

    #[test]
    fn the_reason_is_told() {
        for (finish, reason) in [
            (Finish::EndOfText, "end_turn"),
            (Finish::StopString, "stop_sequence"),
            (Finish::Length, "max_tokens"),
            (Finish::Context, "model_context_window_exceeded"),
        ] {
            let message = message([], finish);
            assert_eq!(message["stop_reason"], reason);
            let is_stop = finish == Finish::StopString;
            assert_eq!(message["stop_sequence"] == "END", is_stop);
            assert_eq!(message["content"], json!([]));
        }
    }

    #[test]
    fn arguments_that_were_cut_off_are_none() {
        let message = message(call("{\"at\": \"se"), Finish::Length);
        assert_eq!(message["content"][0]["input"], json!({}));
        assert_eq!(message["stop_reason"], "max_tokens");
    }
}
