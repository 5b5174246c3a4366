//! What lies between this machine and the Hub: tokens, proxies, mirrors, silence.

use std::fs;
use std::process::Output;
use std::time::Instant;

use super::server::{Faults, Proxy, Request, Server, description};
use super::{Machine, SPEC};

const TOKEN: &str = "hf_secretsecret";

/// Of each request, whether it had a token.
fn authorized(requests: &[Request]) -> Vec<bool> {
    let is_there = |request: &Request| request.headers.contains_key("authorization");
    requests.iter().map(is_there).collect()
}

#[track_caller]
fn assert_secret(output: &Output) {
    let text = format!("{output:?}");
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn the_token_goes_to_the_endpoint_alone() {
    let server = Server::start(&["m.gguf"], Faults::default());
    let machine = Machine::new(&server.endpoint);
    let output = machine.pull_with(&[("HF_TOKEN", TOKEN)], &[SPEC]);
    machine.assert_fetched(&output, "m.gguf", &server);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert_eq!(request.headers["authorization"], format!("Bearer {TOKEN}"));
    }
    assert_eq!(authorized(&server.storage_requests()), [false]);
    assert_secret(&output);
}

#[test]
fn the_token_file_of_other_tools_is_read() {
    let server = Server::start(&["m.gguf"], Faults::default());
    let machine = Machine::new(&server.endpoint);
    let folder = machine.folder.path().join(".cache/huggingface");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("token"), format!("{TOKEN}\n")).unwrap();
    machine.assert_fetched(&machine.pull(&[SPEC]), "m.gguf", &server);
    assert_eq!(authorized(&server.requests()), [true; 2]);
}

#[test]
fn no_message_shows_a_secret() {
    let faults = [
        ("401 Unauthorized", "owner/repo"),
        ("500 Internal Server Error", "status 500"),
        ("418 I'm a teapot", "status 418"),
        ("999 hf_secretsecret", ""),
    ];
    for (refusal, words) in faults {
        let server = Server::start(
            &["m.gguf"],
            Faults {
                refusals: 9,
                refusal,
                headers: "Retry-After: 0\r\nWWW-Authenticate: hf_secretsecret\r\n",
                ..Faults::default()
            },
        );
        let machine = Machine::new(&server.endpoint);
        let output = machine.pull_with(&[("HF_TOKEN", TOKEN)], &[SPEC]);
        machine.assert_failed(&output, &[words]);
        assert_secret(&output);
    }
    let server = Server::start(
        &["m.gguf"],
        Faults {
            location: Some("http://127.0.0.1:9/secret?token=hf_secretsecret"),
            ..Faults::default()
        },
    );
    let machine = Machine::new(&server.endpoint);
    let output = machine.pull_with(&[("HF_TOKEN", TOKEN)], &[SPEC]);
    machine.assert_failed(&output, &["cannot fetch m.gguf"]);
    assert_secret(&output);
    let output = machine.pull_with(&[("HF_TOKEN", "hf_secret\r\nx: y")], &[SPEC]);
    machine.assert_failed(&output, &["HF_TOKEN"]);
    assert_secret(&output);
    let endpoint = [("HF_ENDPOINT", "http://user:secret@127.0.0.1:9")];
    let output = machine.pull_with(&endpoint, &[SPEC]);
    machine.assert_failed(&output, &["HF_ENDPOINT"]);
    assert_secret(&output);
}

#[test]
fn a_mirror_may_be_below_a_path_and_send_files_itself() {
    let faults = Faults {
        direct: true,
        ..Faults::default()
    };
    let server = Server::start_below("/some/prefix", &description(&["m.gguf"]), faults);
    for slash in ["", "/"] {
        let machine = Machine::new(&format!("{}{slash}", server.endpoint));
        machine.assert_fetched(&machine.pull(&[SPEC]), "m.gguf", &server);
    }
    assert_eq!(server.storage_requests().len(), 0);
}

