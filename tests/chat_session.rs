//! `hyperion chat` with its lines from a pipe.

mod support;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Talks greedily, with `lines` on standard input and an empty cache folder.
fn chat(model: &str, arguments: &[&str], lines: &str) -> (Output, TempDir) {
    let home = tempfile::tempdir().expect("a folder");
    let mut child = Command::new(env!("CARGO_BIN_EXE_hyperion"))
        .args(["chat", model, "--temp", "0"])
        .args(arguments)
        .env("HYPERION_CACHE", home.path())
        .current_dir(home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a run");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(lines.as_bytes()).expect("lines");
    drop(stdin);
    (child.wait_with_output().expect("an end"), home)
}

fn smollm2() -> String {
    support::model("smollm2").display().to_string()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn turns_build_on_each_other() {
    // Longer than a page of the cache, in which earlier turns are found.
    let lines = "What is the capital of France? Please answer with its name alone, in one short sentence, and tell \
                 me nothing of its history, its rivers or its kings.\n\nAnd of Spain?\n/save talk.json\n";
    let (output, home) = chat(&smollm2(), &["-n", "40"], lines);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert!(
        stdout.contains("Paris") && stdout.contains("Madrid"),
        "{stdout}"
    );
    let cached = |line: &&str| line.contains(" cached) tokens");
    let turns: Vec<&str> = stderr
        .lines()
        .filter(|line| line.contains("tok/s"))
        .collect();
    assert_eq!(turns.len(), 2, "{stderr}");
    assert!(!cached(&turns[0]) && cached(&turns[1]), "{stderr}");

    let saved = std::fs::read(home.path().join("talk.json")).expect("a saved file");
    let saved: serde_json::Value = serde_json::from_slice(&saved).expect("JSON");
    let roles: Vec<_> = saved
        .as_array()
        .expect("a list")
        .iter()
        .map(|m| &m["role"])
        .collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
    assert_eq!(saved[2]["content"], "And of Spain?");
    let answers = ["1", "3"].map(|i| saved[i.parse::<usize>().unwrap()]["content"].clone());
    let written = answers
        .map(|answer| format!("{}\n", answer.as_str().expect("text")))
        .concat();
    assert_eq!(stdout, written, "the answers, and nothing else");
    let history = home.path().join("chat_history");
    assert!(!history.exists(), "only what is typed is remembered");
}

#[test]
fn commands_are_obeyed() {
    let lines = "What is 2+2?\n/reset\n/save a.json\n/system Be brief.\n/save b.json\n/help\n\
                 /save\n/save no/such/folder\n/nonsense\n/quit\nWhat is 3+3?\n";
    let (output, home) = chat(&smollm2(), &["-n", "4", "-q"], lines);
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(
        text(&output.stdout).lines().count(),
        1,
        "nothing after /quit"
    );
    let read = |name| std::fs::read_to_string(home.path().join(name)).expect("a saved file");
    assert_eq!(read("a.json"), "[]");
    assert!(read("b.json").contains("Be brief."));
    for words in [
        "/reset         forget",
        "error: /save needs a file name",
        "error: writing no/such/folder: No such file",
        "unknown command /nonsense",
    ] {
        assert!(stderr.contains(words), "{words} in {stderr}");
    }
}

#[test]
fn a_question_that_does_not_fit_is_forgotten() {
    let lines = format!("{}\nHi\n/save talk.json\n", "word ".repeat(200));
    let (output, home) = chat(&smollm2(), &["--ctx", "64", "-n", "3"], &lines);
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("context of 64") && stderr.contains("/reset"),
        "{stderr}"
    );
    assert_eq!(text(&output.stdout).lines().count(), 1);
    let saved = std::fs::read_to_string(home.path().join("talk.json")).expect("a saved file");
    assert!(
        !saved.contains("word word") && saved.contains("Hi"),
        "{saved}"
    );
}

#[test]
fn bad_flags_are_refused_before_the_first_line() {
    let (output, _home) = chat(&smollm2(), &["--top-p", "7"], "");
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("expected a number from 0 to 1"), "{stderr}");
    // What depends on the model is known when it is there.
    let (output, _home) = chat(&smollm2(), &["--logit-bias", "1000000=1"], "");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "error: logit_bias is for token 1000000; expected tokens of the vocabulary\n"
    );
}

#[test]
fn a_line_may_begin_with_a_slash() {
    let lines = "//etc is what?\n/etc\n/save talk.json\n";
    let (output, home) = chat(&smollm2(), &["-n", "1"], lines);
    let stderr = text(&output.stderr);
    assert!(stderr.contains("unknown command /etc"), "{stderr}");
    let saved = std::fs::read(home.path().join("talk.json")).expect("a saved file");
    let saved: serde_json::Value = serde_json::from_slice(&saved).expect("JSON");
    assert_eq!(saved[0]["content"], "/etc is what?");
    assert_eq!(saved.as_array().expect("a list").len(), 2);
}
