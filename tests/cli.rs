//! The command line as scripts and shells see it.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

fn hyperion(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hyperion"));
    command.args(arguments).env_clear().env("HOME", home);
    command
}

fn run(home: &TempDir, arguments: &[&str]) -> Output {
    hyperion(home.path(), arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn help_shows_the_way() {
    let home = tempfile::tempdir().unwrap();
    let help = run(&home, &["--help"]);
    assert!(help.status.success());
    assert!(stdout(&help).contains("Examples:") && stdout(&help).contains("hyperion pull smollm2"));
    let pull = run(&home, &["help", "pull"]);
    assert!(stdout(&pull).contains("HF_TOKEN"));
    let version = run(&home, &["--version"]);
    assert_eq!(
        stdout(&version),
        concat!("hyperion ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn wrong_usage_is_2() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [&[][..], &["bogus"], &["models", "--bogus"], &["pull"]] {
        let output = run(&home, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stdout(&output).is_empty(), "{arguments:?}");
        assert!(stderr(&output).contains("Usage: hyperion"), "{arguments:?}");
    }
}

#[test]
fn models_lists_what_is_there_and_what_is_not() {
    let home = tempfile::tempdir().unwrap();
    let table = run(&home, &["models"]);
    assert!(table.status.success());
    assert!(
        stdout(&table).contains("hyperion pull smollm2"),
        "{}",
        stdout(&table)
    );

    let models = home.path().join(".cache/hyperion/models");
    fs::create_dir_all(&models).unwrap();
    fs::write(models.join("mine.gguf"), "GGUF").unwrap();
    let json = run(&home, &["models", "--json"]);
    let rows: serde_json::Value = serde_json::from_str(stdout(&json)).unwrap();
    assert_eq!(rows[0]["name"], "mine");
    assert_eq!(rows[0]["size"], 4);
    assert_eq!(rows[0]["path"], models.join("mine.gguf").to_str().unwrap());
    assert_eq!(rows[1]["name"], "smollm2");
    assert!(rows[1]["path"].is_null());
}

#[cfg(unix)]
#[test]
fn names_do_not_reach_the_terminal_as_they_are() {
    let home = tempfile::tempdir().unwrap();
    let models = home.path().join(".cache/hyperion/models");
    fs::create_dir_all(&models).unwrap();
    fs::write(models.join("a\x1b[2J\nb.gguf"), "GGUF").unwrap();
    let table = run(&home, &["models"]);
    assert!(
        stdout(&table).contains("a\\x1b[2J\\nb  "),
        "{}",
        stdout(&table)
    );
    // Among the models that there are.
    let error = run(&home, &["generate", "c\x1b[2J", "-p", "x"]);
    assert_eq!(error.status.code(), Some(1));
    for text in [stdout(&table), stderr(&error)] {
        assert!(!text.contains('\x1b'), "{text:?}");
    }
}

#[test]
fn help_tells_what_is_dropped() {
    let home = tempfile::tempdir().unwrap();
    let help = run(&home, &["help", "generate"]);
    let words: Vec<&str> = stdout(&help).split_whitespace().collect();
    assert!(
        words
            .join(" ")
            .contains("one newline at its end is dropped, as llama.cpp does")
    );
}

#[test]
fn a_failure_is_one_line_and_1() {
    let home = tempfile::tempdir().unwrap();
    // A file where the cache's folder should be.
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let output = hyperion(home.path(), &["models"])
        .env("HYPERION_CACHE", &file)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.starts_with("error: cannot read the folder ") && text.lines().count() == 1);
    assert_eq!(
        text.matches("Not a directory").count(),
        1,
        "each cause once: {text}"
    );

    let homeless = hyperion(home.path(), &["models"])
        .env_remove("HOME")
        .output()
        .unwrap();
    assert!(stderr(&homeless).contains("HYPERION_CACHE"));
}

#[test]
fn completions_exist_for_every_shell() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = run(&home, &["completions", shell]);
        assert!(
            output.status.success() && stdout(&output).contains("hyperion"),
            "{shell}"
        );
    }
}

#[test]
fn a_closed_stdout_ends_quietly() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [
        &["models"][..],
        &["models", "--json"],
        &["completions", "bash"],
        &["help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = hyperion(home.path(), arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut text = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(
            child.wait().unwrap().code(),
            Some(0),
            "{arguments:?}: {text}"
        );
        assert_eq!(text, "", "{arguments:?}");
    }
}
