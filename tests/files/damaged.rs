//! Files that are something else, broken in a part, or cut off while they are in use.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use hyperion::gguf::Value;

use crate::support::fixture;
use crate::{copy_of, fail, scratch, succeed, write};

#[test]
fn what_is_no_gguf_file_is_told() {
    let scratch = scratch();
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:1d96\nsize 491400064\n";
    let cases: [(&[u8], &str); 8] = [
        (lfs.as_bytes(), "Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html>", "a web page"),
        (b"\xef\xbb\xbf \n<HTML lang=en>", "a web page"),
        (b"{\"error\":\"Invalid credentials\"}", "a JSON text"),
        (b"PK\x03\x04\x14\0\0\0archive", "a ZIP archive"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "a gzip archive"),
        (
            b"\x20\x01\0\0\0\0\0\0{\"__metadata__\":",
            "a safetensors file",
        ),
        (b"tjgg\x03\0\0\0", "older than GGUF"),
    ];
    for (bytes, expected) in cases {
        let path = write(&scratch, "m.gguf", bytes);
        for command in ["inspect", "tokenize", "generate"] {
            let mut arguments = vec![OsStr::new(command), path.as_os_str()];
            arguments.extend(match command {
                "generate" => vec![OsStr::new("-p"), OsStr::new("a")],
                "tokenize" => vec![OsStr::new("a")],
                _ => vec![],
            });
            let error = fail(&arguments);
            assert!(error.contains("not a GGUF file but"), "{error}");
            assert!(error.contains(expected), "{error}, not {expected}");
        }
    }
}

/// A file with heads of 16 elements and a tokenizer.
const MODEL: &str = "cases/head-count-kv-array.gguf";

fn run(command: &str, path: &Path, more: &[&str]) -> Vec<std::ffi::OsString> {
    let mut arguments = vec![command.into(), path.into()];
    arguments.extend(more.iter().map(Into::into));
    arguments
}

/// Overwrites `len` bytes, `skip` bytes behind the first `text`.
fn patch(bytes: &mut [u8], text: &str, skip: usize, new: &[u8]) {
    let place = bytes
        .windows(text.len())
        .position(|at| at == text.as_bytes());
    let place = place.expect("the text occurs") + text.len() + skip;
    bytes[place..place + new.len()].copy_from_slice(new);
}

