//! A folder with a model, requests and results, and runs in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use hyperion::gguf::Value as GgufValue;
use serde_json::Value;
use tempfile::TempDir;

use super::support::{broken, fixture, fixture_bytes};

pub const TINY: &str = "tiny/tiny-llama-q4_k_m-1.gguf";

/// A folder with a model and requests.
pub struct Workspace {
    pub folder: TempDir,
    pub model: PathBuf,
}

impl Workspace {
    pub fn new(model: PathBuf) -> Workspace {
        let folder = tempfile::tempdir().expect("a folder");
        Workspace { folder, model }
    }

    pub fn tiny() -> Workspace {
        Workspace::new(fixture(TINY))
    }

    /// A tiny model with a chat template.
    pub fn with_template() -> Workspace {
        let template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}bot: ";
        let mut file = broken::read(&fixture_bytes(TINY));
        let key = "tokenizer.chat_template".to_owned();
        file.metadata
            .push((key, GgufValue::String(template.to_owned())));
        Workspace::with_model(&file.to_bytes())
    }

    pub fn with_model(bytes: &[u8]) -> Workspace {
        let mut workspace = Workspace::new(PathBuf::new());
        workspace.model = workspace.path("model.gguf");
        fs::write(&workspace.model, bytes).expect("a model");
        workspace
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write_requests(&self, name: &str, lines: &[Value]) {
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        fs::write(self.path(name), lines.join("\n")).expect("requests");
    }

    pub fn command(&self, requests: &str, output: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hyperion"));
        command.arg("batch").arg(&self.model);
        command
            .arg(self.path(requests))
            .arg("-o")
            .arg(self.path(output));
        if !more.contains(&"--ctx") {
            command.args(["--ctx", "256"]);
        }
        command.args(["--device", "cpu"]).args(more);
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, requests: &str, output: &str, more: &[&str]) -> Output {
        self.command(requests, output, more)
            .output()
            .expect("a run")
    }

    pub fn assert_runs(&self, requests: &str, output: &str, more: &[&str]) -> String {
        let run = self.run(requests, output, more);
        assert!(run.status.success(), "{}", stderr(&run));
        stderr(&run)
    }

    /// Exit code 1, and an error with `part`.
    pub fn assert_refused(&self, requests: &str, output: &str, more: &[&str], part: &str) {
        let run = self.run(requests, output, more);
        assert_eq!(run.status.code(), Some(1), "{}", stderr(&run));
        assert!(
            stderr(&run).contains(part),
            "no {part:?} in {}",
            stderr(&run)
        );
    }

    pub fn spawn(&self, requests: &str, output: &str, more: &[&str]) -> Child {
        let mut command = self.command(requests, output, more);
        command.stderr(Stdio::null()).spawn().expect("a process")
    }

    pub fn read(&self, output: &str) -> Vec<u8> {
        fs::read(self.path(output)).expect("results")
    }

    pub fn sorted_lines(&self, output: &str) -> Vec<String> {
        let text = String::from_utf8(self.read(output)).expect("a text");
        assert!(text.ends_with('\n'), "the last line is whole");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Results by `custom_id`.
    pub fn results(&self, output: &str) -> BTreeMap<String, Value> {
        let parse = |line: String| {
            let line: Value = serde_json::from_str(&line).expect("JSON");
            (line["custom_id"].as_str().expect("a name").to_owned(), line)
        };
        self.sorted_lines(output).into_iter().map(parse).collect()
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
