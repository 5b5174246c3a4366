//! The reference data is complete and readable.
mod support;

use sha2::{Digest, Sha256};
use support::{Reference, TINY_MODELS, fixture, fixture_bytes};

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

/// The references were computed from these very files, whose noise numpy drew.
#[test]
fn tiny_models_are_those_of_the_references() {
    let expected = [
        "c023347635055c2919a92a2ea8497cee176fb8402fc43b6d67a98c87076509be",
        "5cc840709ad3a2ad021c0fc6c2b4b24a06aef248540851c5a9c7ef3b8222aac3",
        "8d9995906097010aab4741793a9c3e1a07be22ed409a5e4f916223593737a31d",
        "c2e72dfda181a246b004e07f47a7407feae205bd0254b0e2a76b83d09a38979d",
        "b7280c588442c0d020323fc19b689180711386a843005b7ef7ec18c6c40bef95",
        "6f2b2412d74148ff3bfe908786b1d9526ce44a892c6a45e4cc1381e3c1dcfc55",
        "c8683aef1b8282ac41db59d792df35910f11a7b16c0411d8a8c6557defed8f4a",
    ];
    for (name, expected) in TINY_MODELS.into_iter().zip(expected) {
        let digest = Sha256::digest(fixture_bytes(&format!("tiny/{name}.gguf")));
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, expected, "{name}");
    }
}
