//! What the integration tests share: the reference data under `tests/fixtures`.
// Every test binary compiles this module and uses its own part of it.
#![allow(dead_code)]

pub mod altered;
pub mod broken;
pub mod cases;
pub mod cropped;
pub mod device;
pub mod failing_device;
pub mod families;
pub mod gguf_writer;
pub mod greedy;
pub mod numpy;
pub mod oracle;
pub mod random;
pub mod tiny;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Output;

use flate2::read::GzDecoder;
use safetensors::{Dtype, SafeTensors};

/// Tiny models of all architectures, and among them most tensor types.
pub const TINY_MODELS: [&str; 7] = [
    "tiny-llama-q4_0-2",
    "tiny-llama-q4_k_m-1",
    "tiny-qwen2-f16-1",
    "tiny-qwen2-q4_k_m-2",
    "tiny-qwen3-q5_k_m-2",
    "tiny-qwen3-q8_0-1",
    "tiny-gemma3-q4_k_m-1",
];

/// Tiny models of the families that `tests/tools/family_references.py` knows, and the contexts for which there is a
/// reference.
pub const FAMILIES: [(&str, usize); 22] = [
    ("granite-mixed", 512),
    ("granite-q8_0", 512),
    ("granite-no-rope", 512),
    ("smollm3-mixed", 512),
    ("smollm3-q4_0", 512),
    ("phi3-mixed", 256),
    ("phi3-mixed", 512),
    ("phi3-q4_1", 512),
    ("olmo2-mixed", 512),
    ("olmo2-gqa", 512),
    ("olmo2-windows", 512),
    ("qwen3moe-mixed", 512),
    ("qwen3moe-one", 512),
    ("qwen2moe-mixed", 512),
    ("qwen2moe-all", 512),
    ("mixtral-mixed", 512),
    ("mixtral-all", 512),
    ("mistral3-mixed", 512),
    ("mistral3-q8_0", 512),
    ("mistral3-experts", 512),
    ("llama-yarn", 512),
    ("qwen3-yarn", 512),
];

/// A command failed with the exit code 1, nothing on standard output, and on standard error, of which `stderr` is what
/// counts, one line that contains `message`.
pub fn assert_one_error(output: &Output, stderr: &str, message: &str) {
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.starts_with("error: ") && stderr.contains(message),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(output.stdout.is_empty());
}

/// The path of a fixture, `name` relative to `tests/fixtures`. One that is kept as `NAME.gz` or made of others is
/// written into the build's scratch folder first.
pub fn fixture(name: &str) -> PathBuf {
    let plain = kept(name);
    if plain.exists() {
        return plain;
    }
    let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("fixtures")
        .join(name);
    if !unpacked.exists() {
        let folder = unpacked.parent().expect("a fixture lies in a folder");
        fs::create_dir_all(folder).expect("scratch folder");
        // Renamed when complete: test binaries may run side by side.
        let mut partial = tempfile::NamedTempFile::new_in(folder).expect("scratch file");
        std::io::Write::write_all(&mut partial, &fixture_bytes(name)).expect("scratch file");
        partial.persist(&unpacked).expect("scratch file renamed");
    }
    unpacked
}

/// The content of a fixture, unpacked where it is kept as `NAME.gz`, and made where it is not kept.
pub fn fixture_bytes(name: &str) -> Vec<u8> {
    let plain = kept(name);
    if let Ok(bytes) = fs::read(&plain) {
        return bytes;
    }
    if let Ok(file) = fs::File::open(plain.with_added_extension("gz")) {
        let mut bytes = Vec::new();
        GzDecoder::new(file)
            .read_to_end(&mut bytes)
            .expect("a whole gzip file");
        return bytes;
    }
    let model = name.strip_suffix(".gguf").unwrap_or(name);
    let made = match model.split_once('/') {
        Some(("tiny", model)) => tiny::made(model),
        Some(("cases", model)) => cases::made(model),
        _ => None,
    };
    made.unwrap_or_else(|| panic!("no fixture {name}"))
}

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// A safetensors file of reference values.
pub struct Reference {
    name: String,
    bytes: Vec<u8>,
}

