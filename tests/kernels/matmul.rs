//! Tests of `ops/matmul.rs` and its parts.

use half::f16;
use kernels_gpu::abi::{
    DevicePtr, MATMUL_MAX_STAGES, MATMUL_MAX_WARPS, MATMUL_TILE_VECTORS, MATMUL_TILES,
    MATMUL_WARP_ROWS, MatmulParams, MatmulPlan, MatvecSegment, WeightType,
};
use kernels_gpu::ops::matmul_entries::kernel;
use kernels_gpu::prim::scale::FACTOR_MAX;

use crate::harness::{Case, Random, Shape, widen};
use crate::segments::Products;
use crate::weights::Matrix;

/// Of the devices that there are: the least, that of the simulator, and the most.
const MAX_SHARED: [u32; 3] = [99 << 10, 163 << 10, 227 << 10];

/// What is multiplied, and how.
#[derive(Clone, Copy)]
struct Product {
    products: Products,
    /// Whether vectors were divided by scales, and the largest results are noted.
    scaled: bool,
    /// What the launch is planned for.
    multiprocessors: u32,
    max_shared: u32,
}

impl Product {
    fn new(ty: WeightType, n_out: usize, n_in: usize, vectors: usize) -> Self {
        Self::of(Products::new(ty, n_out, n_in, vectors))
    }

    fn of(products: Products) -> Self {
        Self {
            products,
            scaled: false,
            multiprocessors: 2,
            max_shared: 163 << 10,
        }
    }

    fn plan(&self) -> MatmulPlan {
        MatmulPlan::new(
            self.products.ty,
            self.products.n_out.map(|n| n as u32),
            self.products.n_in as u32,
            self.products.vectors as u32,
            self.multiprocessors,
            self.max_shared,
        )
        .expect("two stages fit")
    }

    /// Multiplies on the device and in f64, and compares.
    fn check(&self) {
        let products = self.products;
        let Products {
            ty, n_in, vectors, ..
        } = products;
        let plan = self.plan();
        let (mut case, mut random) = products.case(&plan);
        let x = random.halves(vectors * n_in, 1.0);
        let wide_x = widen(&x);
        // Two of three vectors have results that are noted.
        let (scale, scales): (f32, Vec<f32>) = match self.scaled {
            true => (
                4.0,
                (0..vectors).map(|t| [1.0, 64.0, 4096.0][t % 3]).collect(),
            ),
            false => (1.0, vec![1.0; vectors]),
        };
        let factors: Vec<f64> = scales.iter().map(|&s| f64::from(scale * s)).collect();
        let rounded = |w| f16::from_f32(w).to_f64();
        let (segments, expected) =
            products.random(&mut case, &mut random, &wide_x, rounded, &factors);
        let noted = case.in_out("maxima", &vec![0u32; vectors]);
        let params = MatmulParams {
            x: case.input("x", &x),
            segments,
            scales: match self.scaled {
                true => case.input("scales", &scales),
                false => DevicePtr::NULL,
            },
            maxima: match self.scaled {
                true => noted,
                false => DevicePtr::NULL,
            },
            n_in: n_in as u32,
            vectors: vectors as u32,
            accumulate: products.accumulate.into(),
            k_groups_log2: plan.k_groups.ilog2(),
            stages: plan.stages,
            row_groups_log2: plan.row_groups.ilog2(),
            block_ends: plan.block_ends,
            scale,
            reserved: 0,
        };
        let shape = Shape {
            grid: plan.grid,
            block: plan.block,
            shared_bytes: plan.shared_bytes,
        };
        let kernel = kernel(ty, plan.tiles).expect("there is one");
        case.launch(&kernel, shape, params);
        for expected in &expected {
            expected.check(
                &case,
                4e-7,
                "f32 sums of exact products, whose roundings mostly cancel: a wrong element would change a \
                 sum of 5,000 by 2e-4 of the magnitudes",
            );
        }
        for (t, noted) in case.read(noted).into_iter().enumerate() {
            let largest = expected.iter().fold(0f64, |most, e| most.max(e.maxima[t]));
            let noted = f64::from(f32::from_bits(noted));
            let expected = match self.scaled && largest > f64::from(FACTOR_MAX) {
                true => largest,
                false => 0.0,
            };
            let close = (noted - expected).abs() <= 1e-3 * expected;
            assert!(close, "a largest result of {largest} is noted as {noted}");
        }
    }
}

