//! Files as people have them: what runs, what is refused and why, and what a broken one does.

mod cases;
mod damaged;
mod experts;
mod rules;
mod split;
#[path = "../support/mod.rs"]
mod support;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hyperion::gguf::Gguf;
use support::fixture;
use support::gguf_writer::GgufWriter;

/// Runs `hyperion`.
fn hyperion<S: AsRef<OsStr>>(arguments: &[S]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hyperion"))
        .args(arguments)
        .output()
        .expect("hyperion runs")
}

/// What a command that succeeded wrote to standard output.
fn succeed<S: AsRef<OsStr>>(arguments: &[S]) -> String {
    let output = hyperion(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{stdout}{stderr}");
    stdout
}

/// The one line that a command which failed wrote to standard error.
fn fail<S: AsRef<OsStr>>(arguments: &[S]) -> String {
    let output = hyperion(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

/// The arguments of `verify --against` for a model and a reference.
fn against<'a>(model: &'a Path, reference: &'a Path, device: &'a str) -> [&'a OsStr; 6] {
    [
        "verify".as_ref(),
        model.as_os_str(),
        "--against".as_ref(),
        reference.as_os_str(),
        "--device".as_ref(),
        device.as_ref(),
    ]
}

/// A copy of the fixture `name`, to be changed.
fn copy_of(name: &str) -> GgufWriter {
    GgufWriter::from_gguf(&Gguf::open(&fixture(name)).expect("a fixture"))
}

/// Writes `bytes` as `name` into the folder.
fn write(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("scratch file");
    path
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("scratch folder")
}
