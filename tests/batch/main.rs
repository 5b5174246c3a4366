//! `hyperion batch` as a person or a script uses it.

mod requests;
#[path = "../support/mod.rs"]
mod support;
mod workspace;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use requests::{Random, requests};
use serde_json::{Value, json};
use support::{broken, fixture, fixture_bytes};
use workspace::{TINY, Workspace, stderr};

/// 20 times killed at a random moment, and each time started again.
#[test]
fn a_killed_run_is_continued() {
    const KILLS: u64 = 20;
    let workspace = Workspace::with_template();
    workspace.write_requests("in", &requests(200));
    workspace.assert_runs("in", "expected", &["-q"]);
    let expected = workspace.sorted_lines("expected");
    assert_eq!(expected.len(), 200);

    let mut random = Random(std::process::id().into());
    for kill in 0..KILLS {
        let mut run = workspace.spawn("in", "out", &["-q"]);
        let before = n_lines(&workspace.path("out"));
        // Some are killed before anything is there, none when everything is.
        let enough = before + (random.below(10) as usize).min(199 - before);
        while n_lines(&workspace.path("out")) < enough {
            std::thread::sleep(Duration::from_millis(1));
            assert_eq!(
                run.try_wait().expect("a process"),
                None,
                "it ended by itself"
            );
        }
        std::thread::sleep(Duration::from_micros(random.below(5000)));
        run.kill().expect("killed");
        run.wait().expect("dead");
        if kill % 4 == 3 {
            tear(&workspace.path("out"), random.below(100));
        }
    }
    assert!(
        n_lines(&workspace.path("out")) < 200,
        "there was nothing left to kill"
    );
    let summary = workspace.assert_runs("in", "out", &[]);
    assert!(summary.contains("done before)"), "{summary}");
    assert_eq!(workspace.sorted_lines("out"), expected);
    // Nothing is left to do, and nothing is done.
    let before = workspace.read("out");
    let summary = workspace.assert_runs("in", "out", &[]);
    assert!(
        summary.contains("0 requests, 0 failed (+200 done before)"),
        "{summary}"
    );
    assert_eq!(workspace.read("out"), before);
}

fn n_lines(path: &Path) -> usize {
    let content = fs::read(path).unwrap_or_default();
    content.iter().filter(|&&byte| byte == b'\n').count()
}

/// As if the last write had come to the disk in part.
fn tear(path: &Path, n: u64) {
    let file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("results");
    let len = file.metadata().expect("results").len();
    file.set_len(len.saturating_sub(n)).expect("cut");
}

#[test]
fn results_do_not_depend_on_what_runs_beside() {
    let workspace = Workspace::with_template();
    workspace.write_requests("in", &requests(60));
    workspace.assert_runs("in", "alone", &["--parallel", "1"]);
    // So few pages that requests have to give them back.
    let crowded = [
        "--parallel",
        "40",
        "--kv-tokens",
        "256",
        "--budget",
        "7",
        "--chunk",
        "33",
    ];
    workspace.assert_runs("in", "crowded", &crowded);
    assert_eq!(
        workspace.sorted_lines("alone"),
        workspace.sorted_lines("crowded")
    );
}

