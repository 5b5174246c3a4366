//! The reference data is complete and readable.
mod support;

use support::{Reference, fixture, fixture_bytes};

#[test]
fn packed_fixtures_unpack_to_what_was_packed() {
    for (name, len) in [
        ("vocab/qwen2.gguf", 5_928_681),
        ("vocab/llama-spm.gguf", 723_869),
    ] {
        let bytes = fixture_bytes(name);
        assert_eq!(bytes.len(), len, "{name}");
        assert!(bytes.starts_with(b"GGUF"), "{name}");
        assert_eq!(
            std::fs::read(fixture(name)).expect("unpacked file"),
            bytes,
            "{name}"
        );
    }
}

#[test]
fn references_give_shapes_and_values() {
    let reference = Reference::open("tiny/tiny-llama-q4_0-2.safetensors");
    let (shape, tokens) = reference.i32("tokens");
    assert_eq!((shape, tokens.len()), (vec![40], 40));
    let (shape, logits) = reference.f32("logits");
    assert_eq!((shape, logits.len()), (vec![40, 512], 40 * 512));
    assert!(reference.names().contains(&"l_out-0".to_owned()));
}