fn quantized() -> impl Iterator<Item = WeightType> {
    let all = WeightType::ALL.iter().copied();
    all.filter(|ty| ty.is_quantized())
}

#[test]
fn every_quantized_type_has_kernels() {
    for &ty in WeightType::ALL {
        for tiles in MATMUL_TILES {
            assert_eq!(kernel(ty, tiles).is_some(), ty.is_quantized(), "{ty:?}");
        }
        assert!(kernel(ty, 3).is_none());
    }
}

#[test]
fn numbers_of_vectors() {
    for ty in quantized() {
        // A tile and less, whole kernels and one more; two blocks of vectors.
        for vectors in [1, 9, 16, 17, 33, 64, 70] {
            Product::new(ty, 20, 320, vectors).check();
        }
    }
}

#[test]
fn shapes_of_every_type() {
    for ty in quantized() {
        // A block; rows that end inside a warp's and inside a block; rows of Qwen2.5-0.5B, whose ends are
        // in the middle of a stage; odd numbers of blocks.
        for (n_out, n_in) in [(1, 32), (5, 96), (100, 896), (37, 4864), (17, 1056)] {
            for vectors in [9, 20, 40] {
                Product::new(ty, n_out, n_in, vectors).check();
            }
        }
    }
}

#[test]
fn rows_of_a_small_model() {
    for (ty, vectors) in [
        (WeightType::Q4K, 64),
        (WeightType::Q6K, 33),
        (WeightType::Q5_0, 17),
        (WeightType::Q8_0, 10),
    ] {
        Product::new(ty, 896, 896, vectors).check();
    }
}

#[test]
fn sums_are_added_to_what_is_there() {
    for ty in quantized() {
        Product::of(Products {
            accumulate: true,
            ..Products::new(ty, 18, 256, 11)
        })
        .check();
    }
}

/// As around the gated activations: of vectors that were divided, and before them.
#[test]
fn scales_are_multiplied_back_and_large_results_noted() {
    for ty in quantized() {
        for (accumulate, bias) in [(false, false), (true, false), (false, true)] {
            let products = Products {
                n_out: [70, 17, 0],
                accumulate,
                bias,
                ..Products::new(ty, 0, 288, 11)
            };
            Product {
                scaled: true,
                ..Product::of(products)
            }
            .check();
        }
    }
}

#[test]
fn several_matrices_and_biases() {
    for ty in quantized() {
        // Matrices that end inside a block of rows, two that are whole blocks, and two alone.
        for n_out in [[70, 17, 5], [64, 64, 1], [20, 33, 0]] {
            for (accumulate, bias) in [(false, false), (false, true), (true, true)] {
                Product::of(Products {
                    n_out,
                    accumulate,
                    bias,
                    ..Products::new(ty, 0, 288, 11)
                })
                .check();
            }
        }
    }
    // Many rows: groups of rows share a block.
    Product::of(Products {
        n_out: [896, 128, 128],
        bias: true,
        ..Products::new(WeightType::Q5_0, 0, 896, 20)
    })
    .check();
}

