//! Tests of `ops/dequantize.rs`.

use half::f16;
use kernels_gpu::abi::{DequantizeParams, UNPACK_THREADS, UnpackPlan, WeightType};
use kernels_gpu::ops::dequantize;
use kernels_gpu::prim::half::F16;
use kernels_gpu::weight_types;
use safetensors::SafeTensors;

use crate::harness::{Case, Random, Shape};
use crate::weights::Matrix;

/// Decodes on the device, on a grid for `multiprocessors`, and compares bits with the reader's decoding
/// rounded once.
pub fn check(name: &str, ty: WeightType, matrix: &Matrix, multiprocessors: u32) {
    check_scaled(name, ty, matrix, multiprocessors, 1.0);
}

/// The same with elements that are not quantized times `factor`.
fn check_scaled(name: &str, ty: WeightType, matrix: &Matrix, multiprocessors: u32, factor: f32) {
    let n = matrix.values.len();
    let mut case = Case::new(format!("dequantize {}, {name}", ty.name()));
    let weights = case.input("weights", &matrix.bytes);
    let y = case.output::<F16>("y", n);
    let plan = UnpackPlan::dequantize(ty, n as u64, multiprocessors);
    let shape = Shape {
        grid: plan.grid,
        block: UNPACK_THREADS,
        shared_bytes: plan.shared_bytes,
    };
    let params = DequantizeParams {
        weights,
        y: y.cast(),
        n: n as u64,
        factor,
        reserved: 0,
    };
    case.launch(&dequantize::kernel(ty), shape, params);
    for (i, (actual, value)) in case.read(y).into_iter().zip(&matrix.values).enumerate() {
        let factor = if ty.is_quantized() { 1.0 } else { factor };
        let expected = f16::from_f32(*value * factor);
        assert!(
            actual.0 == expected.to_bits() && !value.is_nan(),
            "{}, {name}: element {i} is {}, not {expected}",
            ty.name(),
            f16::from_bits(actual.0)
        );
    }
}

/// The reference blocks of a type, inside the test binary; F32 has none.
fn reference(ty: WeightType) -> Option<SafeTensors<'static>> {
    macro_rules! files {
        (
            {}
            plain { $f32:ident = $f32_id:literal, $f32_ggml:literal, $f32_name:ident, $f32_one:literal, $f32_scalar:ty, $f32_weights:ident; $($plain:ident = $plain_id:literal, $plain_ggml:literal, $plain_name:ident, $one:literal, $scalar:ty, $_p:ident;)* }
            quantized { $($quantized:ident = $id:literal, $ggml:literal, $name:ident, $elements:ident, $block:ident, $_q:ident;)* }
        ) => {
            match ty {
                WeightType::$f32 => return None,
                $(WeightType::$plain => file!($plain_name),)*
                $(WeightType::$quantized => file!($name),)*
            }
        };
    }
    macro_rules! file {
        ($name:ident) => {
            include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/fixtures/dequant/",
                stringify!($name),
                ".safetensors"
            ))
        };
    }
    let bytes: &[u8] = weight_types!(files);
    Some(SafeTensors::deserialize(bytes).expect("a fixture"))
}

#[test]
fn every_type_is_bit_exact_on_the_reference_blocks() {
    for &ty in WeightType::ALL {
        let Some(file) = reference(ty) else { continue };
        let values = file.tensor("values").expect("its values").data();
        let blocks = file.tensor("blocks").expect("its blocks").data().to_vec();
        let matrix = Matrix::decode(ty, blocks, values.len() / size_of::<f32>());
        let decoded: Vec<u8> = matrix.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert!(decoded == values, "the reader's {}", ty.name());
        check("reference blocks", ty, &matrix, 132);
    }
}

#[test]
fn every_type_in_ragged_minimal_and_typical_shapes() {
    for &ty in WeightType::ALL {
        let mut random = Random::new(7);
        let block = ty.block_elements() as usize;
        // A block; a tile and a block; several rounds of one multiprocessor's blocks with an odd end;
        // rows of Qwen2.5-0.5B.
        let tile = ty.tile_elements() as usize;
        for blocks in [
            1,
            tile / block + 1,
            70 * tile / block + 3,
            4864_usize.div_ceil(block),
            (5 * 896_usize).div_ceil(block),
        ] {
            let matrix = Matrix::random(ty, blocks, block, &mut random);
            check(&format!("{blocks} blocks"), ty, &matrix, 1);
        }
    }
}

#[test]
fn plain_types_outside_the_range_of_f16() {
    for &ty in WeightType::ALL {
        let matrix = Matrix::random(ty, 8, 256, &mut Random::new(3));
        for factor in [1.0 / 1024.0, 4096.0] {
            check_scaled(&format!("times {factor}"), ty, &matrix, 1, factor);
        }
    }
    // Elements that f16 would round to zero or to infinity.
    for (size, factor) in [(1e-9f32, 2f32.powi(40)), (1e9, 2f32.powi(-20))] {
        let values: Vec<f32> = Random::new(4).floats(512, size);
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let matrix = Matrix::decode(WeightType::F32, bytes, values.len());
        check_scaled(&format!("of {size}"), WeightType::F32, &matrix, 1, factor);
    }
}
