//! Who may ask: a web page must not reach a server on its visitor's machine.

use std::io::Write;

use serde_json::json;

use crate::server::{CHAT, JSON, Server, chat};

/// A small request.
fn body() -> Vec<u8> {
    chat("hi", json!({"max_tokens": 1}))
        .to_string()
        .into_bytes()
}

#[test]
fn a_rebound_name_is_refused() {
    let server = Server::start(&["--allowed-host", "llm.example"]);
    let port = server.address.port();
    let status = |method: &str, path: &str, host: &str| {
        server
            .ask(method, path, &[JSON, ("host", host)], &body())
            .status
    };
    for host in [
        "localhost".to_owned(),
        format!("localhost:{port}"),
        format!("127.0.0.1:{port}"),
        format!("[::1]:{port}"),
        "llm.example".to_owned(),
        "LLM.example:443".to_owned(),
    ] {
        assert_eq!(status("POST", CHAT, &host), 200, "{host}");
    }
    for host in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        "localhost.evil.example".to_owned(),
        "192.0.2.1".to_owned(),
        "".to_owned(),
        "localhost:x".to_owned(),
    ] {
        assert_eq!(status("POST", CHAT, &host), 403, "{host}");
        assert_eq!(status("GET", "/v1/models", &host), 403, "{host}");
        assert_eq!(status("GET", "/health", &host), 403, "{host}");
    }
    // The target counts as well as the header.
    assert_eq!(
        status("GET", "http://evil.example/health", "localhost"),
        403
    );
    // And every header of several.
    let hosts = [("host", "localhost"), ("host", "evil.example")];
    server.ask("GET", "/health", &hosts, b"").error(403);
    let error = server
        .ask("GET", "/health", &[("host", "evil.example")], b"")
        .error(403);
    assert_eq!(error["type"], "permission_error");
}

#[test]
fn forms_of_web_pages_are_refused() {
    let server = Server::start(&[]);
    for form in [
        "text/plain",
        "text/plain; charset=application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/jsonp",
        "",
    ] {
        server
            .ask("POST", CHAT, &[("content-type", form)], &body())
            .error(415);
    }
    server.ask("POST", CHAT, &[], &body()).error(415);
    let two = [JSON, ("content-type", "text/plain")];
    server.ask("POST", CHAT, &two, &body()).error(415);
    // Nor is a body unpacked, whatever it is said to be.
    let coded = |coding| server.ask("POST", CHAT, &[JSON, ("content-encoding", coding)], &body());
    coded("gzip").error(415);
    coded("identity").ok();
    for form in ["application/json", "Application/JSON; charset=utf-8"] {
        assert_eq!(
            server
                .ask("POST", CHAT, &[("content-type", form)], &body())
                .status,
            200
        );
    }
}

#[test]
fn foreign_origins_are_refused_unless_they_are_allowed() {
    let server = Server::start(&["--cors-origin", "https://page.example"]);
    let port = server.address.port();
    let host = format!("localhost:{port}");
    let ask = |method: &str, origin: &str| {
        let headers = [JSON, ("host", host.as_str()), ("origin", origin)];
        server.ask(method, CHAT, &headers, &body())
    };
    for foreign in [
        "https://evil.example",
        "null",
        "http://localhost:1",
        "http://page.example",
        "https://page.example.evil.example",
    ] {
        ask("POST", foreign).error(403);
        let preflight = ask("OPTIONS", foreign);
        assert_eq!(preflight.header("access-control-allow-origin"), None);
        preflight.error(403);
    }
    // Its own pages need no permission.
    let own = ask("POST", &format!("http://{host}"));
    assert_eq!(
        (own.status, own.header("access-control-allow-origin")),
        (200, None)
    );
    let allowed = ask("POST", "https://page.example");
    assert_eq!(allowed.status, 200);
    let headers = [
        ("host", host.as_str()),
        ("origin", "https://page.example"),
        ("access-control-request-method", "POST"),
        (
            "access-control-request-headers",
            "authorization, content-type",
        ),
    ];
    let preflight = server.ask("OPTIONS", CHAT, &headers, b"");
    assert_eq!(preflight.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://page.example"),
        (
            "access-control-allow-headers",
            "authorization, content-type",
        ),
        ("access-control-allow-methods", "GET, POST"),
        ("vary", "origin"),
    ] {
        assert_eq!(preflight.header(name), Some(value), "{name}");
    }
}

#[test]
fn a_key_is_needed_where_there_are_keys() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "two\n\n  three  ").expect("written");
    let path = file.path().to_str().expect("a path");
    let server = Server::start(&["--api-key", "one", "--api-key-file", path]);
    for header in [
        ("authorization", "Bearer one"),
        ("authorization", "bearer two"),
        ("x-api-key", "three"),
    ] {
        assert_eq!(
            server.ask("POST", CHAT, &[JSON, header], &body()).status,
            200,
            "{header:?}"
        );
    }
    for header in [
        ("authorization", "one"),
        ("authorization", "Basic one"),
        ("authorization", "Bearer "),
        ("x-api-key", "on"),
        ("x-other", "one"),
    ] {
        for (method, path) in [
            ("POST", CHAT),
            ("GET", "/v1/models"),
            ("GET", "/metrics"),
            ("GET", "/nowhere"),
        ] {
            let refused = server.ask(method, path, &[JSON, header], &body());
            assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
            assert_eq!(refused.error(401)["type"], "authentication_error");
        }
    }
    assert_eq!(server.get("/health").status, 200);
}
