//! The chat page: what it may do is bound by its own policy.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::server::Server;

/// The text between `open` and `close`, which are there once.
fn between<'a>(text: &'a str, open: &str, close: &str) -> &'a str {
    assert_eq!(text.matches(open).count(), 1, "{open}");
    assert_eq!(text.matches(close).count(), 1, "{close}");
    let (_, rest) = text.split_once(open).expect("the beginning");
    rest.split_once(close).expect("the end").0
}

fn source(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

#[test]
fn the_page_runs_its_own_script_and_no_other() {
    let server = Server::start(&[]);
    let reply = server.get("/");
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
    let page = reply.text();
    let script = between(page, "<script type=\"module\">", "</script>");
    let style = between(page, "<style>", "</style>");
    let policy = reply.header("content-security-policy").expect("a policy");
    let directives: Vec<&str> = policy.split("; ").collect();
    for expected in [
        "default-src 'none'",
        &format!("script-src {}", source(script)),
        &format!("style-src {}", source(style)),
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(directives.contains(&expected), "{expected} in {policy}");
    }
    // Nothing that the policy would refuse.
    assert!(!page.contains("style=\""));
    assert!(!script.contains("innerHTML") && !script.contains("eval("));
}

#[test]
fn browsers_that_want_an_icon_get_none_and_no_error() {
    let server = Server::start(&["--api-key", "k"]);
    let reply = server.get("/favicon.ico");
    assert_eq!((reply.status, reply.body.len()), (204, 0));
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let page = Server::start(&[]).get("/").text().to_owned();
    for reference in [" src=", "<link", "url(", "@import", "import ", "import("] {
        assert!(!page.contains(reference), "{reference}");
    }
    // Only the beginning of an address that is looked for in texts.
    let mut addresses = page.split("://").skip(1);
    assert!(addresses.all(|rest| !rest.starts_with(char::is_alphanumeric)));
}

#[test]
fn the_page_needs_no_key_but_a_host_of_the_servers() {
    let server = Server::start(&["--api-key", "secret"]);
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.get("/v1/loads").status, 401);
    let rebound = server.ask("GET", "/", &[("host", "evil.example")], b"");
    rebound.error(403);
}