#[test]
fn a_tensor_of_an_unknown_type_stops_only_the_model() {
    let scratch = scratch();
    let mut bytes = std::fs::read(fixture(MODEL)).expect("a fixture");
    // Behind the name: number of dimensions, two dimensions, type.
    patch(
        &mut bytes,
        "blk.1.ffn_up.weight",
        4 + 16,
        &16u32.to_le_bytes(),
    );
    let path = write(&scratch, "m.gguf", &bytes);

    let text = succeed(&run("inspect", &path, &[]));
    assert!(
        text.contains("IQ2_XXS (16)") && text.contains("21 tensors"),
        "{text}"
    );
    let json = succeed(&run("inspect", &path, &["--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["unread_tensors"][0]["name"], "blk.1.ffn_up.weight");
    assert!(!succeed(&run("tokenize", &path, &["abc"])).is_empty());
    for arguments in [
        run("generate", &path, &["-p", "a", "--device", "cpu"]),
        run("inspect", &path, &["--tensor", "blk.1.ffn_up.weight"]),
    ] {
        let error = fail(&arguments);
        let expected = "type of tensor blk.1.ffn_up.weight";
        assert!(
            error.contains(expected) && error.contains("IQ2_XXS"),
            "{error}"
        );
    }

    // An unread tensor that nothing needs does not stop the model.
    let mut model = copy_of(MODEL);
    model.add_f32("v.patch_embd.weight", &[1], &[1.0]);
    let mut bytes = model.to_bytes();
    patch(
        &mut bytes,
        "v.patch_embd.weight",
        4 + 8,
        &16u32.to_le_bytes(),
    );
    let path = write(&scratch, "v.gguf", &bytes);
    succeed(&run(
        "generate",
        &path,
        &["-p", "a", "-n", "1", "--device", "cpu"],
    ));
}

#[test]
fn text_that_is_not_utf8_stops_only_what_needs_it() {
    let scratch = scratch();
    let mut bytes = std::fs::read(fixture(MODEL)).expect("a fixture");
    // Behind the key: type and length.
    patch(&mut bytes, "general.name", 4 + 8, b"\xff\xfe");
    let path = write(&scratch, "m.gguf", &bytes);
    let text = succeed(&run("inspect", &path, &[]));
    assert!(text.contains("(not UTF-8)"), "{text}");
    let json = succeed(&run("inspect", &path, &["--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["damaged"][0]["name"], "general.name");
    assert!(!succeed(&run("tokenize", &path, &["abc"])).is_empty());
    succeed(&run(
        "generate",
        &path,
        &["-p", "a", "-n", "1", "--device", "cpu"],
    ));

    let mut bytes = std::fs::read(fixture(MODEL)).expect("a fixture");
    // Behind the key: type, the elements' type, their number, the length of the first.
    patch(&mut bytes, "tokenizer.ggml.tokens", 4 + 4 + 8 + 8, b"\xff");
    let path = write(&scratch, "m.gguf", &bytes);
    assert!(succeed(&run("inspect", &path, &[])).contains("(not UTF-8)"));
    let error = fail(&run("tokenize", &path, &["abc"]));
    assert!(
        error.contains("tokenizer.ggml.tokens[0]") && error.contains("UTF-8"),
        "{error}"
    );
}

#[test]
fn ids_that_say_none_are_none() {
    let scratch = scratch();
    for none in [Value::U32(u32::MAX), Value::I32(-1)] {
        let mut model = copy_of(MODEL);
        model.set("tokenizer.ggml.padding_token_id", none.clone());
        model.set("tokenizer.ggml.eot_token_id", none);
        let path = write(&scratch, "m.gguf", &model.to_bytes());
        assert!(!succeed(&run("tokenize", &path, &["abc"])).is_empty());
    }
}

#[test]
fn a_broken_template_stops_only_chats() {
    let scratch = scratch();
    let mut model = copy_of(MODEL);
    let template = Value::String("{% for message in".to_owned());
    model.set("tokenizer.chat_template", template);
    let path = write(&scratch, "m.gguf", &model.to_bytes());
    succeed(&run("inspect", &path, &[]));
    succeed(&run("tokenize", &path, &["abc"]));
    let on_cpu = ["--device", "cpu", "-p", "abc"];
    succeed(&run(
        "generate",
        &path,
        &[&on_cpu[..], &["--raw", "-n", "1"]].concat(),
    ));
    succeed(&run(
        "verify",
        &path,
        &[&on_cpu[..], &["--raw", "--decode", "1"]].concat(),
    ));
    for command in ["generate", "verify"] {
        let error = fail(&run(command, &path, &on_cpu));
        assert!(error.contains("template"), "{error}");
    }
    let error = fail(&run("chat", &path, &["--device", "cpu"]));
    assert!(
        error.contains("template") && error.contains("--raw"),
        "{error}"
    );
}

/// `ffn_gate` begins where the shorter `attn_q` begins: the device must not take the one's copy for the other.
#[test]
fn overlapping_tensors_are_told_apart() {
    let scratch = scratch();
    let model = fixture("tiny/tiny-llama-q4_0-2.gguf");
    let mut bytes = std::fs::read(&model).expect("a fixture");
    let skip = 4 + 16 + 4;
    let offset = {
        let name = b"blk.0.attn_q.weight";
        let place = bytes.windows(name.len()).position(|at| at == name);
        let place = place.expect("the tensor") + name.len() + skip;
        bytes[place..place + 8].to_vec()
    };
    patch(&mut bytes, "blk.0.ffn_gate.weight", skip, &offset);
    let path = write(&scratch, "m.gguf", &bytes);
    for tensor in ["blk.0.ffn_gate.weight", "blk.0.attn_q.weight"] {
        let arguments = ["--weights", tensor, "--device", "sim"];
        succeed(&run("verify", &path, &arguments));
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_is_cut_off_in_use_ends_in_a_line() {
    let scratch = scratch();
    let bytes = std::fs::read(fixture(MODEL)).expect("a fixture");
    let path = write(&scratch, "m.gguf", &bytes);
    let more = "--raw -p a -n 32000 --ctx 32768 --ignore-eos --temp 0 --device cpu --quiet";
    let more: Vec<&str> = more.split(' ').collect();
    let mut child = Command::new(env!("CARGO_BIN_EXE_hyperion"))
        .args(run("generate", &path, &more))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("hyperion runs");
    // It has begun to write, and has a long way to go.
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut [0; 4]).expect("text");
    let file = std::fs::OpenOptions::new().write(true).open(&path);
    file.and_then(|file| file.set_len(4096)).expect("cut off");
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut stdout, &mut std::io::sink());
    });
    let output = child.wait_with_output().expect("an end");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{:?} {stderr}",
        output.status
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let expected = format!("error: {}: the file was cut off", path.display());
    assert!(stderr.starts_with(&expected), "{stderr}");
}
