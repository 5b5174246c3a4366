//! The official Python clients against a server with the default model, their validation of responses strict. The
//! scripts run beside each other, so that each one's answers come from batches with the others'.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

const SCRIPTS: [&str; 5] = [
    "anthropic_messages.py",
    "openai_chat.py",
    "openai_completions.py",
    "openai_others.py",
    "openai_responses.py",
];

/// A server that ends with its owner.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start() -> Server {
        let model = support::model("smollm2");
        let mut child = Command::new(env!("CARGO_BIN_EXE_hyperion"))
            .arg("serve")
            .arg(model)
            // The texts that the scripts expect are the reference's.
            .args(["--device", "cpu", "--activations", "f16"])
            .args(["--port", "0", "--parallel", "8"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a server");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("a line");
        let address = line.split_whitespace().last().unwrap_or_default();
        Server {
            address: address.to_owned(),
            child,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `script` against `address`: what it says, and whether all was well.
fn run(script: &str, address: &str) -> (String, bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let requirements = fs::read_to_string(folder.join("requirements.txt")).expect("a list");
    let cache = model_cache::Cache::from_env().expect("a cache folder");
    let packages = cache.path_of_python(&requirements).expect("python3");
    assert!(
        packages.is_dir(),
        "{} is missing; `cargo xtask test` fetches the clients that tests run",
        packages.display()
    );
    let output = Command::new("python3")
        .arg(folder.join(script))
        .arg(address)
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("no_proxy", "127.0.0.1")
        .output()
        .expect("python3");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (said, output.status.success())
}

#[test]
fn official_clients_see_their_apis() {
    let server = Server::start();
    let failed: Vec<String> = thread::scope(|scope| {
        let address = &server.address;
        let runs = SCRIPTS.map(|script| scope.spawn(move || run(script, address)));
        let outcomes = runs.into_iter().zip(SCRIPTS);
        let outcomes = outcomes.map(|(run, script)| (script, run.join().expect("a run")));
        let failed = outcomes.filter(|(_, (_, is_well))| !is_well);
        failed
            .map(|(script, (said, _))| format!("{script}:\n{said}"))
            .collect()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
