//! `hyperion pull` against a local server.

mod hostile;
mod network;
mod server;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use server::{Faults, Ranges, Server};
use tempfile::TempDir;

const SPEC: &str = "owner/repo";

struct Machine {
    folder: TempDir,
    endpoint: String,
}

impl Machine {
    fn new(endpoint: &str) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            endpoint: endpoint.to_owned(),
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
            .env("HOME", self.folder.path())
            .env("HF_ENDPOINT", &self.endpoint)
            .env("HF_HUB_DOWNLOAD_TIMEOUT", "1");
        command
    }

    fn pull(&self, arguments: &[&str]) -> Output {
        self.pull_with(&[], arguments)
    }

    fn pull_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_hyperion"));
        command.envs(variables.iter().copied());
        command.arg("pull").args(arguments).output().unwrap()
    }

    fn models(&self) -> PathBuf {
        self.folder.path().join(".cache/hyperion/models")
    }

    /// Bytes of unfinished files.
    fn staged(&self) -> u64 {
        fn size(path: PathBuf) -> u64 {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries
                .map(|entry| match entry.metadata().unwrap() {
                    meta if meta.is_dir() => size(entry.path()),
                    meta => meta.len(),
                })
                .sum()
        }
        size(self.folder.path().join(".cache/hyperion/staging"))
    }

    #[track_caller]
    fn assert_fetched(&self, output: &Output, file: &str, server: &Server) {
        assert!(output.status.success(), "{output:?}");
        let path = self.models().join(file);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("{}\n", path.display())
        );
        assert!(
            fs::read(path).unwrap() == server.content,
            "the content differs"
        );
        assert_eq!(self.staged(), 0, "nothing unfinished is left");
    }

    #[track_caller]
    fn assert_failed(&self, output: &Output, words: &[&str]) {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("error: "), "{stderr}");
        assert!(
            words.iter().all(|word| stderr.contains(word)),
            "{words:?} in {stderr}"
        );
        assert!(
            fs::read_dir(self.models())
                .into_iter()
                .flatten()
                .next()
                .is_none()
        );
    }
}

#[test]
fn the_obvious_file_is_fetched_once() {
    let files = ["README.md", "sub/m-Q8_0.gguf", "sub/m-Q4_K_M.gguf"];
    let server = Server::start(&files, Faults::default());
    let machine = Machine::new(&server.endpoint);
    machine.assert_fetched(&machine.pull(&[SPEC]), "m-Q4_K_M.gguf", &server);
    machine.assert_fetched(&machine.pull(&[SPEC]), "m-Q4_K_M.gguf", &server);
    assert_eq!(
        server.ranges(),
        [""],
        "a file that is there is not fetched again"
    );
    machine.assert_fetched(&machine.pull(&["owner/repo:Q8_0"]), "m-Q8_0.gguf", &server);
}

