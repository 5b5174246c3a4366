//! The invariants of absence that `docs/architecture.md` promises.

use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file below `folder`, with its text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a text");
                found.push((path.strip_prefix(root).expect("below").to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

/// No line below `folder`, except in `allowed` subfolders, has any of `words` outside a comment.
fn assert_absent(folder: &str, allowed: &[&str], words: &[&str]) {
    for (path, text) in sources(folder) {
        if allowed.iter().any(|allowed| path.starts_with(allowed)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            let found = words.iter().find(|word| code.contains(**word));
            assert!(found.is_none(), "{}:{}: {line}", path.display(), number + 1);
        }
    }
}

#[test]
fn the_model_names_no_backend() {
    assert_absent(
        "host/model",
        &[],
        &["crate::cpu", "crate::device", "crate::backend"],
    );
}

#[test]
fn only_devices_know_cuda() {
    assert_absent(
        "host",
        &["host/device", "host/ptx"],
        &["cust::", "cublas", "cupti", "libcuda", "ptx_sim"],
    );
}

#[test]
fn the_simulator_knows_nothing_of_language_models() {
    let words = [
        "gguf",
        "kernels_gpu",
        "hyperion",
        "llama",
        "kv_cache",
        "softmax",
    ];
    assert_absent("crates/ptx_sim/src", &[], &words);
}

#[test]
fn unsafe_code_is_fenced() {
    assert_absent(
        "host",
        &["host/gguf", "host/device", "host/gpu"],
        &["unsafe "],
    );
}
