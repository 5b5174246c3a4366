//! The invariants of absence that `docs/architecture.md` promises.

use std::collections::{BTreeMap, BTreeSet};
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
        &[
            "crate::cpu",
            "crate::gpu",
            "crate::device",
            "crate::backend",
        ],
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

/// What chooses a device opens it; no device knows that it was chosen, nor which PTX others take.
#[test]
fn devices_do_not_know_of_their_choice() {
    let choosing = ["host/device/choice.rs", "host/device/mod.rs"];
    assert_absent("host/device", &choosing, &["choice::", "DeviceChoice"]);
    assert_absent("host/ptx", &[], &["device::choice"]);
}

/// Which PTX a GPU runs is decided in one place.
#[test]
fn ptx_is_selected_once() {
    let selecting = ["host/ptx/images.rs"];
    let words = [
        ".arch <=",
        ".arch >",
        "compute_capability <=",
        "fn select_ptx",
    ];
    assert_absent("host", &selecting, &words);
}

#[test]
fn the_backend_names_no_device() {
    assert_absent(
        "host/backend",
        &[],
        &["crate::device", "crate::gpu", "crate::cpu", "crate::cli"],
    );
}

#[test]
fn only_the_command_line_parses_flags() {
    assert_absent("host", &["host/cli"], &["clap"]);
    let flags = [
        "--ctx",
        "--device",
        "--chunk",
        "--activations",
        "--force",
        "--temp",
        "--threads",
    ];
    assert_absent("host", &["host/cli"], &flags);
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

/// Files of the simulator's executor import each other in one direction.
#[test]
fn the_executor_has_no_circles() {
    let folder = Path::new("crates/ptx_sim/src/exec");
    let name = |path: &Path| {
        let first = path.strip_prefix(folder).expect("below").iter().next();
        let first = Path::new(first.expect("a name")).with_extension("");
        first.to_string_lossy().into_owned()
    };
    let sources = sources("crates/ptx_sim/src/exec");
    let files: BTreeSet<String> = sources.iter().map(|(path, _)| name(path)).collect();
    let mut open: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in &sources {
        let file = name(path);
        // The module itself, which starts launches, may name all; none may name it.
        let words = text.split("crate::exec::").skip(1).flat_map(|used| {
            let end = if used.starts_with('{') { '}' } else { ':' };
            let used = used.split([end, ';']).next().unwrap_or_default();
            used.split(['{', ',', ' ', '\n'])
        });
        let words = words.filter(|word| !word.is_empty() && *word != file);
        let used = open.entry(file.clone()).or_default();
        for word in words {
            assert!(
                files.contains(word),
                "{}: `{word}` is no file",
                path.display()
            );
            used.insert(word.to_owned());
        }
    }
    // Takes away files that import none of the rest; those of a circle stay.
    while let Some(file) = open.iter().find(|(_, used)| used.is_empty()) {
        let file = file.0.clone();
        open.remove(&file);
        for used in open.values_mut() {
            used.remove(&file);
        }
    }
    assert!(open.is_empty(), "files that import each other: {open:#?}");
}

#[test]
fn unsafe_code_is_fenced() {
    assert_absent(
        "host",
        &["host/gguf", "host/device", "host/gpu"],
        &["unsafe "],
    );
}

/// The profile of tests is made for dependencies: ours are named in it, with their checks.
#[test]
fn our_crates_are_tested_with_their_checks() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("a text");
    let (_, profile) = manifest
        .split_once("[profile.dev.package]")
        .expect("the profile of packages");
    let crates = fs::read_dir(root.join("crates")).expect("a folder");
    let crates = crates.map(|entry| entry.expect("an entry").file_name());
    let crates = crates.map(|name| name.into_string().expect("a name"));
    let others = ["hyperion", "kernels-gpu", "xtask"].map(str::to_owned);
    for name in crates.chain(others) {
        let line = profile
            .lines()
            .find(|line| line.starts_with(&format!("{name} = ")));
        let line = line.unwrap_or_else(|| panic!("{name} has the profile of a dependency"));
        for check in ["debug-assertions = true", "overflow-checks = true"] {
            assert!(line.contains(check), "{name}: {line}");
        }
    }
}
