//! How a server starts and ends.

use std::net::TcpListener;
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use hyperion::server::{self, Loaded};
use serde_json::{Value, json};

use crate::client::{Connection, request_bytes};
use crate::in_process::{ask, config, health, loaded, on_cpu, start};
use crate::server::{CHAT, JSON, Server, TEXT, chat, command, endless};

#[test]
fn a_port_in_use_is_told_in_one_line() {
    let server = Server::start(&[]);
    let port = server.address.port().to_string();
    let second = command(&["--port", &port]).output().expect("a run");
    assert_eq!(second.status.code(), Some(1));
    assert!(second.stdout.is_empty());
    let error = String::from_utf8(second.stderr).expect("a text");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains(&port) && error.contains("in use"), "{error}");
}

#[test]
fn a_model_that_cannot_be_loaded_ends_the_server() {
    let run = command(&["--kv-tokens", "100"]).output().expect("a run");
    assert_eq!(run.status.code(), Some(1));
    assert!(run.stdout.is_empty());
    let error = String::from_utf8(run.stderr).expect("a text");
    assert!(error.contains("--kv-tokens"), "{error}");
}

/// An answer of some seconds.
fn long() -> Value {
    json!({"prompt": "x", "max_tokens": 3000, "ignore_eos": true, "stream": true})
}

#[cfg(unix)]
#[test]
fn what_runs_is_completed_before_the_end() {
    let mut server = Server::start(&["--ctx", "4000"]);
    let mut connection = server.open(TEXT, &long());
    assert_eq!(connection.head().0, 200);
    connection.event().expect("a token");
    let idle = Connection::open(server.address);
    server.signal("-TERM");
    let start = Instant::now();
    while server.get("/health").status != 503 {
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "it is still healthy"
        );
    }
    server.post(TEXT, &json!({"prompt": "x"})).error(503);
    let events: Vec<String> = std::iter::from_fn(|| connection.event()).collect();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    assert!(events.len() > 100, "it ended early");
    drop(idle);
    assert_eq!(server.exit_code(Duration::from_secs(15)), Some(0));
}

#[cfg(unix)]
#[test]
fn a_second_signal_ends_it_at_once() {
    for signal in ["-TERM", "-INT"] {
        let mut server = Server::start(&["--ctx", "100000"]);
        let mut connection = server.open(TEXT, &endless());
        assert_eq!(connection.head().0, 200);
        server.signal(signal);
        while server.get("/health").status != 503 {}
        server.signal(signal);
        assert_eq!(server.exit_code(Duration::from_secs(5)), Some(130));
    }
}

#[cfg(unix)]
#[test]
fn an_idle_server_ends_at_once() {
    let mut server = Server::start(&[]);
    server.signal("-INT");
    assert_eq!(server.exit_code(Duration::from_secs(2)), Some(0));
}

#[test]
fn the_log_tells_of_requests_and_not_what_users_wrote() {
    for (format, prompts) in [("json", false), ("json", true), ("text", false)] {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let file = log.reopen().expect("a file");
        let mut args = vec!["--log-format", format];
        args.extend(prompts.then_some("--log-prompts"));
        let server = Server::start_with(&args, Stdio::from(file));
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let parent = format!("00-{trace}-b7ad6b7169203331-01");
        let body = json!({"prompt": "secret words", "max_tokens": 2, "ignore_eos": true});
        let headers = [
            JSON,
            ("traceparent", parent.as_str()),
            ("x-request-id", "my-name"),
        ];
        let reply = server.ask("POST", TEXT, &headers, body.to_string().as_bytes());
        assert_eq!(reply.status, 200);
        drop(server);
        let text = std::fs::read_to_string(log.path()).expect("a log");
        assert!(text.contains(trace) && text.contains("my-name"), "{text}");
        assert_eq!(text.contains("secret words"), prompts, "{text}");
        if format == "json" {
            let lines = text
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
            let answered = lines.into_iter().find(|line| line["message"] == "answered");
            let answered = answered.expect("a line on the answer");
            assert_eq!(answered["completion_tokens"], 2);
            assert_eq!(answered["span"]["id"], "my-name");
        }
    }
}

