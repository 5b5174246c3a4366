//! `hyperion generate` as a person or a script uses it.

mod interrupts;
#[path = "../support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

fn hyperion(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hyperion"));
    command.arg("generate").args(args).stdin(Stdio::null());
    command
}

/// What wrote the golden texts.
const REFERENCE: [&str; 2] = ["--activations", "f16"];

fn smollm2() -> String {
    support::model("smollm2").display().to_string()
}

fn tiny() -> String {
    support::fixture("tiny/tiny-qwen3-q8_0-1.gguf")
        .display()
        .to_string()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// One line on stderr that contains `message`, nothing on stdout, exit code 1.
fn assert_fails(output: &Output, message: &str) {
    let stderr = text(&output.stderr);
    support::assert_one_error(output, &stderr, message);
}

#[test]
fn greedy_text_is_the_reference() {
    for case in support::greedy_cases("smollm2-135m-instruct")
        .iter()
        .take(2)
    {
        let n = case.greedy.len().to_string();
        let output = hyperion(&[
            &smollm2(),
            "--raw",
            "-p",
            &case.prompt,
            "--temp",
            "0",
            "-n",
            &n,
        ])
        .args(REFERENCE)
        .output()
        .expect("a run");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let expected = case.text.trim_end_matches("<|im_end|>");
        assert_eq!(text(&output.stdout), format!("{expected}\n"));
        let figures = text(&output.stderr);
        let tokens = format!("prompt {} tokens", case.tokens.len());
        assert!(
            figures.contains(&tokens) && figures.contains("tok/s"),
            "{figures}"
        );
    }
}

#[test]
fn a_chat_prompt_goes_through_the_template() {
    let args = [
        "-p",
        "What is the capital of France?",
        "--temp",
        "0",
        "--json",
        "-q",
    ];
    let args = [&args[..], &REFERENCE].concat();
    let system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
    let output = hyperion(&[&smollm2(), "--system", system])
        .args(args)
        .output()
        .expect("a run");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let cases = support::greedy_cases("smollm2-135m-instruct");
    let case = cases
        .iter()
        .find(|case| case.prompt.contains("France"))
        .expect("a case");
    assert_eq!(json["prompt_tokens"], case.tokens.len());
    assert_eq!(json["text"], case.text.trim_end_matches("<|im_end|>"));
    assert_eq!(json["finish"], "end_of_text");
    assert!(output.stderr.is_empty());
}

#[test]
fn the_same_seed_writes_the_same_text() {
    let model = tiny();
    let run = |seed: &str| {
        let args = [
            &model, "--raw", "-p", "hehe", "-n", "12", "-s", seed, "--json",
        ];
        let output = hyperion(&args).output().expect("a run");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        json["tokens"].clone()
    };
    assert_eq!(run("5"), run("5"));
    assert_ne!(run("5"), run("6"));
}

#[test]
fn prompts_come_from_files_and_stdin_too() {
    let model = tiny();
    let args = ["--raw", "-n", "8", "--temp", "0", "-q"];
    let from_argument = hyperion(&[&model, "-p", "hello"])
        .args(args)
        .output()
        .expect("a run");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "hello").expect("a line");
    let path = file.path().display().to_string();
    let from_file = hyperion(&[&model, "-f", &path])
        .args(args)
        .output()
        .expect("a run");
    let mut child = hyperion(&[&model])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a run");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(b"hello\n")
        .expect("a line");
    let from_stdin = child.wait_with_output().expect("an end");
    assert!(!from_argument.stdout.is_empty());
    assert_eq!(from_argument.stdout, from_file.stdout);
    assert_eq!(from_argument.stdout, from_stdin.stdout);
}

#[test]
fn nothing_is_generated_with_n_0() {
    let output = hyperion(&[&tiny(), "--raw", "-p", "he", "-n", "0", "-q"])
        .output()
        .expect("a run");
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), "\n");
}