#[test]
fn silence_ends() {
    let server = Server::start(
        &["m.gguf"],
        Faults {
            stalled_transfers: 1,
            silent_descriptions: 1,
            ..Faults::default()
        },
    );
    let machine = Machine::new(&server.endpoint);
    machine.assert_fetched(&machine.pull(&[SPEC]), "m.gguf", &server);
    assert_eq!(
        server.ranges(),
        ["", "bytes=100000-"],
        "it goes on where it stalled"
    );

    server.set_faults(Faults {
        stalled_transfers: 9,
        ..Faults::default()
    });
    let machine = Machine::new(&server.endpoint);
    machine.assert_failed(&machine.pull(&[SPEC]), &["m.gguf", "in time"]);
    server.set_faults(Faults {
        silent_descriptions: 9,
        ..Faults::default()
    });
    machine.assert_failed(&machine.pull(&[SPEC]), &["owner/repo", "in time"]);
}

#[test]
fn a_few_bytes_at_a_time_are_silence_too() {
    let server = Server::start(
        &["m.gguf"],
        Faults {
            dripping: true,
            ..Faults::default()
        },
    );
    let machine = Machine::new(&server.endpoint);
    machine.assert_failed(&machine.pull(&[SPEC]), &["m.gguf", "next to nothing"]);
}

#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    for refusal in ["429 Too Many Requests", "503 Service Unavailable"] {
        let server = Server::start(
            &["m.gguf"],
            Faults {
                refusals: 1,
                refusal,
                headers: "Retry-After: 2\r\n",
                ..Faults::default()
            },
        );
        let machine = Machine::new(&server.endpoint);
        let started = Instant::now();
        machine.assert_fetched(&machine.pull(&[SPEC]), "m.gguf", &server);
        assert!(started.elapsed().as_secs_f64() >= 2.0);
    }
}

#[test]
fn proxies_are_used_as_curl_uses_them() {
    let server = Server::start(&["m.gguf"], Faults::default());
    let proxy = Proxy::start();
    let url = format!("http://us%40er:secret@{}", proxy.address);
    for variable in ["http_proxy", "all_proxy", "ALL_PROXY"] {
        let machine = Machine::new(&server.endpoint);
        let before = proxy.requests().len();
        let output = machine.pull_with(&[(variable, &url)], &[SPEC]);
        machine.assert_fetched(&output, "m.gguf", &server);
        let requests = proxy.requests().split_off(before);
        assert_eq!(requests.len(), 3, "{variable}: {requests:?}");
        for request in &requests {
            // The base64 of `us@er:secret`.
            let credentials = &request.headers["proxy-authorization"];
            assert_eq!(credentials, "Basic dXNAZXI6c2VjcmV0");
        }
        assert!(
            requests[0]
                .target
                .starts_with(&format!("{}/api/", server.endpoint))
        );
        assert_eq!(
            requests[0].headers["host"],
            server.endpoint["http://".len()..]
        );
    }

    let before = proxy.requests().len();
    let direct: [&[(&str, &str)]; 5] = [
        &[("HTTP_PROXY", &url)],
        &[("https_proxy", &url)],
        &[("http_proxy", &url), ("no_proxy", "127.0.0.1")],
        &[("ALL_PROXY", &url), ("NO_PROXY", "hub.example,127.0.0.0/8")],
        &[("http_proxy", &url), ("NO_PROXY", "*")],
    ];
    for variables in direct {
        let machine = Machine::new(&server.endpoint);
        let output = machine.pull_with(variables, &[SPEC]);
        machine.assert_fetched(&output, "m.gguf", &server);
    }
    assert_eq!(proxy.requests().len(), before, "no proxy is asked");
}

#[test]
fn a_proxy_that_fails_is_not_gone_around() {
    let server = Server::start(&["m.gguf"], Faults::default());
    let machine = Machine::new(&server.endpoint);
    for proxy in [
        "http://u:secret@127.0.0.1:9",
        "socks5://127.0.0.1:9",
        "ftp://u:secret@p",
    ] {
        let output = machine.pull_with(&[("http_proxy", proxy)], &[SPEC]);
        machine.assert_failed(&output, &["cannot fetch owner/repo"]);
        assert_secret(&output);
    }
    // An https endpoint goes through a tunnel, which this proxy does not know.
    let proxy = Proxy::start();
    let machine = Machine::new("https://hub.example");
    let url = format!("http://{}", proxy.address);
    let output = machine.pull_with(&[("HTTPS_PROXY", &url)], &[SPEC]);
    machine.assert_failed(&output, &["cannot fetch owner/repo"]);
    assert_eq!(proxy.requests()[0].target, "hub.example:443");
}
