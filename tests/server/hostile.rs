//! Clients that mean no good: the server stays up, answers `/health`, and holds nothing for them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Connection, request_bytes};
use crate::server::{CHAT, JSON, Server, TEXT, chat, endless, with};

const SOON: Duration = Duration::from_secs(2);

fn assert_well(server: &Server) {
    assert_eq!(server.get("/health").status, 200);
    server.assert_idle_within(SOON);
}

#[test]
fn bodies_that_are_no_requests_are_refused() {
    let server = Server::start(&["--max-body", "1"]);
    let nested = |open: &str, n: usize| open.repeat(n);
    let large = format!("{{\"prompt\": \"{}\"}}", "a".repeat(1 << 20));
    for (body, status) in [
        (b"".to_vec(), 400),
        (b"{".to_vec(), 400),
        (b"[]".to_vec(), 400),
        (b"null".to_vec(), 400),
        (b"\"text\"".to_vec(), 400),
        (b"{} {}".to_vec(), 400),
        (b"{\"prompt\": 1e999}".to_vec(), 400),
        (b"{\"prompt\": NaN}".to_vec(), 400),
        (b"{\"prompt\": \"\xff\xfe\"}".to_vec(), 400),
        (b"{\"prompt\": \"\\ud800\"}".to_vec(), 400),
        (b"\xff\xfe{\x00}\x00".to_vec(), 400),
        (nested("[", 500_000).into_bytes(), 400),
        (nested("{\"a\":", 150_000).into_bytes(), 400),
        (
            format!("{{\"messages\": {}{}}}", nested("[", 100), nested("]", 100)).into_bytes(),
            400,
        ),
        (large.into_bytes(), 413),
    ] {
        for path in [
            CHAT,
            TEXT,
            "/v1/embeddings",
            "/tokenize",
            "/detokenize",
            "/apply-template",
        ] {
            let reply = server.ask("POST", path, &[JSON], &body);
            let error = reply.error(status);
            let message = error["message"].as_str().expect("a message");
            assert!(message.len() < 500, "{message}");
        }
    }
    // A length that promises more than is allowed is refused before anything is sent.
    let mut connection = Connection::open(server.address);
    let length = ("content-length", "99999999999");
    connection.send(&request_bytes("POST", CHAT, &[JSON, length], b"{"));
    assert_eq!(connection.head().0, 413);
    // Chunks have no length in advance.
    let mut connection = Connection::open(server.address);
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    connection.send(head.as_bytes());
    let chunk = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
    for _ in 0..40 {
        connection.send(chunk.as_bytes());
    }
    assert_eq!(connection.head().0, 413);
    assert_well(&server);
}

/// Fields of requests, with a value that is right.
fn fields() -> Vec<(&'static str, Value)> {
    vec![
        ("temperature", json!(0.5)),
        ("top_k", json!(5)),
        ("top_p", json!(0.5)),
        ("min_p", json!(0.1)),
        ("typical_p", json!(0.9)),
        ("repeat_penalty", json!(1.1)),
        ("repeat_last_n", json!(5)),
        ("presence_penalty", json!(0.1)),
        ("frequency_penalty", json!(0.1)),
        ("logit_bias", json!({"5": 1})),
        ("seed", json!(1)),
        ("stop", json!(["x"])),
        ("max_tokens", json!(1)),
        ("n", json!(1)),
        ("ignore_eos", json!(true)),
        ("stream", json!(false)),
        ("model", json!("m")),
    ]
}

#[test]
fn every_field_of_every_wrong_type_is_named() {
    let server = Server::start(&[]);
    let wrong = [
        json!("x"),
        json!(5.5),
        json!(true),
        json!([[]]),
        json!({"a": {}}),
        json!(-7e30),
    ];
    for (path, base) in [
        (CHAT, chat("hi", json!({"max_tokens": 1}))),
        (TEXT, json!({"prompt": "hi", "max_tokens": 1})),
    ] {
        for (name, right) in fields() {
            server
                .post(path, &with(base.clone(), json!({ name: right })))
                .ok();
            let refused = wrong.iter().filter(|wrong| {
                let body = with(base.clone(), json!({ name: wrong }));
                let reply = server.post(path, &body);
                if reply.status == 200 {
                    return false;
                }
                let error = reply.error(400);
                let param = error["param"].as_str().unwrap_or_default();
                assert!(param.starts_with(name), "{path} {name}: {error}");
                true
            });
            assert!(refused.count() >= 3, "{name} takes anything");
        }
        let unknown = server
            .post(path, &with(base.clone(), json!({"unheard_of": 1})))
            .error(400);
        assert_eq!(unknown["param"], "unheard_of");
        server
            .post(path, &with(base, json!({"unheard_of": null})))
            .ok();
    }
    assert_well(&server);
}