impl Reference {
    /// Reads the fixture `name`, such as `tiny/tiny-llama-q4_0-2.safetensors`.
    pub fn open(name: &str) -> Reference {
        Reference {
            name: name.to_owned(),
            bytes: fixture_bytes(name),
        }
    }

    /// The names of its tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .file()
            .names()
            .into_iter()
            .map(|name| name.to_string())
            .collect();
        names.sort();
        names
    }

    /// Shape (row-major) and values of an F32 tensor.
    pub fn f32(&self, tensor: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, bytes) = self.tensor(tensor, Dtype::F32);
        let values = bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect();
        (shape, values)
    }

    /// Shape (row-major) and values of an I32 tensor.
    pub fn i32(&self, tensor: &str) -> (Vec<usize>, Vec<i32>) {
        let (shape, bytes) = self.tensor(tensor, Dtype::I32);
        let values = bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| i32::from_le_bytes(*b))
            .collect();
        (shape, values)
    }

    /// Shape (row-major) and values of a U8 tensor.
    pub fn u8(&self, tensor: &str) -> (Vec<usize>, Vec<u8>) {
        self.tensor(tensor, Dtype::U8)
    }

    fn tensor(&self, tensor: &str, dtype: Dtype) -> (Vec<usize>, Vec<u8>) {
        let file = self.file();
        let view = file
            .tensor(tensor)
            .unwrap_or_else(|e| panic!("{}: {tensor}: {e}", self.name));
        assert_eq!(view.dtype(), dtype, "{}: {tensor}", self.name);
        (view.shape().to_vec(), view.data().to_vec())
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }
}

/// `|a - b| / |b|` in the 2-norm; infinite when anything is not finite or the lengths differ.
pub fn relative_error(values: &[f32], reference: &[f32]) -> f64 {
    if values.len() != reference.len() {
        return f64::INFINITY;
    }
    let square = |v: f64| v * v;
    let pairs = || {
        values
            .iter()
            .zip(reference)
            .map(|(&a, &b)| (f64::from(a), f64::from(b)))
    };
    let difference: f64 = pairs().map(|(a, b)| square(a - b)).sum();
    let norm: f64 = pairs().map(|(_, b)| square(b)).sum();
    let error = (difference / norm).sqrt();
    if error.is_finite() {
        error
    } else {
        f64::INFINITY
    }
}

/// One prompt of `tests/fixtures/greedy`.
#[derive(serde::Deserialize)]
pub struct GreedyCase {
    /// The prompt's text.
    pub prompt: String,
    /// The prompt's tokens.
    pub tokens: Vec<u32>,
    /// The tokens that follow.
    pub greedy: Vec<u32>,
    /// Distance between the best and the second logit at each of them.
    pub gap: Vec<f32>,
    /// Their text.
    pub text: String,
}

impl GreedyCase {
    /// To compare an engine's tokens with.
    pub fn greedy_text(&self) -> greedy::GreedyText<'_> {
        greedy::GreedyText {
            name: &self.prompt,
            prompt: &self.tokens,
            greedy: &self.greedy,
            gaps: &self.gap,
        }
    }
}

/// The prompts of a real model.
pub fn greedy_cases(name: &str) -> Vec<GreedyCase> {
    let file = fixture(&format!("greedy/{name}.json"));
    serde_json::from_slice(&fs::read(file).expect("a fixture")).expect("greedy cases")
}

/// The path of a real model by its short name. They are too large for the repository;
/// `cargo xtask test` puts them into the user's cache.
pub fn model(name: &str) -> PathBuf {
    let cache = model_cache::Cache::from_env().expect("a cache folder");
    let model = model_cache::known_model(name).expect("a known model");
    let path = cache.path_of(model);
    assert!(
        cache.holds(model),
        "{} is missing; `cargo xtask test` fetches the models that tests need",
        path.display()
    );
    path
}