#[test]
fn results_have_the_form_that_clients_expect() {
    let workspace = Workspace::with_template();
    let chat = json!({
        "messages": [{"role": "system", "content": [{"type": "text", "text": "be"}]}, {"role": "user", "content": "x"}],
        "max_tokens": 3, "temperature": 0, "logprobs": true, "top_logprobs": 2, "ignore_eos": true,
        "user": "me", "stream": false, "skip_special_tokens": true,
    });
    let text =
        json!({"prompt": ["x"], "logprobs": 1, "max_tokens": 3, "ignore_eos": true, "seed": 5});
    workspace.write_requests("in", &[
        json!({"custom_id": "chat", "method": "POST", "url": "/v1/chat/completions", "body": chat}),
        json!({"custom_id": "text", "url": "/v1/completions", "body": text}),
        json!({"custom_id": "unseeded", "body": {"prompt": "x", "max_tokens": 0}}),
        json!({"custom_id": "stream", "body": {"prompt": "x", "stream": true}}),
        json!({"custom_id": "wrong", "url": "/v1/embeddings", "body": {"input": "x"}}),
        json!({"custom_id": "long", "body": {"prompt": vec![1; 257]}}),
        json!({"custom_id": "nowhere", "body": {"prompt": [1_000_000]}}),
        json!({"custom_id": "empty", "body": {"prompt": []}}),
    ]);
    let summary = workspace.assert_runs("in", "out", &[]);
    assert!(
        summary.starts_with("8 requests, 5 failed · prompt "),
        "{summary}"
    );
    let results = workspace.results("out");

    let chat = &results["chat"]["response"];
    assert_eq!(
        (&results["chat"]["error"], &chat["status_code"]),
        (&Value::Null, &json!(200))
    );
    let body = &chat["body"];
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "model");
    let choice = &body["choices"][0];
    assert_eq!(
        (&choice["index"], &choice["finish_reason"]),
        (&json!(0), &json!("length"))
    );
    assert_eq!(choice["message"]["role"], "assistant");
    let tokens = choice["logprobs"]["content"].as_array().expect("logprobs");
    assert_eq!(tokens.len(), 3);
    for token in tokens {
        assert_eq!(token["top_logprobs"].as_array().map(Vec::len), Some(2));
        // Greedy takes the first of them.
        assert_eq!(token["logprob"], token["top_logprobs"][0]["logprob"]);
        assert!(token["logprob"].as_f64().expect("a number") < 0.0 && token["bytes"].is_array());
    }
    let usage = &body["usage"];
    assert_eq!(usage["completion_tokens"], 3);
    assert!(usage["prompt_tokens"].as_u64() > Some(3));

    let body = &results["text"]["response"]["body"];
    assert_eq!(
        (&body["object"], &body["seed"]),
        (&json!("text_completion"), &json!(5))
    );
    let logprobs = &body["choices"][0]["logprobs"];
    assert_eq!(logprobs["text_offset"][0], 0);
    for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(logprobs[list].as_array().map(Vec::len), Some(3), "{list}");
    }
    let unseeded = &results["unseeded"]["response"]["body"];
    assert!(unseeded["seed"].is_u64() && unseeded["choices"][0]["text"] == "");

    for (name, code, part) in [
        ("stream", "invalid_request", "stream"),
        (
            "wrong",
            "invalid_request",
            "/v1/chat/completions or /v1/completions",
        ),
        (
            "long",
            "context_length_exceeded",
            "257 tokens do not fit the context of 256",
        ),
        ("nowhere", "invalid_request", "1000000"),
        ("empty", "invalid_request", "no tokens"),
    ] {
        let line = &results[name];
        assert_eq!(
            (&line["error"]["code"], &line["response"]["status_code"]),
            (&json!(code), &json!(400))
        );
        let message = line["response"]["body"]["error"]["message"]
            .as_str()
            .expect("a message");
        assert!(message.contains(part), "{name}: {message}");
        assert_eq!(line["error"]["message"], message);
    }
}

#[test]
fn a_number_that_is_not_finite_ends_its_request_alone() {
    let workspace = Workspace::with_model(&broken::with_broken_token(&fixture_bytes(TINY), 7));
    let line = |name: &str, prompt: [u32; 3]| {
        let body = json!({"prompt": prompt, "max_tokens": 3, "temperature": 0, "ignore_eos": true, "logit_bias": {"7": false}});
        json!({"custom_id": name, "body": body})
    };
    workspace.write_requests(
        "in",
        &[
            line("a", [1, 2, 3]),
            line("b", [1, 7, 3]),
            line("c", [4, 5, 6]),
        ],
    );
    workspace.assert_runs("in", "out", &[]);
    let results = workspace.results("out");
    for name in ["a", "c"] {
        assert_eq!(
            results[name]["response"]["body"]["usage"]["completion_tokens"],
            3
        );
    }
    let error = &results["b"]["response"];
    assert_eq!(error["status_code"], 500);
    assert!(
        error["body"]["error"]["message"]
            .as_str()
            .expect("a message")
            .contains("not finite")
    );
}

