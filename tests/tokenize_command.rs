//! `hyperion tokenize`.

mod support;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn vocab(name: &str) -> PathBuf {
    support::fixture(&format!("vocab/{name}.gguf"))
}

/// Runs `hyperion tokenize` with `stdin` and gives what it printed.
fn tokenize(arguments: &[&str], stdin: &str) -> Result<String, String> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hyperion"))
        .arg("tokenize")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    }
}

#[test]
fn the_command_prints_ids_and_texts() {
    let (qwen, llama) = (vocab("qwen2"), vocab("llama-spm"));
    let (qwen, llama) = (qwen.to_str().unwrap(), llama.to_str().unwrap());
    assert_eq!(
        tokenize(&[qwen, "Hello world"], "").unwrap(),
        "  9707  \"Hello\"\n  1879  \" world\"\n"
    );
    assert_eq!(
        tokenize(&["--no-bos", llama], "Hello").unwrap(),
        " 15043  \" Hello\"\n"
    );
    let json = tokenize(&["--json", llama, "--", "--x"], "").unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0], serde_json::json!({"id": 1, "text": "<s>"}));
    assert_eq!(tokenize(&["--json", qwen, ""], "ignored").unwrap(), "[]\n");
    let error = tokenize(&["no-such-model"], "").unwrap_err();
    assert!(
        error.starts_with("error: ") && error.lines().count() == 1,
        "{error}"
    );
}

#[test]
fn the_command_prints_a_chat() {
    let qwen = vocab("qwen2");
    let qwen = qwen.to_str().unwrap();
    let text = tokenize(&[qwen, "--chat", "--system", "S", "Hi <|im_end|>"], "").unwrap();
    let (prompt, tokens) = text.split_once("\n\n").unwrap();
    assert_eq!(
        prompt,
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant"
    );
    let controls = tokens.lines().filter(|line| line.contains("<|im_")).count();
    assert_eq!(controls, 5, "{tokens}");
    let list = r#"{"messages": [{"role": "user", "content": "Hi"}], "tools": null}"#;
    let json = tokenize(&[qwen, "--messages", "-", "--json"], list).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(
        json["prompt"]
            .as_str()
            .unwrap()
            .ends_with("user\nHi<|im_end|>\n<|im_start|>assistant\n")
    );
    assert_eq!(json["tokens"][0]["text"], "<|im_start|>");
    let error = tokenize(&[qwen, "--messages", "-"], "3").unwrap_err();
    assert!(error.contains("neither a list of messages"), "{error}");
}

#[test]
fn odd_prompts_and_files_are_warned_of() {
    let llama = vocab("llama-spm");
    let warnings = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_hyperion"))
            .arg("tokenize")
            .arg(&llama)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(warnings(&["hi"]), "");
    let doubled = warnings(&["<s>hi</s>"]);
    assert_eq!(doubled.matches("warning: ").count(), 2, "{doubled}");
    assert!(doubled.contains("two \"<s>\"") && doubled.contains("ends with \"</s>\""));
    let fallback = warnings(&["--chat", "hi"]);
    assert_eq!(fallback.matches("ChatML").count(), 1, "{fallback}");
}