#[test]
fn blocks_of_every_shape() {
    // From warps that all share their rows to warps that share them by twos, with two to four stages.
    let mut seen = std::collections::BTreeSet::new();
    for max_shared in MAX_SHARED {
        for multiprocessors in [1, 3, 16] {
            for vectors in [16, 32, 64] {
                for ty in [WeightType::Q3K, WeightType::Q4K, WeightType::Q8_0] {
                    let product = Product {
                        multiprocessors,
                        max_shared,
                        ..Product::new(ty, 130, 2304, vectors)
                    };
                    let plan = product.plan();
                    // What no device of the tests has shared memory for is only planned.
                    if plan.shared_bytes <= MAX_SHARED[1]
                        && seen.insert((plan.row_groups, plan.k_groups, plan.stages))
                    {
                        product.check();
                    }
                }
            }
        }
    }
    let values = |of: fn(&(u32, u32, u32)) -> u32| {
        let values: std::collections::BTreeSet<u32> = seen.iter().map(of).collect();
        values.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(values(|seen| seen.0), [1, 2, 4], "row groups");
    assert_eq!(values(|seen| seen.1), [2, 4, 8], "k groups");
    assert_eq!(values(|seen| seen.2), [2, 3, 4], "stages");
}

#[test]
fn plans_are_within_the_device_and_cover_the_matrix() {
    for ty in quantized() {
        for max_shared in MAX_SHARED {
            for (n_out, n_in) in [
                (1, 256),
                (896, 896),
                (4096, 14_336),
                (28_672, 4096),
                (151_936, 1024),
            ] {
                for vectors in [1, 16, 17, 64, 65, 1000] {
                    let plan = MatmulPlan::new(ty, [n_out, 0, 0], n_in, vectors, 132, max_shared);
                    let plan = plan.expect("two stages fit");
                    let what = format!("{ty:?} {n_out}x{n_in}, {vectors} vectors: {plan:?}");
                    let warps = plan.block / 32;
                    assert!(warps <= MATMUL_MAX_WARPS, "{what}");
                    assert!(plan.shared_bytes <= max_shared, "{what}");
                    assert!((2..=MATMUL_MAX_STAGES).contains(&plan.stages), "{what}");
                    assert!(MATMUL_TILES.contains(&plan.tiles), "{what}");
                    assert_eq!(warps, plan.row_groups * plan.k_groups, "{what}");
                    let rows = plan.grid[1] * plan.row_groups * MATMUL_WARP_ROWS;
                    assert!(rows >= n_out, "{what}");
                    let covered = plan.grid[0] * plan.tiles * MATMUL_TILE_VECTORS;
                    assert!(covered >= vectors, "{what}");
                }
            }
        }
    }
    // Not even a stage fits twice.
    assert_eq!(
        MatmulPlan::new(WeightType::Q8_0, [64, 0, 0], 4096, 64, 132, 48 << 10),
        None
    );
}

#[test]
fn a_nan_in_a_vector_is_a_nan_in_all_its_results_and_no_others() {
    let (n_out, n_in, vectors) = (20, 288, 9);
    let product = Product::new(WeightType::Q4_0, n_out, n_in, vectors);
    let plan = product.plan();
    let mut random = Random::new(3);
    let matrix = Matrix::random(product.products.ty, n_out, n_in, &mut random);
    let mut x = random.halves(vectors * n_in, 1.0);
    x[3 * n_in + 270].0 = f16::NAN.to_bits();
    let mut case = Case::new("a NaN");
    let y = case.output("y", vectors * n_out);
    let segment = MatvecSegment {
        weights: case.input("weights", &matrix.bytes),
        y,
        bias: DevicePtr::NULL,
        n_out: n_out as u32,
        y_stride: n_out as u32,
    };
    let params = MatmulParams {
        x: case.input("x", &x),
        segments: [segment, MatvecSegment::NONE, MatvecSegment::NONE],
        scales: DevicePtr::NULL,
        maxima: DevicePtr::NULL,
        n_in: n_in as u32,
        vectors: vectors as u32,
        accumulate: 0,
        k_groups_log2: plan.k_groups.ilog2(),
        stages: plan.stages,
        row_groups_log2: plan.row_groups.ilog2(),
        block_ends: plan.block_ends,
        scale: 1.0,
        reserved: 0,
    };
    let shape = Shape {
        grid: plan.grid,
        block: plan.block,
        shared_bytes: plan.shared_bytes,
    };
    let kernel = kernel(product.products.ty, plan.tiles).expect("there is one");
    case.launch(&kernel, shape, params);
    for (t, y) in case.read(y).chunks_exact(n_out).enumerate() {
        assert!(y.iter().all(|y| y.is_nan() == (t == 3)), "vector {t}");
    }
}