#[test]
fn what_cannot_be_named_is_refused_before_anything_runs() {
    let workspace = Workspace::tiny();
    let good = json!({"custom_id": "a", "body": {"prompt": "x"}}).to_string();
    for (text, part) in [
        (
            format!("{good}\n{good}"),
            "line 2 has the custom_id \"a\" of line 1",
        ),
        (format!("{good}\n\n{{"), "line 3 is not JSON"),
        (format!("{good}\n{{}}"), "line 2 has no custom_id"),
        (String::new(), "no requests"),
    ] {
        fs::write(workspace.path("in"), text).expect("requests");
        workspace.assert_refused("in", "out", &[], part);
        assert!(!workspace.path("out").exists());
    }
    workspace.assert_refused("missing", "out", &[], "missing");
}

#[test]
fn a_line_that_cannot_be_read_is_an_error_of_its_own() {
    let workspace = Workspace::tiny();
    let lines = [
        r#"{"custom_id": "a", "body": {"prompt": "x", "max_tokens": 2}}"#,
        r#"{"custom_id": "b", "body": {"prompt": "x", "temperature": 1e400}}"#,
        r#"{"custom_id": "c", "body": {"prompt": "\ud800"}}"#,
        r#"{"custom_id": "\udc00", "body": {"prompt": "x"}}"#,
        r#"{"custom_id": "d", "body": {"prompt": "x", "n": 0}}"#,
        r#"{"custom_id": "e", "body": {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}}"#,
    ];
    fs::write(workspace.path("in"), lines.join("\n")).expect("requests");
    workspace.assert_runs("in", "out", &["-q"]);
    let result = |name: Value| {
        let lines = workspace.sorted_lines("out").into_iter();
        let mut lines = lines.map(|line| serde_json::from_str::<Value>(&line).expect("JSON"));
        lines
            .find(|line| line["custom_id"] == name)
            .expect("a result")
    };
    assert_eq!(result(json!("a"))["response"]["status_code"], 200);
    for (name, part) in [
        (json!("b"), "number out of range at column"),
        (json!("c"), "hex escape"),
        (json!(null), "hex escape"),
        (json!("d"), "n is 0; expected 1: a batch makes one answer"),
        (
            json!("e"),
            "either messages, as for /v1/chat/completions, or a prompt",
        ),
    ] {
        let result = result(name);
        assert_eq!(result["response"]["status_code"], 400);
        let message = result["error"]["message"].as_str().expect("a message");
        assert!(message.contains(part), "{message}");
    }
    // Another run finds all of them.
    let before = workspace.read("out");
    workspace.assert_runs("in", "out", &["-q"]);
    assert_eq!(workspace.read("out"), before);
}

#[test]
fn a_prompt_and_its_answer_fit_the_context() {
    let workspace = Workspace::tiny();
    let body = |n: usize| json!({"prompt": vec![1; n], "max_tokens": -1, "ignore_eos": true});
    let line = |n: usize| json!({"custom_id": n.to_string(), "body": body(n)});
    workspace.write_requests("in", &[250, 255, 256].map(line));
    workspace.assert_runs("in", "out", &["-q"]);
    let results = workspace.results("out");
    for name in ["250", "255"] {
        let usage = &results[name]["response"]["body"]["usage"];
        assert_eq!(usage["total_tokens"], 256, "{name}");
    }
    assert_eq!(results["256"]["error"]["code"], "context_length_exceeded");
}

