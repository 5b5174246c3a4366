//! What is refused, and that the rest goes on.

use std::time::Duration;

use serde_json::json;

use crate::client::{Connection, request_bytes};
use crate::server::{CHAT, JSON, Server, TEXT, chat, endless, with};

#[test]
fn a_prompt_beyond_the_context_is_refused_before_anything_streams() {
    let server = Server::start(&[]);
    for stream in [false, true] {
        for (path, body) in [
            (CHAT, chat(&"word ".repeat(400), json!({}))),
            (TEXT, json!({"prompt": vec![1; 257]})),
            (TEXT, json!({"prompt": [[1], vec![1; 257]]})),
            ("/v1/embeddings", json!({"input": vec![1; 257]})),
        ] {
            if path == "/v1/embeddings" && stream {
                continue;
            }
            let body = match stream {
                true => with(body, json!({"stream": true})),
                false => body,
            };
            let error = server.post(path, &body).error(400);
            assert_eq!(error["code"], "context_length_exceeded");
            assert_eq!(error["n_ctx"], 256);
            assert!(error["n_prompt_tokens"].as_u64() >= Some(257), "{error}");
        }
    }
    // What fits to the last token is answered: the prompt and its answer have as many tokens as the context.
    for (n_prompt, n) in [(255, 1), (250, 6)] {
        let full = json!({"prompt": vec![1; n_prompt], "max_tokens": 10, "ignore_eos": true});
        let reply = server.post(TEXT, &full).ok();
        assert_eq!(reply["choices"][0]["finish_reason"], "length");
        assert_eq!(reply["usage"]["completion_tokens"], n);
        assert_eq!(reply["usage"]["total_tokens"], 256);
    }
    let error = server
        .post(TEXT, &json!({"prompt": vec![1; 256]}))
        .error(400);
    assert_eq!(error["code"], "context_length_exceeded");
    assert_eq!(
        (&error["n_prompt_tokens"], &error["n_ctx"]),
        (&json!(256), &json!(256))
    );
    // Nothing is added to what has no answer.
    server
        .post(TEXT, &json!({"prompt": vec![1; 256], "max_tokens": 0}))
        .ok();
    server
        .post("/v1/embeddings", &json!({"input": vec![1; 256]}))
        .ok();
}

#[test]
fn prompts_and_answers_have_limits_of_their_own() {
    let server = Server::start(&["--max-prompt", "10", "--max-answer", "5"]);
    let error = server
        .post(TEXT, &json!({"prompt": vec![1; 11]}))
        .error(400);
    assert_eq!(
        (&error["n_ctx"], &error["n_prompt_tokens"]),
        (&json!(10), &json!(11))
    );
    let error = server
        .post(TEXT, &json!({"prompt": "x", "max_tokens": 6}))
        .error(400);
    assert_eq!(error["param"], "max_tokens");
    let unlimited = json!({"prompt": "x", "max_tokens": -1, "ignore_eos": true});
    assert_eq!(
        server.post(TEXT, &unlimited).ok()["usage"]["completion_tokens"],
        5
    );
}

#[test]
fn above_the_queue_requests_are_told_to_come_again() {
    let server = Server::start(&["--parallel", "1", "--max-queue", "1", "--ctx", "100000"]);
    let mut first = server.open(TEXT, &endless());
    let second = server.open(TEXT, &endless());
    assert_eq!(first.head().0, 200);
    server.wait_for("hyperion_requests_waiting", 1.0);
    let refused = server.post(TEXT, &json!({"prompt": "x"}));
    assert_eq!(refused.header("retry-after"), Some("1"));
    refused.error(503);
    assert_eq!(server.get("/health").status, 200);
    // More than there will ever be room for.
    let error = server
        .post(TEXT, &json!({"prompt": "x", "n": 3}))
        .error(400);
    assert_eq!(error["param"], "n");
    drop((first, second));
    server.assert_idle_within(Duration::from_secs(2));
    server.post(TEXT, &json!({"prompt": "x"})).ok();
}

#[test]
fn above_the_connections_health_still_answers() {
    let server = Server::start(&["--max-connections", "2"]);
    let held = [
        Connection::open(server.address),
        Connection::open(server.address),
    ];
    let refused = server.post(TEXT, &json!({"prompt": "x"}));
    assert_eq!(refused.header("retry-after"), Some("1"));
    refused.error(503);
    assert_eq!(server.get("/health").status, 200);
    drop(held);
    let body = json!({"prompt": "x"}).to_string();
    let bytes = request_bytes("POST", TEXT, &[JSON], body.as_bytes());
    let answered = (0..200).any(|_| {
        let mut connection = Connection::open(server.address);
        connection.send(&bytes);
        connection.reply().status == 200
    });
    assert!(answered, "there is room again");
}
