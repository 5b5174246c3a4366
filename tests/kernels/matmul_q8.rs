//! Tests of `ops/matmul_q8.rs` and its parts.

use kernels_gpu::abi::{
    MATMUL_Q8_MAX_VECTORS, MATMUL_Q8_TILES, MatmulQ8Params, MatmulQ8Plan, MatvecOrder, WeightType,
};
use kernels_gpu::ops::matmul_q8_entries::kernel;

use crate::harness::Shape;
use crate::q8_vectors::Encoded;
use crate::segments::Products;

/// The types that there are kernels for.
const TYPES: [WeightType; 8] = [
    WeightType::Q4_0,
    WeightType::Q4_1,
    WeightType::Q5_0,
    WeightType::Q5_1,
    WeightType::Q8_0,
    WeightType::Q4K,
    WeightType::Q5K,
    WeightType::Q6K,
];

/// Multiplies on the device and in f64, and compares.
fn check(products: Products, multiprocessors: u32) {
    let Products {
        ty, n_in, vectors, ..
    } = products;
    let plan = MatmulQ8Plan::new(
        ty,
        products.n_out.map(|n| n as u32),
        n_in as u32,
        vectors as u32,
        multiprocessors,
        163 << 10,
    );
    let plan = plan.expect("it fits");
    let (mut case, mut random) = products.case(&plan);
    let encoded = Encoded::of(&random.floats(vectors * n_in, 1.0), n_in, vectors);
    let x = encoded.values();
    let (segments, expected) =
        products.random(&mut case, &mut random, &x, f64::from, &vec![1.0; vectors]);
    let params = MatmulQ8Params {
        x: encoded.input(&mut case),
        segments,
        n_in: n_in as u32,
        vectors: vectors as u32,
        tile_ends: plan.tile_ends,
        k_groups_log2: plan.k_groups.ilog2(),
        accumulate: products.accumulate.into(),
        order: MatvecOrder::InTurn as u32,
    };
    let shape = Shape {
        grid: plan.grid,
        block: plan.block,
        shared_bytes: plan.shared_bytes,
    };
    let kernel = kernel(ty, plan.tiles).expect("there is one");
    case.launch(&kernel, shape, params);
    let (share, reason) = match ty {
        WeightType::Q4_1 | WeightType::Q5_1 | WeightType::Q4K | WeightType::Q5K => (
            1e-4,
            "minimums and the sums of groups are rounded to 10 bits; a wrong element would change a sum of \
             1,000 by 1e-3 of the magnitudes",
        ),
        _ => (
            4e-7,
            "f32 sums of exact products, whose roundings mostly cancel",
        ),
    };
    for expected in &expected {
        expected.check(&case, share, reason);
    }
}

#[test]
fn types_that_have_kernels() {
    for &ty in WeightType::ALL {
        for tiles in MATMUL_Q8_TILES {
            assert_eq!(kernel(ty, tiles).is_some(), TYPES.contains(&ty), "{ty:?}");
        }
        assert!(kernel(ty, 5).is_none());
    }
}

#[test]
fn too_many_vectors_have_no_plan() {
    let plan = |vectors| MatmulQ8Plan::new(WeightType::Q4K, [16, 0, 0], 256, vectors, 1, 163 << 10);
    assert!(plan(MATMUL_Q8_MAX_VECTORS).is_some());
    assert!(plan(MATMUL_Q8_MAX_VECTORS + 1).is_none());
}

#[test]
fn numbers_of_vectors() {
    for ty in TYPES {
        // A tile and less, all tiles of a kernel and one less.
        for vectors in [1, 5, 8, 9, 16, 17, 19, 20, 23, 24, 27, 32] {
            check(Products::new(ty, 20, 320, vectors), 1);
        }
    }
}

#[test]
fn shapes_of_every_type() {
    for ty in TYPES {
        // A block; rows that end inside a warp's and inside a step; rows of Qwen2.5-0.5B, whose ends are in the
        // middle of a step; more steps than warps; odd numbers of blocks; several tiles of rows a block.
        for (n_out, n_in) in [(1, 32), (5, 96), (100, 896), (37, 2432), (17, 1056)] {
            for vectors in [3, 12, 25] {
                check(Products::new(ty, n_out, n_in, vectors), 1);
            }
        }
    }
}

#[test]
fn several_matrices() {
    for ty in [WeightType::Q4K, WeightType::Q6K, WeightType::Q5_0] {
        for (n_out, multiprocessors) in [([33, 16, 7], 1), ([16, 48, 0], 2), ([100, 1, 15], 4)] {
            for accumulate in [false, true] {
                let products = Products {
                    n_out,
                    bias: true,
                    accumulate,
                    ..Products::new(ty, 1, 512, 7)
                };
                check(products, multiprocessors);
            }
        }
    }
}
