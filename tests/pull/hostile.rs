//! Servers that lie.

use std::fs;

use super::server::{Faults, Server, description};
use super::{Machine, SPEC};

#[test]
fn headers_never_become_paths() {
    let server = Server::start(
        &["m.gguf"],
        Faults {
            headers: "ETag: \"../../../../victim\"\r\nX-Linked-Etag: \"/victim\"\r\n\
                      X-Repo-Commit: ../../../../victim\r\nX-Linked-Size: 3\r\n\
                      Content-Disposition: attachment; filename=../../victim\r\n",
            ..Faults::default()
        },
    );
    let machine = Machine::new(&server.endpoint);
    let victim = machine.folder.path().join("victim");
    fs::write(&victim, "mine").unwrap();
    machine.assert_fetched(&machine.pull(&[SPEC]), "m.gguf", &server);
    assert_eq!(fs::read(&victim).unwrap(), b"mine");
    let beside: Vec<_> = fs::read_dir(machine.folder.path())
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(beside.len(), 2, "the cache and the victim: {beside:?}");
}

#[test]
fn names_that_lead_elsewhere_are_no_files() {
    let names = [
        "../m.gguf",
        "/m.gguf",
        "a/../../m.gguf",
        "./m.gguf",
        "a//m.gguf",
        "m\u{1b}[2J.gguf",
    ];
    let server = Server::start(&names, Faults::default());
    let machine = Machine::new(&server.endpoint);
    machine.assert_failed(&machine.pull(&[SPEC]), &["owner/repo holds no GGUF file"]);
    let named = machine.pull(&["owner/repo:../m.gguf"]);
    machine.assert_failed(&named, &["holds no GGUF file"]);
}

#[test]
fn any_other_name_asks_for_its_own_url() {
    for name in [
        "a#b.gguf",
        "a?b=c.gguf",
        "a%2fb.gguf",
        "a\\b.gguf",
        "a b&+ü.gguf",
    ] {
        let server = Server::start(&[name, "a.gguf"], Faults::default());
        let machine = Machine::new(&server.endpoint);
        let output = machine.pull(&[&format!("owner/repo:{name}")]);
        machine.assert_fetched(&output, name, &server);
    }
    let server = Server::start(&["s/#?%\\ü.gguf"], Faults::default());
    let machine = Machine::new(&server.endpoint);
    machine.assert_fetched(&machine.pull(&[SPEC]), "#?%\\ü.gguf", &server);
    let target = &server.requests()[1].target;
    assert_eq!(target, "/owner/repo/resolve/main/s/%23%3F%25%5C%C3%BC.gguf");
}

#[test]
fn a_file_without_a_digest_is_not_fetched() {
    for file in [
        r#"{"rfilename": "m.gguf"}"#,
        r#"{"rfilename": "m.gguf", "size": 300000}"#,
        r#"{"rfilename": "m.gguf", "size": 300000, "lfs": {"sha256": "../../x"}}"#,
        r#"{"rfilename": "m.gguf", "lfs": {}, "blobId": "x"}"#,
    ] {
        let description = format!(r#"{{"siblings": [{file}]}}"#);
        let server = Server::start_below("", &description, Faults::default());
        let machine = Machine::new(&server.endpoint);
        machine.assert_failed(&machine.pull(&[SPEC]), &["size and digest of m.gguf"]);
        assert_eq!(server.storage_requests().len(), 0);
    }
}

#[test]
fn small_files_are_verified_by_their_git_name() {
    // `git hash-object` of the content.
    let right = "b98fad266a39b37c24b009cf6e59608478f3608a";
    for (oid, is_right) in [
        (right, true),
        ("008fad266a39b37c24b009cf6e59608478f3608a", false),
    ] {
        let description = format!(
            r#"{{"siblings": [{{"rfilename": "m.gguf", "size": 300000, "blobId": "{oid}"}}]}}"#
        );
        let server = Server::start_below("", &description, Faults::default());
        let machine = Machine::new(&server.endpoint);
        let output = machine.pull(&[SPEC]);
        match is_right {
            true => machine.assert_fetched(&output, "m.gguf", &server),
            false => machine.assert_failed(&output, &["m.gguf", oid]),
        }
    }
}

#[test]
fn more_than_announced_is_refused() {
    let server = Server::start(
        &["m.gguf"],
        Faults {
            endless: true,
            ..Faults::default()
        },
    );
    let machine = Machine::new(&server.endpoint);
    let output = machine.pull(&[SPEC]);
    machine.assert_failed(&output, &["more than 300000 bytes"]);
    let size = description(&["m.gguf"]).replace("300000", "300001");
    let server = Server::start_below("", &size, Faults::default());
    let machine = Machine::new(&server.endpoint);
    machine.assert_failed(&machine.pull(&[SPEC]), &["1 bytes before the end"]);
}

#[test]
fn nonsense_is_said_to_be_nonsense() {
    for answer in [
        "",
        "<html>",
        "[]",
        "{}",
        r#"{"siblings": "\u001b[2J"}"#,
        r#"{"siblings": [7]}"#,
    ] {
        let server = Server::start_below("", answer, Faults::default());
        let machine = Machine::new(&server.endpoint);
        let output = machine.pull(&[SPEC]);
        machine.assert_failed(&output, &["makes no sense"]);
        assert!(!output.stderr.contains(&0x1b), "{output:?}");
    }
}

#[test]
fn redirects_to_nowhere_end() {
    for (location, words) in [
        ("/owner/repo/resolve/main/m.gguf", "redirects for ever"),
        ("file:///etc/passwd", "redirects to nowhere"),
        ("ftp://127.0.0.1/m.gguf", "redirects to nowhere"),
        ("http://", "redirects to nowhere"),
    ] {
        let server = Server::start(
            &["m.gguf"],
            Faults {
                location: Some(location),
                ..Faults::default()
            },
        );
        let machine = Machine::new(&server.endpoint);
        machine.assert_failed(&machine.pull(&[SPEC]), &[words]);
        assert!(server.requests().len() < 20, "{location}");
    }
}
