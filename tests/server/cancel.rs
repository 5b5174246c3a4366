//! Clients that go away.

use std::time::Duration;

use serde_json::json;

use crate::server::{Server, TEXT, chat, endless, with};

/// How soon all of an answer is gone.
const SOON: Duration = Duration::from_secs(2);

#[test]
fn a_client_that_leaves_in_the_middle_gives_its_pages_back() {
    let server = Server::start(&["--ctx", "100000"]);
    let mut connection = server.open(TEXT, &endless());
    assert_eq!(connection.head().0, 200);
    connection.event().expect("a token");
    // It is told behind the token.
    server.wait_for("hyperion_kv_pages_used", 1.0);
    drop(connection);
    server.assert_idle_within(SOON);
    assert_eq!(server.metric("hyperion_cancellations_total"), 1.0);
}

#[test]
fn one_that_leaves_during_its_prompt_or_in_the_queue_does_too() {
    // A prompt of minutes, in one step.
    let server = Server::start(&[
        "--ctx",
        "60000",
        "--chunk",
        "50000",
        "--budget",
        "50000",
        "--parallel",
        "1",
    ]);
    let long = json!({"prompt": vec![5; 50_000], "stream": true, "max_tokens": 1});
    let reads = server.open(TEXT, &long);
    // The step that reads it begins, and tells nothing before its end.
    server.wait_for("hyperion_requests_waiting", 1.0);
    let waits = server.open(TEXT, &endless());
    drop(waits);
    drop(reads);
    // Two cores are shared with the servers of all other tests, and a step looks for it between operations only.
    server.assert_idle_within(5 * SOON);
    // Nothing of it holds the next one up.
    server.post(TEXT, &json!({"prompt": "x"})).ok();
}

#[test]
fn a_whole_answer_that_nobody_waits_for_ends_too() {
    let server = Server::start(&["--ctx", "100000"]);
    let asked = with(endless(), json!({"stream": false}));
    let connection = server.open(TEXT, &asked);
    server.wait_for("hyperion_requests_running", 1.0);
    drop(connection);
    server.assert_idle_within(SOON);
}

#[test]
fn the_others_go_on_as_if_alone() {
    let server = Server::start(&["--ctx", "2000"]);
    let ask = |seed: u64| {
        chat(
            "hi",
            json!({"max_tokens": 60, "ignore_eos": true, "seed": seed}),
        )
    };
    let text = |seed: u64| {
        let reply = server.post("/v1/chat/completions", &ask(seed)).ok();
        reply["choices"][0]["message"]["content"].clone()
    };
    let alone: Vec<_> = (0..7).map(text).collect();
    let leaves = server.open(TEXT, &endless());
    let open: Vec<_> = (0..7)
        .map(|seed| server.open("/v1/chat/completions", &ask(seed)))
        .collect();
    drop(leaves);
    for (connection, alone) in open.into_iter().zip(alone) {
        assert_eq!(
            connection.reply().ok()["choices"][0]["message"]["content"],
            alone
        );
    }
    server.assert_idle_within(SOON);
}
