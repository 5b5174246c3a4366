//! What each path answers.

use serde_json::{Value, json};

use crate::server::{CHAT, Server, TEXT, chat};

#[test]
fn a_conversation_is_answered_in_openais_form() {
    let server = Server::start(&[]);
    let asked = chat(
        "hi",
        json!({"max_tokens": 4, "ignore_eos": true, "logprobs": true, "top_logprobs": 2}),
    );
    let reply = server.post(CHAT, &asked).ok();
    assert_eq!(reply["object"], "chat.completion");
    assert!(
        reply["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("chatcmpl-"))
    );
    assert!(reply["created"].as_u64() > Some(1_700_000_000));
    assert_eq!(reply["model"], "served");
    let choice = &reply["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    assert!(choice["message"]["content"].is_string());
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(
        choice["logprobs"]["content"].as_array().map(Vec::len),
        Some(4)
    );
    let usage = &reply["usage"];
    assert_eq!(usage["completion_tokens"], 4);
    let total = usage["prompt_tokens"].as_u64().expect("a number") + 4;
    assert_eq!(usage["total_tokens"], total);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
}

#[test]
fn a_prompt_that_came_before_is_cached() {
    let server = Server::start(&[]);
    let tokens: Vec<u32> = (1..200).collect();
    let asked = json!({"prompt": tokens, "max_tokens": 1, "ignore_eos": true});
    let cached = |reply: Value| reply["usage"]["prompt_tokens_details"]["cached_tokens"].clone();
    assert_eq!(cached(server.post(TEXT, &asked).ok()), 0);
    assert_eq!(cached(server.post(TEXT, &asked).ok()), 192);
    assert_eq!(
        server.metric("hyperion_prefix_cache_hit_tokens_total"),
        192.0
    );
}

#[test]
fn several_answers_have_seeds_that_follow_one_another() {
    let server = Server::start(&[]);
    let texts = |reply: &Value| -> Vec<String> {
        let choices = reply["choices"]
            .as_array()
            .expect("choices")
            .iter()
            .enumerate();
        choices
            .map(|(index, choice)| {
                assert_eq!(choice["index"], index);
                choice["text"].as_str().expect("a text").to_owned()
            })
            .collect()
    };
    let ask = |more: Value| {
        let body = json!({"prompt": "x", "max_tokens": 8, "ignore_eos": true});
        server.post(TEXT, &crate::server::with(body, more)).ok()
    };
    let together = ask(json!({"n": 3, "seed": 5}));
    let each = [5, 6, 7].map(|seed| texts(&ask(json!({ "seed": seed })))[0].clone());
    assert_eq!(texts(&together), each);
    assert_eq!(together["usage"]["completion_tokens"], 24);
    // Every prompt of a list has as many.
    let listed = ask(json!({"prompt": ["x", "y"], "n": 2, "seed": 5}));
    assert_eq!(texts(&listed).len(), 4);
    assert_eq!(texts(&listed)[..2], each[..2]);
}

#[test]
fn a_request_for_another_endpoint_is_told_which() {
    let server = Server::start(&[]);
    let messages = json!([{"role": "user", "content": "hi"}]);
    for (path, body, param, elsewhere) in [
        (
            CHAT,
            json!({"messages": messages, "prompt": "x"}),
            "prompt",
            TEXT,
        ),
        (CHAT, json!({"prompt": "x"}), "prompt", TEXT),
        (TEXT, json!({"messages": messages}), "messages", CHAT),
        (
            TEXT,
            json!({"prompt": "x", "input": "y"}),
            "input",
            "/v1/responses",
        ),
        (
            "/v1/responses",
            json!({"messages": messages}),
            "messages",
            CHAT,
        ),
        ("/v1/embeddings", json!({"prompt": "x"}), "prompt", TEXT),
    ] {
        let error = server.post(path, &body).error(400);
        assert_eq!(error["param"], param, "{path} {body}");
        let message = error["message"].as_str().expect("a message");
        let tells = message.starts_with(&format!("{param} is for ")) && message.contains(elsewhere);
        assert!(tells && message.contains(path), "{message}");
    }
}

#[test]
fn a_seed_repeats_an_answer_and_none_does_not() {
    let server = Server::start(&[]);
    let ask = |more: Value| {
        let reply = server.post(CHAT, &chat("hi", more)).ok();
        (
            reply["choices"][0]["message"]["content"].clone(),
            reply["seed"].clone(),
        )
    };
    let fields = json!({"max_tokens": 24, "ignore_eos": true, "temperature": 1});
    let (one, seed) = ask(fields.clone());
    let (two, other) = ask(fields.clone());
    assert_ne!(one, two);
    assert_ne!(seed, other);
    // The seed that was drawn gives the same text again.
    let (again, used) = ask(crate::server::with(fields, json!({"seed": seed})));
    assert_eq!((again, used), (one, seed));
}

#[test]
fn a_stop_string_ends_an_answer_before_it() {
    let server = Server::start(&[]);
    let ask = |stop: Value| {
        let fields = json!({"max_tokens": 40, "ignore_eos": true, "seed": 3, "stop": stop});
        let reply = server.post(CHAT, &chat("hi", fields)).ok();
        reply["choices"][0].clone()
    };
    let whole = ask(json!([]));
    let text = whole["message"]["content"].as_str().expect("a text");
    let middle: String = text
        .chars()
        .skip(text.chars().count() / 2)
        .take(3)
        .collect();
    let stopped = ask(json!([middle]));
    let before = &text[..text.find(&middle).expect("there")];
    assert_eq!(stopped["message"]["content"], before);
    assert_eq!(stopped["finish_reason"], "stop");
}

#[test]
fn there_is_one_model() {
    let server = Server::start(&["--alias", "a/b"]);
    let list = server.get("/v1/models").ok();
    let model = &list["data"][0];
    assert_eq!(
        (&list["object"], &model["id"]),
        (&json!("list"), &json!("a/b"))
    );
    assert_eq!(model["owned_by"], "hyperion");
    assert_eq!(model["max_model_len"], 256);
    assert_eq!(server.get("/v1/models/a/b").ok(), *model);
    let error = server.get("/v1/models/other").error(404);
    assert_eq!(error["code"], "model_not_found");
}

#[test]
fn tokens_and_texts_are_told() {
    let server = Server::start(&[]);
    let asked = json!({"content": "hello <s> world", "with_pieces": true});
    let told = server.post("/tokenize", &asked).ok();
    let tokens = told["tokens"].as_array().expect("tokens");
    assert_eq!(told["count"], tokens.len());
    let ids: Vec<&Value> = tokens.iter().map(|token| &token["id"]).collect();
    let back = server.post("/detokenize", &json!({ "tokens": ids })).ok();
    assert_eq!(back["content"], back["prompt"]);
    // Whole numbers, however they are written.
    let floats: Vec<f64> = ids.iter().filter_map(|id| id.as_f64()).collect();
    let asked = json!({ "tokens": floats });
    assert_eq!(server.post("/detokenize", &asked).ok(), back);
    let plain = server.post(
        "/tokenize",
        &json!({"prompt": "hello <s> world", "add_special_tokens": false}),
    );
    assert_eq!(plain.ok()["tokens"], json!(ids));
    for wrong in [
        json!({}),
        json!({"content": 5}),
        json!({"content": "a", "prompt": "b"}),
    ] {
        server.post("/tokenize", &wrong).error(400);
    }
    for wrong in [
        json!({}),
        json!({"tokens": "a"}),
        json!({"tokens": [-1]}),
        json!({"tokens": [1_000_000]}),
        json!({"tokens": [1.5]}),
    ] {
        server.post("/detokenize", &wrong).error(400);
    }
}

#[test]
fn a_conversation_is_laid_out() {
    let server = Server::start(&[]);
    let laid_out =
        |more: Value| server.post("/apply-template", &chat("hi", more)).ok()["prompt"].clone();
    assert_eq!(laid_out(json!({})), "user: hi\nbot: ");
    assert_eq!(
        laid_out(json!({"add_generation_prompt": false})),
        "user: hi\n"
    );
    let tokens = server
        .post("/tokenize", &chat("hi", json!({"return_token_strs": true})))
        .ok();
    let usage = server
        .post(CHAT, &chat("hi", json!({"max_tokens": 0})))
        .ok()["usage"]
        .clone();
    assert_eq!(tokens["count"], usage["prompt_tokens"]);
    assert_eq!(
        tokens["token_strs"].as_array().map(Vec::len),
        tokens["tokens"].as_array().map(Vec::len)
    );
}

#[test]
fn routers_find_load_and_metrics() {
    let server = Server::start(&["--parallel", "2"]);
    server
        .post(
            TEXT,
            &json!({"prompt": "x", "max_tokens": 3, "ignore_eos": true}),
        )
        .ok();
    let loads = server.get("/v1/loads?include=core").ok();
    let load = &loads["loads"][0];
    assert_eq!(
        (&loads["dp_rank_count"], &load["dp_rank"]),
        (&json!(1), &json!(0))
    );
    for (name, value) in [
        ("num_running_reqs", 0),
        ("num_waiting_reqs", 0),
        ("num_used_tokens", 0),
        ("max_total_num_tokens", 512),
        ("max_running_requests", 2),
    ] {
        assert_eq!(load[name], value, "{name}");
    }
    assert!(loads["timestamp"].is_f64());
    for (accepted, form, counter) in [
        (
            "application/openmetrics-text;version=1.0.0,*/*;q=0.1",
            "application/openmetrics-text",
            "# TYPE hyperion_preemptions counter",
        ),
        (
            "*/*",
            "text/plain; version=0.0.4",
            "# TYPE hyperion_preemptions_total counter",
        ),
    ] {
        let metrics = server.ask("GET", "/metrics", &[("accept", accepted)], b"");
        let told = metrics.header("content-type");
        assert!(told.is_some_and(|told| told.starts_with(form)), "{told:?}");
        assert!(metrics.text().contains(counter), "{}", metrics.text());
    }
    assert_eq!(server.metric("hyperion_generated_tokens_total"), 3.0);
    assert_eq!(
        server.metric("hyperion_time_to_first_token_seconds_count"),
        1.0
    );
    assert_eq!(server.metric("hyperion_inter_token_seconds_count"), 2.0);
    for name in [
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
    ] {
        assert_eq!(server.metric(name), 0.0, "{name}");
    }
    assert_eq!(server.metric("vllm:cache_config_info"), 1.0);
}

#[test]
fn other_paths_and_methods_have_errors_of_the_same_form() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/health").ok(), json!({"status": "ok"}));
    server.get("/v1/chat").error(404);
    server.get(CHAT).error(405);
    server.ask("DELETE", "/v1/models", &[], b"").error(405);
    server.ask("BREW", "/health", &[], b"").error(405);
}

#[test]
fn requests_have_names() {
    let server = Server::start(&[]);
    let id = |given: &str| {
        let reply = server.ask("GET", "/health", &[("x-request-id", given)], b"");
        reply.header("x-request-id").expect("a name").to_owned()
    };
    assert_eq!(id("abc-1"), "abc-1");
    assert_ne!(id("{abc}"), "{abc}");
    assert_ne!(id("{abc}"), id("{abc}"));
}