#[test]
fn n_0_reports_its_prompt() {
    let output = hyperion(&[&tiny(), "--raw", "-p", "hehe", "-n", "0", "--json", "-q"])
        .output()
        .expect("a run");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(
        json["prompt_tokens"].as_u64().expect("a number") > 0,
        "{json}"
    );
    assert!(json["prefill_seconds"].as_f64().expect("a number") > 0.0);
    assert_eq!(
        (&json["text"], &json["finish"]),
        (&"".into(), &"length".into())
    );
}

#[test]
fn values_may_begin_with_a_dash() {
    let model = tiny();
    let run = |args: &[&str]| {
        let args = [&[model.as_str(), "--json", "-q", "--temp", "0"], args].concat();
        let output = hyperion(&args).output().expect("a run");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        json
    };
    let dashed = run(&["--raw", "-p", "- item", "--stop", "---", "-n", "2"]);
    let joined = run(&["--raw", "--prompt=- item", "-n", "2"]);
    assert_eq!(dashed["tokens"], joined["tokens"]);
    let system = ["-p", "--help", "--system", "-be brief-", "-n", "1"];
    assert_eq!(run(&system)["generated_tokens"], 1);
}

#[test]
fn numbers_mean_what_they_mean_in_llama_cpp() {
    let model = tiny();
    let run = |args: &[&str]| {
        let args = [&[model.as_str(), "--raw", "-p", "he", "--json", "-q"], args].concat();
        let output = hyperion(&args).output().expect("a run");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        json
    };
    let endless = run(&["-n", "-1", "--ctx", "16", "--ignore-eos", "-s", "-1"]);
    assert_eq!(endless["finish"], "context");
    let all = run(&["--top-k", "-1", "-s", "7", "-n", "12"]);
    assert_eq!(
        all["tokens"],
        run(&["--top-k", "0", "-s", "7", "-n", "12"])["tokens"]
    );
    let random = |_| run(&["-s", "-1", "-n", "12"])["tokens"].clone();
    let [first, second] = [0, 1].map(random);
    assert_ne!(first, second, "two seeds drawn at random");
    // As many tokens as the model was trained for: 4096 is what it gets without the flag.
    run(&["--ctx", "0", "-n", "1"]);
    for bad in [["-n", "-2"], ["-s", "-2"], ["--top-k", "x"]] {
        let output = hyperion(&[&model, "-p", "x"])
            .args(bad)
            .output()
            .expect("a run");
        assert_eq!(output.status.code(), Some(2), "{bad:?}");
    }
}

#[test]
fn a_context_beyond_the_training_is_warned_about() {
    let run = |ctx: &str| {
        let args = [&tiny(), "--raw", "-p", "he", "-n", "1", "-q", "--ctx", ctx];
        let output = hyperion(&args).output().expect("a run");
        assert!(output.status.success());
        text(&output.stderr)
    };
    let warning = run("1000000");
    assert!(
        warning.starts_with("warning: ") && warning.contains("--ctx 1000000"),
        "{warning}"
    );
    assert_eq!(warning.lines().count(), 1, "{warning}");
    assert_eq!(run("16"), "");
}

#[test]
fn what_a_pipe_gets_is_unchanged_and_errors_cannot_write_to_the_terminal() {
    let output = hyperion(&["/no/such/\x1b[2J\r\u{9b}file.gguf", "-p", "x"])
        .output()
        .expect("a run");
    assert_fails(&output, "/no/such/");
    assert!(!text(&output.stderr).contains(|c: char| c.is_control() && c != '\n'));
}

#[test]
fn an_error_names_its_file_once() {
    let vocabulary = support::fixture("vocab/qwen2.gguf").display().to_string();
    let output = hyperion(&[&vocabulary, "-p", "x"]).output().expect("a run");
    assert_eq!(text(&output.stderr).matches("qwen2.gguf").count(), 1);
}