/// As with ripgrep, whose reader has seen enough.
#[test]
fn a_closed_pipe_ends_a_run_quietly() {
    let workspace = Workspace::tiny();
    let endless =
        json!({"custom_id": "b", "body": {"prompt": "x", "max_tokens": -1, "ignore_eos": true}});
    let short = json!({"custom_id": "a", "body": {"prompt": "x", "max_tokens": 1}});
    workspace.write_requests("in", &[short, endless]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_hyperion"));
    command
        .arg("batch")
        .arg(&workspace.model)
        .arg(workspace.path("in"));
    command.args(["--device", "cpu", "--ctx", "32768"]);
    let run = command.stdout(writer).stderr(Stdio::piped()).spawn();
    let output = run.expect("a process").wait_with_output().expect("an end");
    assert_eq!(
        (output.status.code(), stderr(&output)),
        (Some(0), String::new())
    );
}

#[test]
fn other_results_are_refused_and_left_as_they_are() {
    let workspace = Workspace::tiny();
    workspace.write_requests("in", &requests(3));
    workspace.write_requests("other", &requests(4));
    workspace.assert_runs("in", "out", &["-q"]);
    let before = workspace.read("out");
    workspace.assert_refused(
        "other",
        "out",
        &[],
        "line 1, is not a result of these requests",
    );
    workspace.assert_refused("in", "out", &["--ctx", "512"], "line 1, is not a result");
    // Requests are no results.
    workspace.assert_refused("in", "in", &[], "line 1, is not a result");
    let other_model = Workspace {
        folder: workspace.folder,
        model: fixture("tiny/tiny-qwen3-q8_0-1.gguf"),
    };
    other_model.assert_refused("in", "out", &[], "line 1, is not a result");
    assert_eq!(other_model.read("out"), before);
    other_model.assert_refused("in", "new", &["--kv-tokens", "100"], "--kv-tokens");
}

/// A run of minutes, once it is under way.
fn long_run(workspace: &Workspace) -> Child {
    let endless = |name| json!({"custom_id": name, "body": {"prompt": "x", "max_tokens": -1, "ignore_eos": true}});
    let short = json!({"custom_id": "short", "body": {"prompt": "x", "max_tokens": 1}});
    workspace.write_requests("in", &[endless("a"), short, endless("b")]);
    let mut run = workspace.spawn("in", "out", &["-q", "--ctx", "100000"]);
    let start = Instant::now();
    while n_lines(&workspace.path("out")) < 1 {
        assert!(start.elapsed() < Duration::from_secs(60), "no result");
        assert_eq!(
            run.try_wait().expect("a process"),
            None,
            "it ended by itself"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    run
}

#[test]
fn two_at_a_time_do_not_write_one_file() {
    let workspace = Workspace::tiny();
    let mut run = long_run(&workspace);
    workspace.assert_refused(
        "in",
        "out",
        &["--ctx", "100000"],
        "is being written by another process",
    );
    run.kill().expect("killed");
    run.wait().expect("dead");
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_whole_lines() {
    let workspace = Workspace::tiny();
    let mut run = long_run(&workspace);
    let kill = Command::new("kill")
        .args(["-INT", &run.id().to_string()])
        .status();
    assert!(kill.expect("a signal").success());
    assert_eq!(run.wait().expect("an end").code(), Some(130));
    let results = workspace.results("out");
    assert_eq!(results.keys().collect::<Vec<_>>(), ["short"]);
}

#[test]
fn a_pipe_takes_and_gives_lines() {
    let workspace = Workspace::tiny();
    workspace.write_requests("in", &requests(20));
    workspace.assert_runs("in", "out", &["-q"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_hyperion"));
    command
        .arg("batch")
        .arg(&workspace.model)
        .args(["-", "-q", "--device", "cpu", "--ctx", "256"]);
    let pipes = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut run = pipes.spawn().expect("a process");
    let mut stdin = run.stdin.take().expect("a pipe");
    stdin.write_all(&workspace.read("in")).expect("requests");
    drop(stdin);
    let output = run.wait_with_output().expect("results");
    assert!(output.status.success(), "{}", stderr(&output));
    fs::write(workspace.path("piped"), output.stdout).expect("written");
    assert_eq!(
        workspace.sorted_lines("piped"),
        workspace.sorted_lines("out")
    );
}
