//! A server of a tiny model on the CPU, in a process of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use hyperion::gguf::Value as GgufValue;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::client::{Connection, Reply, request_bytes};
use crate::support::{broken, fixture_bytes};

pub const TINY: &str = "tiny/tiny-llama-q4_k_m-1.gguf";
pub const JSON: (&str, &str) = ("content-type", "application/json");
pub const CHAT: &str = "/v1/chat/completions";
pub const TEXT: &str = "/v1/completions";

/// A tiny model with a chat template.
pub fn model() -> PathBuf {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    let write = || {
        let template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}\
                        {% if add_generation_prompt %}bot: {% endif %}";
        let mut file = broken::read(&fixture_bytes(TINY));
        let key = "tokenizer.chat_template".to_owned();
        file.metadata
            .push((key, GgufValue::String(template.to_owned())));
        let folder = env!("CARGO_TARGET_TMPDIR");
        let path = PathBuf::from(folder).join("served.gguf");
        let partial = NamedTempFile::new_in(folder).expect("scratch file");
        fs::write(partial.path(), file.to_bytes()).expect("a model");
        partial.persist(&path).expect("renamed");
        path
    };
    MODEL.get_or_init(write).clone()
}

pub struct Server {
    process: Child,
    pub address: SocketAddr,
}

impl Server {
    /// A server with a context of 256 tokens, unless `args` say otherwise.
    pub fn start(args: &[&str]) -> Server {
        Server::start_with(args, Stdio::null())
    }

    /// The same, whose log goes to `log`.
    pub fn start_with(args: &[&str], log: Stdio) -> Server {
        let mut process = command(args)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("a process");
        let stdout = process.stdout.take().expect("a pipe");
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the ready line");
        let address = line.trim_end().rsplit("http://").next();
        let address = address.and_then(|address| address.parse().ok());
        Server {
            process,
            address: address.unwrap_or_else(|| panic!("no address in {line:?}")),
        }
    }

    pub fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask("POST", path, &[JSON], body.to_string().as_bytes())
    }

    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut connection = Connection::open(self.address);
        // One that answers early may close before it has read everything.
        connection.send(&request_bytes(method, path, headers, body));
        connection.reply()
    }

    /// Sends a request, and leaves its response unread.
    pub fn open(&self, path: &str, body: &Value) -> Connection {
        let mut connection = Connection::open(self.address);
        let body = body.to_string();
        let sent = connection.send(&request_bytes("POST", path, &[JSON], body.as_bytes()));
        assert!(sent, "nobody listens");
        connection
    }

    /// The events of a stream, all of them.
    pub fn stream(&self, path: &str, body: &Value) -> Vec<String> {
        let mut body = body.clone();
        body["stream"] = json!(true);
        let mut connection = self.open(path, &body);
        let (status, headers) = connection.head();
        assert_eq!(status, 200, "{headers:?}");
        let is_stream = |(name, value): &(String, String)| {
            name == "content-type" && value == "text/event-stream"
        };
        assert!(headers.iter().any(is_stream), "{headers:?}");
        std::iter::from_fn(|| connection.event()).collect()
    }

    /// The metric `name`, of whatever labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text().to_owned();
        let of_name = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        let line = text.lines().find(of_name);
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        let value = line.rsplit(' ').next().expect("a value");
        value.parse().expect("a number")
    }

    /// Waits until nothing runs or waits and no page is held.
    pub fn assert_idle_within(&self, limit: Duration) {
        let start = Instant::now();
        loop {
            let held = [
                "hyperion_requests_running",
                "hyperion_requests_waiting",
                "hyperion_kv_pages_used",
            ]
            .map(|name| self.metric(name));
            if held == [0.0; 3] {
                return;
            }
            assert!(start.elapsed() < limit, "still {held:?} after {limit:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until `metric` is at least `least`.
    pub fn wait_for(&self, metric: &str, least: f64) {
        let start = Instant::now();
        while self.metric(metric) < least {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{metric} stays below {least}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let kill = Command::new("kill").args([name, &pid]).status();
        assert!(kill.expect("a signal").success());
    }

    /// The exit code, which comes within `limit`.
    pub fn exit_code(&mut self, limit: Duration) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("a process") {
                return status.code();
            }
            assert!(start.elapsed() < limit, "it runs on after {limit:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server on a free port, unless `args` say otherwise.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hyperion"));
    command.arg("serve").arg(model()).args(["--device", "cpu"]);
    for (name, value) in [("--ctx", "256"), ("--port", "0"), ("--threads", "1")] {
        if !args.contains(&name) {
            command.args([name, value]);
        }
    }
    command.args(args).env_remove("HYPERION_API_KEYS");
    command.stdin(Stdio::null());
    command
}

/// A conversation with the fields of `more`.
pub fn chat(text: &str, more: Value) -> Value {
    with(
        json!({"messages": [{"role": "user", "content": text}]}),
        more,
    )
}

/// `body` with the fields of `more`.
pub fn with(mut body: Value, more: Value) -> Value {
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

/// A request that goes on for minutes, where the context is large enough.
pub fn endless() -> Value {
    json!({"prompt": "x", "max_tokens": -1, "ignore_eos": true, "stream": true})
}
