//! Answers in pieces.

use serde_json::{Value, json};

use crate::server::{CHAT, Server, TEXT, chat, with};

/// The chunks of a stream, which ends as OpenAI's do.
fn chunks(events: &[String]) -> Vec<Value> {
    let (last, chunks) = events.split_last().expect("events");
    assert_eq!(last, "[DONE]");
    let parse = |event: &String| serde_json::from_str(event).expect("JSON");
    chunks.iter().map(parse).collect()
}

/// What the chunks' choices `index` say under `pointer`, joined.
fn joined(chunks: &[Value], index: usize, pointer: &str) -> String {
    let choices = chunks
        .iter()
        .flat_map(|chunk| chunk["choices"].as_array().expect("choices"));
    let mine = choices.filter(|choice| choice["index"] == index);
    mine.filter_map(|choice| choice.pointer(pointer)?.as_str())
        .collect()
}

#[test]
fn a_message_comes_in_pieces_that_make_up_the_whole() {
    let server = Server::start(&[]);
    for more in [
        json!({"max_tokens": 30, "ignore_eos": true}),
        json!({"max_tokens": 30, "ignore_eos": true, "n": 3}),
        json!({"max_tokens": 30, "ignore_eos": true, "logprobs": true, "top_logprobs": 1}),
        json!({"max_tokens": 30, "stop": ["a", "e", " "]}),
        json!({"max_tokens": 0}),
    ] {
        let asked = chat("hi", with(more, json!({"seed": 11})));
        let whole = server.post(CHAT, &asked).ok();
        let chunks = chunks(&server.stream(CHAT, &asked));
        let choices = whole["choices"].as_array().expect("choices");
        for (index, choice) in choices.iter().enumerate() {
            assert_eq!(
                joined(&chunks, index, "/delta/content"),
                choice["message"]["content"].as_str().expect("a text")
            );
            assert_eq!(
                joined(&chunks, index, "/finish_reason"),
                choice["finish_reason"].as_str().expect("a reason")
            );
            assert_eq!(joined(&chunks, index, "/delta/role"), "assistant");
            let logprobs: Vec<Value> = chunks
                .iter()
                .filter(|chunk| chunk["choices"][0]["index"] == index)
                .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array())
                .flatten()
                .cloned()
                .collect();
            let expected = choice["logprobs"]["content"].as_array().cloned();
            assert_eq!(logprobs, expected.unwrap_or_default());
        }
        assert_eq!(
            chunks[0]["choices"][0]["delta"],
            json!({"role": "assistant", "content": null})
        );
        for chunk in &chunks {
            assert_eq!(chunk["object"], "chat.completion.chunk");
            assert_eq!(
                (&chunk["id"], &chunk["seed"]),
                (&chunks[0]["id"], &json!(11))
            );
            assert_eq!(chunk.get("usage"), None);
        }
    }
}

#[test]
fn a_text_comes_in_pieces_that_make_up_the_whole() {
    let server = Server::start(&[]);
    for more in [
        json!({"max_tokens": 30, "ignore_eos": true, "logprobs": 2}),
        json!({"prompt": ["x", "y"], "n": 2}),
    ] {
        let asked = with(json!({"prompt": "x", "seed": 1}), more);
        let whole = server.post(TEXT, &asked).ok();
        let chunks = chunks(&server.stream(TEXT, &asked));
        for (index, choice) in whole["choices"]
            .as_array()
            .expect("choices")
            .iter()
            .enumerate()
        {
            assert_eq!(
                joined(&chunks, index, "/text"),
                choice["text"].as_str().expect("a text")
            );
        }
        let offsets: Vec<Value> = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["logprobs"]["text_offset"].as_array())
            .flatten()
            .cloned()
            .collect();
        let expected = whole["choices"][0]["logprobs"]["text_offset"]
            .as_array()
            .cloned();
        assert_eq!(offsets, expected.unwrap_or_default());
    }
}

#[test]
fn tokens_are_counted_at_the_end_where_that_is_asked_for() {
    let server = Server::start(&[]);
    for (path, body) in [
        (CHAT, chat("hi", json!({}))),
        (TEXT, json!({"prompt": "hi"})),
    ] {
        let body = with(
            body,
            json!({"max_tokens": 3, "ignore_eos": true, "stream_options": {"include_usage": true}}),
        );
        let chunks = chunks(&server.stream(path, &body));
        let (last, before) = chunks.split_last().expect("chunks");
        assert_eq!(last["choices"], json!([]));
        assert_eq!(last["usage"]["completion_tokens"], 3);
        assert!(last["usage"]["prompt_tokens_details"]["cached_tokens"].is_u64());
        for chunk in before {
            assert_eq!(chunk.get("usage"), Some(&Value::Null));
        }
    }
}