/// Schemas that are small to write and large to keep to.
#[test]
fn schemas_do_not_hold_the_server_up() {
    let server = Server::start(&[]);
    let shallow = (0..6).fold(
        json!({"type": "string"}),
        |inner, _| json!({"anyOf": [inner, inner, {"type": "array", "items": inner}]}),
    );
    let names: Vec<String> = (0..5000).map(|n| format!("name{n}")).collect();
    for schema in [
        shallow,
        json!({"enum": names}),
        json!({"type": "string", "pattern": "^(a?){200}a{200}$"}),
        json!({"type": "string", "pattern": "^((((a{100}){100}){100}){100})$"}),
        json!({"type": "string", "minLength": 100_000_000}),
        json!({"type": "array", "minItems": 1_000_000, "items": {"type": "integer"}}),
        json!({"$ref": "#"}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        json!({"allOf": vec![json!({"properties": {"a": {"type": "integer"}}}); 2000]}),
        json!({"multipleOf": 1e-300}),
    ] {
        let format = json!({"type": "json_schema", "json_schema": {"name": "s", "schema": schema}});
        let asked = chat("hi", json!({"max_tokens": 2, "response_format": format}));
        let start = Instant::now();
        let reply = server.post(CHAT, &asked);
        assert!(
            [200, 400].contains(&reply.status),
            "{} {schema}",
            reply.text()
        );
        assert!(start.elapsed() < Duration::from_secs(10), "{schema}");
    }
    assert_well(&server);
}

#[test]
fn lines_that_are_no_http_are_refused() {
    let server = Server::start(&[]);
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        b"\r\n\r\n\r\n",
    ] {
        let mut connection = Connection::open(server.address);
        connection.send(bytes);
        connection.send(&vec![b'a'; 1 << 16]);
        let line = connection.line();
        assert!(line.is_none_or(|line| line.contains(" 400 ") || line.contains(" 4")));
    }
    // A head that never ends.
    let mut connection = Connection::open(server.address);
    connection.send(b"GET /health HTTP/1.1\r\nhost: localhost\r\n");
    let filler = format!("x-filler: {}\r\n", "a".repeat(8000));
    while connection.send(filler.as_bytes()) {}
    assert_well(&server);
}

#[test]
fn a_slow_sender_is_not_waited_for() {
    let server = Server::start(&["--max-connections", "1"]);
    let mut connection = Connection::open(server.address);
    connection.send(b"POST /v1/completions HTTP/1.1\r\nhost: loc");
    let start = Instant::now();
    while connection.line().is_some() {}
    let waited = start.elapsed();
    assert!(
        waited > Duration::from_secs(5) && waited < Duration::from_secs(20),
        "{waited:?}"
    );
    assert_well(&server);
}

#[test]
fn a_thousand_clients_that_leave_at_random_moments_leave_nothing_behind() {
    const CLIENTS: u64 = 1000;
    const THREADS: u64 = 8;
    let server = Server::start(&["--ctx", "2000", "--max-queue", "64"]);
    let leave = |thread: u64| {
        for client in 0..CLIENTS / THREADS {
            // Any mixture of moments will do; this one is the same each time.
            let moment = (client * THREADS + thread).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let body = match client % 3 {
                0 => endless(),
                1 => with(endless(), json!({"stream": false, "n": 2})),
                _ => json!({"prompt": vec![moment % 100; 500], "stream": true}),
            };
            let body = body.to_string();
            let bytes = request_bytes("POST", TEXT, &[JSON], body.as_bytes());
            let mut connection = Connection::open(server.address);
            let sent = match client % 5 {
                0 => &bytes[..bytes.len() * (moment % 100) as usize / 100],
                _ => &bytes[..],
            };
            connection.send(sent);
            std::thread::sleep(Duration::from_micros(moment % 8000));
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || leave(thread));
        }
    });
    assert_well(&server);
    server.post(TEXT, &json!({"prompt": "x"})).ok();
}