#[test]
fn generation_ends_where_the_context_ends() {
    let args = [
        &tiny(),
        "--raw",
        "-p",
        "he",
        "--ctx",
        "16",
        "--ignore-eos",
        "--json",
        "-q",
    ];
    let output = hyperion(&args).output().expect("a run");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["finish"], "context");
    let total =
        json["prompt_tokens"].as_u64().unwrap() + json["generated_tokens"].as_u64().unwrap();
    assert_eq!(total, 16);
    // One token less fits beside a longer prompt, down to none.
    let run = |ctx: &str, n: &str| {
        let args = ["--raw", "-p", "he", "--ignore-eos", "--json", "-q"];
        let more = ["--temp", "0", "--ctx", ctx, "-n", n];
        let mut command = hyperion(&[&tiny()]);
        command.args(args).args(more).output().expect("a run")
    };
    let n_prompt = json["prompt_tokens"].as_u64().unwrap();
    for (room, n) in [(1, "-1"), (0, "0")] {
        let output = run(&(n_prompt + room).to_string(), n);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(json["generated_tokens"], room);
    }
    assert_fails(
        &run(&n_prompt.to_string(), "-1"),
        "leaves no room for an answer in the context of",
    );
}

#[test]
fn guesses_are_counted_and_change_no_token() {
    let model = tiny();
    let run = |speculate| {
        let args = [
            &model,
            "--raw",
            "-p",
            "he",
            "--temp",
            "0",
            "--ignore-eos",
            "-n",
            "80",
            "--json",
            "--speculate",
            speculate,
        ];
        let output = hyperion(&args).output().expect("a run");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (json, text(&output.stderr))
    };
    let (expected, _) = run("0");
    assert_eq!(expected["drafted_tokens"], 0);
    let (found, figures) = run("7");
    assert_eq!(found["tokens"], expected["tokens"]);
    // A model without sense repeats itself.
    let count = |name: &str| found[name].as_u64().expect("a number");
    let (drafted, accepted) = (count("drafted_tokens"), count("accepted_tokens"));
    assert!(0 < accepted && accepted <= drafted);
    let line = format!("{accepted} of {drafted} guesses right");
    assert!(figures.contains(&line), "{figures}");
}

#[test]
fn bad_input_gives_one_line() {
    let model = tiny();
    let long = "hello ".repeat(100);
    let run = |args: &[&str]| hyperion(args).output().expect("a run");
    assert_fails(
        &run(&[&model, "--raw", "-p", &long, "--ctx", "64"]),
        "context of 64",
    );
    assert_fails(&run(&[&model, "--raw", "-p", ""]), "the prompt is empty");
    // Standard input is empty.
    assert_fails(&run(&[&smollm2()]), "the prompt is empty");
    assert_fails(
        &run(&["/no/such/file.gguf", "-p", "x"]),
        "/no/such/file.gguf",
    );
    assert_fails(&run(&["/tmp", "-p", "x"]), "/tmp");
    assert_fails(
        &run(&[&model, "-f", "/no/such/prompt", "-q"]),
        "/no/such/prompt",
    );
    let vocabulary = support::fixture("vocab/qwen2.gguf").display().to_string();
    assert_fails(&run(&[&vocabulary, "-p", "x"]), "qwen2.");
    let empty = tempfile::NamedTempFile::new().expect("a file");
    let empty = empty.path().display().to_string();
    assert_fails(&run(&[&empty, "-p", "x"]), &empty);
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let mut child = hyperion(&[
        &smollm2(),
        "--raw",
        "-p",
        "1\n2\n3\n4\n",
        "--temp",
        "0",
        "-q",
    ])
    .args(["--ignore-eos", "-n", "2000"])
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .expect("a run");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    stdout.read_line(&mut line).expect("a line");
    drop(stdout);
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_stdout_is_an_error() {
    let full = std::fs::File::create("/dev/full").expect("a full device");
    let output = hyperion(&[&tiny(), "--raw", "-p", "he", "-n", "4", "-q"])
        .stdout(full)
        .output()
        .expect("a run");
    assert_fails(&output, "writing to standard output: No space left");
}