#[test]
fn nothing_is_answered_while_the_model_is_loaded() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let (go, wait) = channel::<()>();
    let (ready, is_ready) = channel();
    std::thread::spawn(move || {
        let load = move || -> Result<Loaded, String> {
            wait.recv().map_err(|error| error.to_string())?;
            Ok(loaded(on_cpu))
        };
        let config = config(address.port(), Duration::from_secs(5));
        server::run(config, load, move |address| {
            ready.send(address).expect("somebody waits")
        })
    });
    let start = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "nobody listens");
    }
    assert_eq!(health(address), 503);
    let refused = ask(address, &json!({"prompt": "x"})).reply();
    assert_eq!(refused.error(503)["message"], "the model is being loaded");
    go.send(()).expect("it waits");
    assert_eq!(is_ready.recv(), Ok(address));
    assert_eq!(health(address), 200);
    assert_eq!(ask(address, &json!({"prompt": "x"})).reply().status, 200);
}

#[test]
fn a_connection_may_rest_for_longer_than_a_head_may_take() {
    const HEAD: Duration = Duration::from_millis(200);
    let mut config = config(0, Duration::from_secs(5));
    config.limits.head_time = HEAD;
    let (address, _run) = start(config.clone(), on_cpu);
    let asked = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut connection = Connection::open(address);
    for _ in 0..2 {
        // Also before its first request.
        std::thread::sleep(5 * HEAD);
        assert!(connection.send(asked));
        assert_eq!(connection.next_reply().status, 200);
    }
    // Not in the middle of a head, however long it rested before.
    std::thread::sleep(2 * HEAD);
    let start = Instant::now();
    assert!(connection.send(&asked[..10]));
    assert_eq!(connection.rest(), 0, "no answer to half a request");
    assert!(start.elapsed() >= HEAD);
    // And not for ever.
    config.limits.idle_time = 2 * HEAD;
    let (address, _run) = self::start(config, on_cpu);
    let start = Instant::now();
    assert_eq!(Connection::open(address).rest(), 0);
    assert!(start.elapsed() >= 2 * HEAD);
}

#[test]
fn a_client_that_does_not_read_is_dropped() {
    let mut config = config(0, Duration::from_millis(300));
    config.limits.connections = 1;
    config.limits.body_bytes = 8 << 20;
    let (address, _run) = start(config, on_cpu);
    // Its response is larger than what the operating system keeps for a reader.
    let asked = json!({"content": "ab ".repeat(1 << 18), "with_pieces": true});
    let mut connection = Connection::open(address);
    let asked = asked.to_string();
    connection.send(&request_bytes(
        "POST",
        "/tokenize",
        &[JSON],
        asked.as_bytes(),
    ));
    let (status, headers) = connection.head();
    assert_eq!(status, 200);
    let promised = headers.iter().find(|(name, _)| name == "content-length");
    let promised: usize = promised
        .and_then(|(_, n)| n.parse().ok())
        .expect("a length");
    // It is the only connection, until it is dropped.
    let start = Instant::now();
    while ask(address, &json!({"prompt": "x"})).reply().status != 200 {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "it is still waited for"
        );
    }
    let came = connection.rest();
    assert!(came < promised, "{came} of {promised} bytes came");
}

/// The operating system keeps some megabytes for it, then the server some tokens, then it is too far behind.
#[test]
fn a_client_that_reads_too_slowly_loses_its_answer() {
    let (address, _run) = start(config(0, Duration::from_secs(3600)), on_cpu);
    let body = chat(
        "x",
        json!({"stream": true, "ignore_eos": true, "logprobs": true, "top_logprobs": 20}),
    );
    let mut connection = Connection::open(address);
    let body = body.to_string();
    connection.send(&request_bytes("POST", CHAT, &[JSON], body.as_bytes()));
    assert_eq!(connection.head().0, 200);
    let start = Instant::now();
    loop {
        let mut metrics = Connection::open(address);
        metrics.send(&request_bytes("GET", "/metrics", &[], b""));
        let metrics = metrics.reply();
        if metrics.text().contains("hyperion_cancellations_total 1") {
            break;
        }
        assert!(
            start.elapsed() < Duration::from_secs(40),
            "it is still waited for"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    // What it reads after all says so.
    let events: Vec<String> = std::iter::from_fn(|| connection.event()).collect();
    let last: Value = serde_json::from_str(events.last().expect("an event")).expect("JSON");
    assert_eq!(last["error"]["type"], "server_error");
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let (address, _run) = start(config(0, Duration::from_secs(5)), on_cpu);
    let mut connection = Connection::open(address);
    let length = ("content-length", "100");
    connection.send(&request_bytes("POST", TEXT, &[JSON, length], b"{"));
    connection.reply().error(408);
}
