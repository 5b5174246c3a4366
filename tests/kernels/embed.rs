//! Tests of `ops/embed.rs`.

use kernels_gpu::abi::{EmbedParams, UNPACK_THREADS, UnpackPlan, WeightType};
use kernels_gpu::ops::embed;

use crate::harness::{Case, Random, Shape, Tolerance};
use crate::weights::Matrix;

fn check(ty: WeightType, rows: usize, width: usize, tokens: &[u32], scale: f32) {
    let mut random = Random::new((rows * width) as u64);
    let table = Matrix::random(ty, rows, width, &mut random);
    let expected: Vec<f64> = tokens
        .iter()
        .flat_map(|&token| {
            let row = table.values.chunks(width).nth(token as usize);
            let row = row.map_or(vec![0.0; width], <[f32]>::to_vec);
            row.into_iter().map(|value| f64::from(value * scale))
        })
        .collect();

    let mut case = Case::new(format!("embed {}, {rows} rows of {width}", ty.name()));
    let params = EmbedParams {
        table: case.input("table", &table.bytes),
        tokens: case.input("tokens", tokens),
        y: case.output("y", expected.len()),
        width: width as u32,
        rows: rows as u32,
        scale,
        reserved: 0,
    };
    let plan = UnpackPlan::embed(ty, tokens.len() as u32, width as u32);
    let shape = Shape {
        grid: plan.grid,
        block: UNPACK_THREADS,
        shared_bytes: plan.shared_bytes,
    };
    case.launch(&embed::kernel(ty), shape, params);
    case.check(params.y, &expected, Tolerance::EXACT);
}

#[test]
fn rows_of_every_type() {
    for &ty in WeightType::ALL {
        let block = ty.block_elements() as usize;
        check(ty, 1, block, &[0], 1.0);
        check(ty, 5, 3 * block, &[4, 0, 4, 2], 0.5);
        // More than a block of the grid, with an incomplete tile at the end.
        check(ty, 3, 9 * 1024 + block, &[1, 2], 1.0);
        let whole = |n: usize| n.next_multiple_of(block);
        check(ty, 40, whole(896), &[39, 7, 13], 1.0);
        // Gemma multiplies by the root of its width.
        check(ty, 9, whole(640), &[8, 8, 1, 0, 5], 25.298_222);
    }
}

#[test]
fn a_token_outside_of_the_table_is_zeros() {
    check(WeightType::Q8_0, 4, 64, &[3, 4, u32::MAX, 0], 1.0);
}