#[test]
fn another_file_of_the_same_name_stays() {
    let server = Server::start(&["m.gguf"], Faults::default());
    let machine = Machine::new(&server.endpoint);
    fs::create_dir_all(machine.models()).unwrap();
    let path = machine.models().join("m.gguf");
    fs::write(&path, "mine").unwrap();
    let output = machine.pull(&[SPEC]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--force"));
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    machine.assert_fetched(&machine.pull(&["--force", SPEC]), "m.gguf", &server);
}

#[test]
fn what_is_not_there_is_said() {
    let server = Server::start(&["a-Q8_0.gguf", "a-Q6_K.gguf"], Faults::default());
    let machine = Machine::new(&server.endpoint);
    machine.assert_failed(
        &machine.pull(&["owner/other"]),
        &["owner/other", "404", "HF_TOKEN"],
    );
    let choice = "hyperion pull owner/repo:a-Q6_K.gguf";
    machine.assert_failed(&machine.pull(&[SPEC]), &[choice]);
    machine.assert_failed(&machine.pull(&["owner/repo:F16"]), &["F16", choice]);
    machine.assert_failed(&machine.pull(&["nonsense"]), &["nonsense", "OWNER/REPO"]);
    let nobody = Machine::new("http://127.0.0.1:9");
    nobody.assert_failed(&nobody.pull(&[SPEC]), &["http://127.0.0.1:9"]);
}

#[test]
fn a_broken_connection_is_continued() {
    let server = Server::start(
        &["m.gguf"],
        Faults {
            broken_transfers: 1,
            ..Faults::default()
        },
    );
    let machine = Machine::new(&server.endpoint);
    machine.assert_fetched(&machine.pull(&[SPEC]), "m.gguf", &server);
    assert_eq!(server.ranges(), ["", "bytes=100000-"]);
}

#[test]
fn a_connection_that_stays_broken_is_continued_by_the_next_call() {
    let server = Server::start(
        &["m.gguf"],
        Faults {
            broken_transfers: 3,
            ..Faults::default()
        },
    );
    let machine = Machine::new(&server.endpoint);
    machine.assert_failed(&machine.pull(&[SPEC]), &["cannot fetch m.gguf"]);
    assert!(machine.staged() > 200_000, "what arrived is kept");
    machine.assert_fetched(&machine.pull(&[SPEC]), "m.gguf", &server);
    assert_eq!(server.ranges().len(), 4);
    assert_ne!(server.ranges()[3], "");
}

#[test]
fn wrong_content_is_discarded() {
    let server = Server::start(
        &["m.gguf"],
        Faults {
            corrupt: true,
            ..Faults::default()
        },
    );
    let machine = Machine::new(&server.endpoint);
    machine.assert_failed(&machine.pull(&[SPEC]), &["m.gguf", "sha256", "try again"]);
    assert_eq!(machine.staged(), 0);
    server.set_faults(Faults::default());
    machine.assert_fetched(&machine.pull(&[SPEC]), "m.gguf", &server);
}

/// A machine that has a part of `server`'s file.
fn with_a_part(server: &Server) -> Machine {
    server.set_faults(Faults {
        broken_transfers: 3,
        ..Faults::default()
    });
    let machine = Machine::new(&server.endpoint);
    machine.assert_failed(&machine.pull(&[SPEC]), &["cannot fetch m.gguf"]);
    machine
}

#[test]
fn a_server_without_ranges_or_with_wrong_ones_does_not_spoil_the_file() {
    for ranges in [Ranges::Ignored, Ranges::Wrong] {
        let server = Server::start(&["m.gguf"], Faults::default());
        let machine = with_a_part(&server);
        server.set_faults(Faults {
            ranges,
            ..Faults::default()
        });
        machine.assert_fetched(&machine.pull(&[SPEC]), "m.gguf", &server);
    }
}

#[test]
fn a_bad_part_of_an_earlier_run_is_replaced() {
    let server = Server::start(&["m.gguf"], Faults::default());
    for length in [100_000, 300_000, 400_000] {
        let machine = with_a_part(&server);
        let staging = machine.folder.path().join(".cache/hyperion/staging/m.gguf");
        let part = fs::read_dir(staging).unwrap().next().unwrap().unwrap();
        fs::write(part.path(), vec![0; length]).unwrap();
        machine.assert_fetched(&machine.pull(&[SPEC]), "m.gguf", &server);
    }
}

#[test]
fn all_parts_of_a_model_are_fetched() {
    let parts = ["q/m-00001-of-00002.gguf", "q/m-00002-of-00002.gguf"];
    let server = Server::start(&parts, Faults::default());
    for spec in [SPEC, "owner/repo:m-00002-of-00002"] {
        let machine = Machine::new(&server.endpoint);
        machine.assert_fetched(&machine.pull(&[spec]), "m-00001-of-00002.gguf", &server);
        let second = fs::read(machine.models().join("m-00002-of-00002.gguf"));
        assert!(second.unwrap() == server.content);
    }
    let server = Server::start(&parts[1..], Faults::default());
    let machine = Machine::new(&server.endpoint);
    machine.assert_failed(&machine.pull(&[SPEC]), &["m-00001-of-00002.gguf"]);
}

/// A limit on the size of files stands for a full disk, which takes root to set up.
#[cfg(unix)]
#[test]
fn a_disk_that_cannot_take_the_file_is_named() {
    let server = Server::start(&["m.gguf"], Faults::default());
    let machine = Machine::new(&server.endpoint);
    let script = "trap '' XFSZ; ulimit -f 100; exec \"$0\" pull owner/repo";
    let output = machine
        .command("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_hyperion")])
        .output()
        .unwrap();
    machine.assert_failed(&output, &["cannot write to", "File too large"]);
    assert_eq!(machine.staged(), 0);
}
