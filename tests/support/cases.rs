//! Files of `tests/fixtures/cases` that are another one with some entries changed, made instead of kept.

use hyperion::gguf::{Array, Gguf, Value};

use super::fixture;
use super::gguf_writer::GgufWriter;

const LLAMA: &str = "cases/head-count-kv-array.gguf";
const GEMMA: &str = "cases/gemma3-pattern-3.gguf";

/// The file called `name`, if it is made.
pub fn made(name: &str) -> Option<Vec<u8>> {
    let base = if name.starts_with("gemma3-") {
        GEMMA
    } else {
        LLAMA
    };
    let change: fn(&mut GgufWriter) = match name {
        "gemma3-no-window" => without_window,
        "gemma3-ollama-rope-keys" => with_names_of_ollama,
        "llama-extra-qk-norm-ignored" => with_norms_of_heads,
        "qwen2-without-qkv-bias" => as_qwen2,
        "rope-attn-factor-linear" => with_attention_factor,
        "gemma4-arch" => as_gemma4,
        "mmproj" => as_projector,
        "split-00001-of-00003" => |file| split(file, 0),
        "split-00002-of-00003" => |file| split(file, 1),
        "split-00003-of-00003" => |file| split(file, 2),
        _ => return None,
    };
    let base = Gguf::open(&fixture(base)).expect("the file that it is made of");
    let mut file = GgufWriter::from_gguf(&base);
    change(&mut file);
    Some(file.to_bytes())
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn without_window(file: &mut GgufWriter) {
    file.set("gemma3.rope.freq_base", Value::F32(10_000.0));
    file.remove("gemma3.attention.sliding_window");
    file.remove("gemma3.attention.sliding_window_pattern");
}

fn with_names_of_ollama(file: &mut GgufWriter) {
    file.set("gemma3.rope.global.freq_base", Value::F32(1_000_000.0));
    file.set("gemma3.rope.local.freq_base", Value::F32(10_000.0));
    file.remove("gemma3.rope.freq_base");
    file.remove("gemma3.rope.dimension_count");
    file.remove("gemma3.attention.sliding_window_pattern");
}

/// One count of KV heads for all layers, as most files have it.
fn with_plain_head_count(file: &mut GgufWriter) {
    file.set("llama.attention.head_count_kv", Value::U32(2));
}

fn with_norms_of_heads(file: &mut GgufWriter) {
    with_plain_head_count(file);
    for block in 0..2 {
        for part in ["q", "k"] {
            file.add_f32(
                &format!("blk.{block}.attn_{part}_norm.weight"),
                &[16],
                &[3.0; 16],
            );
        }
    }
}

fn with_attention_factor(file: &mut GgufWriter) {
    with_plain_head_count(file);
    file.set("llama.rope.scaling.type", text("linear"));
    file.set("llama.rope.scaling.factor", Value::F32(4.0));
    file.set("llama.rope.scaling.attn_factor", Value::F32(0.6));
}

/// Gives the file's keys another architecture.
fn rename(file: &mut GgufWriter, arch: &str) {
    with_plain_head_count(file);
    for (key, _) in &mut file.metadata {
        if let Some(rest) = key.strip_prefix("llama.") {
            *key = format!("{arch}.{rest}");
        }
    }
    file.set("general.architecture", text(arch));
}

fn as_qwen2(file: &mut GgufWriter) {
    rename(file, "qwen2");
    file.set("tokenizer.ggml.pre", text("qwen2"));
}

/// One block under the name `arch`, without a vocabulary.
fn first_block(file: &mut GgufWriter, arch: &str) {
    rename(file, arch);
    file.set(&format!("{arch}.block_count"), Value::U32(1));
    file.metadata
        .retain(|(key, _)| !key.starts_with("tokenizer."));
    file.tensors
        .retain(|tensor| !tensor.name.starts_with("blk.1."));
}

fn as_gemma4(file: &mut GgufWriter) {
    first_block(file, "gemma4");
    let tokens = ["a", "b"].into_iter().collect();
    file.set("tokenizer.ggml.model", text("gemma4"));
    file.set("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
}

fn as_projector(file: &mut GgufWriter) {
    first_block(file, "clip");
}

/// One of three parts of seven tensors each, as `gguf-split` writes them: only the first has all keys.
fn split(file: &mut GgufWriter, part: u16) {
    with_plain_head_count(file);
    if part > 0 {
        file.metadata
            .retain(|(key, _)| key == "general.architecture");
    }
    let first = usize::from(part) * 7;
    file.tensors = file.tensors[first..first + 7].to_vec();
    file.set("split.no", Value::U16(part));
    file.set("split.count", Value::U16(3));
    file.set("split.tensors.count", Value::I32(21));
}
