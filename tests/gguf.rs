//! The reader on real files.
mod support;

use hyperion::gguf::{Array, GgmlType, Gguf, Problem, Value};
use kernels_gpu::quant::{BlockQ4K, BlockQ6K};
use support::{TINY_MODELS, fixture};

fn open(name: &str) -> Gguf {
    Gguf::open(&fixture(name)).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn tiny_models_open_and_unpack() {
    for name in TINY_MODELS {
        let gguf = open(&format!("tiny/{name}.gguf"));
        assert_eq!((gguf.version(), gguf.alignment()), (3, 32), "{name}");
        let architecture = gguf.metadata().get_str("general.architecture").expect(name);
        assert!(name.contains(architecture), "{name}: {architecture}");
        assert!(gguf.tensors().len() > 10, "{name}");
        for tensor in gguf.tensors() {
            let values = tensor.to_f32();
            assert_eq!(
                values.len(),
                tensor.n_rows() * tensor.row_len(),
                "{tensor:?}"
            );
            assert!(values.iter().all(|v| v.is_finite()), "{name}: {tensor:?}");
        }
    }
}

#[test]
fn tensors_are_viewed_in_place() {
    let gguf = open("tiny/tiny-llama-q4_k_m-1.gguf");
    let tensor = gguf
        .require("blk.0.attn_q.weight")
        .expect("a tensor of every llama");
    assert_eq!(tensor.ty(), GgmlType::Q4K);
    assert_eq!(tensor.dims(), [256, 256]);
    assert_eq!(
        tensor.blocks::<BlockQ4K>().expect("its own type").len(),
        256
    );
    let error = tensor
        .blocks::<BlockQ6K>()
        .expect_err("another type")
        .to_string();
    assert!(
        error.contains("blk.0.attn_q.weight") && error.contains("BlockQ6K"),
        "{error}"
    );

    let all = tensor.to_f32();
    let mut rows = vec![0.0; 3 * 256];
    tensor.dequantize_rows(5..8, &mut rows);
    assert_eq!(rows, all[5 * 256..8 * 256]);
    let file = std::fs::read(gguf.path()).expect("the file");
    assert_eq!(
        tensor.row_bytes(5),
        &file[tensor.offset() as usize + 5 * 144..][..144]
    );

    // A tensor keeps the mapping alive.
    let tensor = tensor.clone();
    drop(gguf);
    assert_eq!(tensor.to_f32(), all);
}

#[test]
fn vocabularies_have_typed_arrays() {
    let gguf = open("vocab/qwen2.gguf");
    assert!(gguf.tensors().is_empty());
    let tokens = gguf
        .metadata()
        .get_strs("tokenizer.ggml.tokens")
        .expect("tokens");
    assert_eq!(
        (tokens.len(), tokens.get(0), tokens.get(1)),
        (151_936, Some("!"), Some("\""))
    );
    assert_eq!(tokens.iter().count(), tokens.len());
    let types: &[i32] = gguf
        .metadata()
        .require("tokenizer.ggml.token_type")
        .expect("types");
    assert_eq!(types.len(), tokens.len());

    let gguf = open("vocab/llama-spm.gguf");
    let scores: &[f32] = gguf
        .metadata()
        .require("tokenizer.ggml.scores")
        .expect("scores");
    assert_eq!(scores.len(), 32_000);
    assert!(matches!(
        gguf.metadata().get("tokenizer.ggml.tokens"),
        Some(Value::Array(Array::String(_)))
    ));
}

#[test]
fn errors_name_file_key_and_type() {
    let gguf = open("tiny/tiny-llama-q4_0-2.gguf");
    let metadata = gguf.metadata();
    let error = metadata
        .get_u64("general.architecture")
        .expect_err("a string");
    assert!(matches!(error.problem(), Problem::WrongType { .. }));
    let text = error.to_string();
    assert!(text.contains("tiny-llama-q4_0-2.gguf: metadata general.architecture is a string"));
    let error = metadata
        .get_f32("llama.block_count")
        .expect_err("an integer")
        .to_string();
    assert!(
        error.ends_with("llama.block_count is the u32 2, where a float is needed"),
        "{error}"
    );
    let error = metadata
        .get_str("no.such.key")
        .expect_err("missing")
        .to_string();
    assert!(error.ends_with("metadata has no no.such.key"), "{error}");
    assert_eq!(metadata.find::<u32>("no.such.key").expect("optional"), None);
    let error = gguf
        .require("no.such.tensor")
        .expect_err("missing")
        .to_string();
    assert!(error.ends_with("has no tensor no.such.tensor"), "{error}");
}

#[test]
fn what_is_no_file_is_refused() {
    let error = Gguf::open(&fixture("tiny"))
        .expect_err("a folder")
        .to_string();
    assert!(error.ends_with("tiny: is a directory, not a file; give the path of a GGUF file"));
    let missing = Gguf::open(std::path::Path::new("no/such.gguf")).expect_err("missing");
    assert!(
        missing
            .to_string()
            .starts_with("no/such.gguf: cannot be read: "),
        "{missing}"
    );
    #[cfg(unix)]
    assert!(Gguf::open(std::path::Path::new("/dev/zero")).is_err());
}
