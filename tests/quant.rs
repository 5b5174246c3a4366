//! Decoders of all tensor types.
mod support;

use hyperion::gguf::{GgmlType, quant};
use kernels_gpu::abi::WeightType;
use support::Reference;

/// The reference of a type: its blocks and their exact values.
fn golden(ty: GgmlType) -> (Vec<u8>, Vec<f32>) {
    if ty == GgmlType::F32 {
        // There is no file for what needs no decoding.
        let values: Vec<f32> = (-2048i16..2048).map(|i| f32::from(i) * 0.37).collect();
        return (
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            values,
        );
    }
    let file = Reference::open(&format!("dequant/{}.safetensors", ty.name().to_lowercase()));
    let (shape, blocks) = file.u8("blocks");
    assert_eq!(shape[1], ty.block_bytes(), "{ty}");
    (blocks, file.f32("values").1)
}

/// Every type of weights.
fn types() -> impl Iterator<Item = GgmlType> {
    WeightType::ALL.iter().map(|&ty| ty.into())
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn decoded_values_are_bit_exact() {
    for ty in types() {
        let (blocks, want) = golden(ty);
        let mut got = vec![f32::NAN; want.len()];
        quant::dequantize(ty, &blocks, &mut got).expect("whole blocks");
        assert!(bits(&got) == bits(&want), "{ty}");
    }
}

#[test]
fn decoding_does_not_depend_on_alignment() {
    for ty in types() {
        let (blocks, want) = golden(ty);
        let mut shifted = vec![0];
        shifted.extend(&blocks);
        let mut got = vec![f32::NAN; want.len()];
        quant::dequantize(ty, &shifted[1..], &mut got).expect("whole blocks");
        assert!(bits(&got) == bits(&want), "{ty}");
    }
}

#[test]
fn integers_and_doubles_become_the_nearest_floats() {
    let mut out = [0.0; 2];
    let bytes = [i64::MIN, 3].map(i64::to_le_bytes).concat();
    quant::dequantize(GgmlType::I64, &bytes, &mut out).expect("two numbers");
    assert_eq!(out, [-9.223_372e18, 3.0]);
    let bytes = [0.1f64, -2.5].map(f64::to_le_bytes).concat();
    quant::dequantize(GgmlType::F64, &bytes, &mut out).expect("two numbers");
    assert_eq!(out, [0.1, -2.5]);
    quant::dequantize(GgmlType::I8, &[0x80, 0x7f], &mut out).expect("two numbers");
    assert_eq!(out, [-128.0, 127.0]);
}

#[test]
fn wrong_lengths_are_refused() {
    let mut out = [0.0; 64];
    let error = quant::dequantize(GgmlType::Q4_0, &[0; 35], &mut out).expect_err("odd bytes");
    assert_eq!(
        error.to_string(),
        "64 elements of Q4_0 do not make 35 bytes"
    );
    assert!(quant::dequantize(GgmlType::Q4K, &[0; 144], &mut out).is_err());
}
