//! Many clients at once.

use std::time::Duration;

use serde_json::{Value, json};

use crate::server::{CHAT, Server, chat};

/// What a stream says, joined; it ends as one that is complete.
fn text(events: &[String]) -> String {
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let chunks = events.iter().take(events.len() - 1);
    let chunks = chunks.map(|event| serde_json::from_str::<Value>(event).expect("JSON"));
    chunks
        .filter_map(|chunk| Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned()))
        .collect()
}

#[test]
fn every_answer_under_load_is_the_one_that_it_is_alone() {
    const CLIENTS: usize = 64;
    const SEEDS: usize = 8;
    let server = Server::start(&["--parallel", "16", "--kv-tokens", "1024"]);
    let asked = |seed: usize| {
        let length = 20 + 5 * seed;
        chat(
            &"word ".repeat(seed),
            json!({"seed": seed, "max_tokens": length, "ignore_eos": true}),
        )
    };
    let alone: Vec<String> = (0..SEEDS)
        .map(|seed| text(&server.stream(CHAT, &asked(seed))))
        .collect();
    let (server, alone, asked) = (&server, &alone, &asked);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for turn in 0..2 {
                    let seed = (client + turn) % SEEDS;
                    let events = server.stream(CHAT, &asked(seed));
                    assert_eq!(text(&events), alone[seed], "seed {seed}");
                }
            });
        }
    });
    server.assert_idle_within(Duration::from_secs(2));
}
