//! `hyperion inspect`.
mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::fixture;

fn inspect(path: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hyperion"));
    command
        .arg("inspect")
        .arg(path)
        .args(arguments)
        .output()
        .expect("hyperion runs")
}

fn text(path: &Path, arguments: &[&str]) -> String {
    let output = inspect(path, arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn json(path: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&text(path, arguments)).expect("JSON")
}

#[test]
fn a_file_is_shown_as_tables() {
    let text = text(&fixture("tiny/tiny-llama-q4_k_m-1.gguf"), &[]);
    let line = |start: &str| {
        let found = text.lines().find(|line| line.starts_with(start));
        found
            .unwrap_or_else(|| panic!("no {start} in\n{text}"))
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        line("general.architecture "),
        ["general.architecture", "string", "\"llama\""]
    );
    let down = line("blk.0.ffn_gate.weight ");
    assert_eq!(
        down[1..6],
        ["Q4_K", "[256,", "512]", "[512,", "256]"],
        "{down:?}"
    );
    let q4k = line("Q4_K ");
    assert_eq!(q4k.last(), Some(&"4.50"));
    assert_eq!(line("total ").len(), 5);
}

#[test]
fn json_holds_everything() {
    let path = fixture("vocab/llama-spm.gguf");
    let file = json(&path, &["--json"]);
    assert_eq!(file["version"], 3);
    let tokens = file["metadata"]["tokenizer.ggml.tokens"]
        .as_array()
        .expect("an array");
    assert_eq!((tokens.len(), tokens[1].as_str()), (32_000, Some("<s>")));

    let file = json(&fixture("tiny/tiny-qwen3-q8_0-1.gguf"), &["--json"]);
    let tensors = file["tensors"].as_array().expect("an array");
    let embedding = tensors
        .iter()
        .find(|t| t["name"] == "token_embd.weight")
        .expect("embedding");
    assert_eq!(embedding["type"], "Q8_0");
    let dims = embedding["dims"].as_array().expect("dims");
    assert_eq!(
        embedding["shape"],
        Value::from_iter(dims.iter().rev().cloned())
    );
}

#[test]
fn a_tensor_is_shown_with_values_and_statistics() {
    let path = fixture("tiny/tiny-llama-q4_k_m-1.gguf");
    let arguments = ["--tensor", "output_norm.weight", "--json", "-n", "7"];
    let tensor = json(&path, &arguments);
    assert_eq!(tensor["values"].as_array().expect("values").len(), 7);
    let all = json(
        &path,
        &["--tensor", "output_norm.weight", "--json", "-n", "1000"],
    );
    let values: Vec<f64> = all["values"]
        .as_array()
        .expect("values")
        .iter()
        .map(|v| v.as_f64().expect("finite"))
        .collect();
    assert_eq!(values.len(), 256);
    let mean = values.iter().sum::<f64>() / 256.0;
    let shown = tensor["statistics"]["mean"].as_f64().expect("a mean");
    assert!(
        // The values are printed with the digits of a float.
        (shown - mean).abs() <= 1e-7 * mean.abs(),
        "{shown}, not {mean}"
    );
    assert_eq!(tensor["statistics"]["non_finite"], 0);

    let text = text(&path, &["--tensor", "output_norm.weight"]);
    assert!(text.contains("0 of 256 not finite"), "{text}");
    assert_eq!(text.lines().count(), 2 + 100usize.div_ceil(6), "{text}");
}

#[test]
fn each_bad_input_gives_one_line() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    let file = |name: &str, content: &[u8]| {
        let path = scratch.path().join(name);
        std::fs::write(&path, content).expect("scratch file");
        path
    };
    let whole = std::fs::read(fixture("tiny/tiny-llama-q4_0-2.gguf")).expect("a fixture");
    let cases = [
        (scratch.path().to_path_buf(), "is a folder"),
        (file("empty.gguf", b""), "the file is empty"),
        (file("text.gguf", b"Hello, world"), "not a GGUF file"),
        (file("header.gguf", &whole[..2000]), "offset"),
        (
            file("data.gguf", &whole[..whole.len() - 100]),
            "cut off: data of tensor",
        ),
        (
            file("old.gguf", b"GGUF\x01\0\0\0\0\0\0\0"),
            "GGUF version 1",
        ),
        (
            file("big-endian.gguf", b"GGUF\0\0\0\x03\0\0\0\0"),
            "big-endian",
        ),
    ];
    for (path, expected) in cases {
        let output = inspect(&path, &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.contains(expected) && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
    let output = inspect(
        &fixture("tiny/tiny-llama-q4_0-2.gguf"),
        &["--tensor", "nothing"],
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.ends_with("tiny-llama-q4_0-2.gguf: has no tensor nothing\n"),
        "{stderr}"
    );
}
