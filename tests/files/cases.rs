//! Small models of kinds that people have, with llama.cpp's logits for those that run.

use hyperion::gguf::{Gguf, Value};

use crate::support::fixture;
use crate::{against, copy_of, fail, scratch, succeed, write};

fn accepted(name: &str, devices: &[&str]) {
    let model = fixture(&format!("cases/{name}.gguf"));
    let reference = fixture(&format!("cases/{name}.safetensors"));
    for device in devices {
        succeed(&against(&model, &reference, device));
    }
}

// The simulator, like a GPU, has no attention kernel for heads of 16 elements, which the Llama cases have.

#[test]
fn fused_qkv() {
    accepted("fused-qkv", &["cpu"]);
}

#[test]
fn head_counts_as_an_array() {
    accepted("head-count-kv-array", &["cpu"]);
}

#[test]
fn qwen2_without_biases() {
    accepted("qwen2-without-qkv-bias", &["cpu"]);
}

#[test]
fn gemma3_without_a_window() {
    accepted("gemma3-no-window", &["cpu", "sim"]);
}

#[test]
fn gemma3_with_a_pattern_of_its_own() {
    accepted("gemma3-pattern-3", &["cpu", "sim"]);
}

#[test]
fn gemma3_with_the_names_of_ollama() {
    accepted("gemma3-ollama-rope-keys", &["cpu", "sim"]);
}

#[test]
fn an_attention_factor_without_yarn() {
    accepted("rope-attn-factor-linear", &["cpu"]);
}

#[test]
fn a_pattern_layer_by_layer_and_a_window_of_0() {
    let scratch = scratch();
    let reference = fixture("cases/gemma3-pattern-3.safetensors");
    let mut model = copy_of("cases/gemma3-pattern-3.gguf");
    let key = "gemma3.attention.sliding_window_pattern";
    let local = (0..7).map(|layer| layer % 3 != 2).collect();
    model.set(key, Value::Array(hyperion::gguf::Array::Bool(local)));
    let path = write(&scratch, "array.gguf", &model.to_bytes());
    succeed(&against(&path, &reference, "cpu"));

    let reference = fixture("cases/gemma3-no-window.safetensors");
    let mut model = copy_of("cases/gemma3-no-window.gguf");
    model.set("gemma3.attention.sliding_window", Value::U32(0));
    let path = write(&scratch, "zero.gguf", &model.to_bytes());
    succeed(&against(&path, &reference, "cpu"));
}

/// Quantized rows, biases of the fused matrix, and the device's kernels.
#[test]
fn fused_matrices_equal_separate_ones() {
    let scratch = scratch();
    for (name, device) in [
        ("tiny-llama-q4_0-2", "sim"),
        ("tiny-qwen2-f16-1", "sim"),
        ("tiny-qwen3-q8_0-1", "cpu"),
    ] {
        let mut model = copy_of(&format!("tiny/{name}.gguf"));
        let blocks = model
            .tensors
            .iter()
            .filter(|t| t.name.ends_with("attn_q.weight"));
        for block in 0..blocks.count() {
            for kind in ["weight", "bias"] {
                let part = |part: &str| format!("blk.{block}.{part}.{kind}");
                if !model
                    .tensors
                    .iter()
                    .any(|tensor| tensor.name == part("attn_q"))
                {
                    continue;
                }
                let mut fused = model.take(&part("attn_q"));
                for other in ["attn_k", "attn_v"] {
                    let other = model.take(&part(other));
                    assert_eq!(fused.ty, other.ty, "a fixture with one type for Q, K and V");
                    *fused.dims.last_mut().expect("a dimension") += other.dims.last().unwrap();
                    fused.data.extend(other.data);
                }
                fused.name = part("attn_qkv");
                model.tensors.push(fused);
            }
        }
        let path = write(&scratch, "fused.gguf", &model.to_bytes());
        let reference = fixture(&format!("tiny/{name}.safetensors"));
        succeed(&against(&path, &reference, device));
    }
}

#[test]
fn what_is_refused_names_the_reason() {
    let cases = [
        (
            "llama-extra-qk-norm-ignored",
            "\"blk.0.attn_q_norm.weight\"",
        ),
        (
            "mmproj",
            "\"clip\" is not supported (the image or sound part",
        ),
        (
            "gemma4-arch",
            "\"gemma4\" is not supported; hyperion runs llama, qwen2, qwen3, qwen2moe, qwen3moe, gemma3, granite, smollm3, phi3, olmo2, mistral3",
        ),
    ];
    for (name, reason) in cases {
        let path = fixture(&format!("cases/{name}.gguf"));
        let path = path.to_str().expect("UTF-8");
        for arguments in [
            &["verify", path, "--device", "cpu"][..],
            &["generate", path, "-p", "a", "--device", "cpu"],
            &["bench", path, "--device", "cpu"],
        ] {
            let error = fail(arguments);
            assert!(error.contains(reason), "{error}, not {reason}");
        }
    }
}

#[test]
fn files_that_accompany_a_model_say_so() {
    let scratch = scratch();
    for (kind, arch, expected) in [
        ("adapter", Some("llama"), "general.type is \"adapter\""),
        ("imatrix", None, "general.type is \"imatrix\""),
        ("mmproj", Some("clip"), "hyperion runs llama"),
        ("model", Some("bert"), "an embedding model"),
    ] {
        let mut model = copy_of("cases/mmproj.gguf");
        model.set("general.type", Value::String(kind.to_owned()));
        model.remove("general.architecture");
        if let Some(arch) = arch {
            model.set("general.architecture", Value::String(arch.to_owned()));
        }
        let path = write(&scratch, "m.gguf", &model.to_bytes());
        let error = fail(&[
            "generate".as_ref(),
            path.as_os_str(),
            "-p".as_ref(),
            "a".as_ref(),
        ]);
        assert!(error.contains(expected), "{error}, not {expected}");
    }
}

#[test]
fn inspect_shows_what_is_not_used_or_why_it_does_not_run() {
    let scratch = scratch();
    let mut model = copy_of("cases/head-count-kv-array.gguf");
    model.add_f32("blk.0.attn_q.input_scale", &[1], &[1.0]);
    let path = write(&scratch, "m.gguf", &model.to_bytes());
    let text = succeed(&["inspect".as_ref(), path.as_os_str()]);
    let not_used = text.split("NOT USED").nth(1).unwrap_or_default();
    for name in ["blk.0.attn_q.input_scale", "llama.vocab_size"] {
        assert!(not_used.contains(name), "{text}");
    }
    let extra = fixture("cases/llama-extra-qk-norm-ignored.gguf");
    let text = succeed(&["inspect".as_ref(), extra.as_os_str()]);
    assert!(
        text.contains("does not run this file") && text.contains("attn_q_norm"),
        "{text}"
    );
    assert!(Gguf::open(&extra).is_ok());
}
