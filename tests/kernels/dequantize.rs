//! Tests of `ops/dequantize.rs`.

use half::f16;
use kernels_gpu::abi::{DECODE_WARPS, DecodePlan, DequantizeParams, WeightType};
use kernels_gpu::ops::dequantize;
use kernels_gpu::prim::half::F16;

use crate::harness::{Case, Random, Shape};
use crate::support::Reference;
use crate::weights::Matrix;

/// Decodes on the device, on a grid for `multiprocessors`, and compares bits with the reader's decoding
/// rounded once.
fn check(name: &str, ty: WeightType, matrix: &Matrix, multiprocessors: u32) {
    let n = matrix.values.len();
    let mut case = Case::new(format!("dequantize {}, {name}", ty.name()));
    let weights = case.input("weights", &matrix.bytes);
    let y = case.output::<F16>("y", n);
    let plan = DecodePlan::dequantize(ty, n as u64, multiprocessors);
    let shape = Shape {
        grid: plan.grid,
        block: 32 * DECODE_WARPS,
        shared_bytes: plan.shared_bytes,
    };
    let params = DequantizeParams {
        weights,
        y: y.cast(),
        n: n as u64,
    };
    case.launch(&dequantize::kernel(ty), shape, params);
    for (i, (actual, value)) in case.read(y).into_iter().zip(&matrix.values).enumerate() {
        let expected = f16::from_f32(*value);
        assert!(
            actual.0 == expected.to_bits() && !value.is_nan(),
            "{}, {name}: element {i} is {}, not {expected}",
            ty.name(),
            f16::from_bits(actual.0)
        );
    }
}

#[test]
fn every_type_is_bit_exact_on_the_reference_blocks() {
    for &ty in WeightType::ALL.iter().filter(|&&ty| ty != WeightType::F32) {
        let file = Reference::open(&format!("dequant/{}.safetensors", ty.name()));
        let values = file.f32("values").1;
        let matrix = Matrix::decode(ty, file.u8("blocks").1, values.len());
        let bits = |values: &[f32]| -> Vec<u32> { values.iter().map(|v| v.to_bits()).collect() };
        assert_eq!(bits(&matrix.values), bits(&values));
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
