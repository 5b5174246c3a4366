//! Tests of `ops/expert_matvec.rs` and `ops/expert_matmul.rs`: the products themselves are `matvec`'s and `matmul`'s.

use half::f16;
use kernels_gpu::abi::{
    DevicePtr, EXPERT_MATMUL_TILES, ExpertMatmulParams, ExpertMatvecParams, MATMUL_TILE_VECTORS,
    MatmulParams, MatmulPlan, MatvecEpilogue, MatvecOrder, MatvecParams, MatvecPlan, MatvecSegment,
    VectorFormat, WeightType, expert_matmul_blocks, matvec_pair_ends,
};
use kernels_gpu::ops::{expert_matmul, expert_matvec};

use crate::experts::experts_of_pairs;
use crate::harness::{Case, Random, Shape, Tolerance, widen};
use crate::weights::Matrix;

/// What is multiplied.
#[derive(Clone, Copy)]
struct Mixture {
    experts: usize,
    used: usize,
    tokens: usize,
    /// Rows of an expert's matrix.
    n_out: usize,
    /// At least.
    n_in: usize,
    /// Gate and up, or one matrix alone.
    is_gated: bool,
}

/// One expert that all take; ragged ones; more experts than pairs; rows of several warps; many tokens.
const MIXTURES: [Mixture; 5] = [
    Mixture {
        experts: 1,
        used: 1,
        tokens: 1,
        n_out: 1,
        n_in: 32,
        is_gated: false,
    },
    Mixture {
        experts: 5,
        used: 2,
        tokens: 3,
        n_out: 7,
        n_in: 96,
        is_gated: true,
    },
    Mixture {
        experts: 33,
        used: 3,
        tokens: 1,
        n_out: 20,
        n_in: 300,
        is_gated: false,
    },
    Mixture {
        experts: 3,
        used: 3,
        tokens: 2,
        n_out: 5,
        n_in: 1100,
        is_gated: true,
    },
    Mixture {
        experts: 6,
        used: 4,
        tokens: 21,
        n_out: 18,
        n_in: 256,
        is_gated: false,
    },
];

impl Mixture {
    fn n_in(&self, ty: WeightType) -> usize {
        self.n_in.next_multiple_of(ty.block_elements() as usize)
    }

    fn matrices(&self, ty: WeightType, random: &mut Random) -> Vec<Matrix> {
        let rows = self.experts * self.n_out;
        let n = if self.is_gated { 2 } else { 1 };
        (0..n)
            .map(|_| Matrix::random(ty, rows, self.n_in(ty), random))
            .collect()
    }

    fn expert_bytes(&self, matrices: &[Matrix]) -> u64 {
        (matrices[0].bytes.len() / self.experts) as u64
    }

    /// Whether each expert's matrix begins at a multiple of 16 bytes, as a device's must.
    fn is_aligned(&self, ty: WeightType) -> bool {
        let row = ty.row_bytes(self.n_in(ty) as u32) as usize;
        (row * self.n_out).is_multiple_of(16)
    }
}

fn segments(
    case: &mut Case,
    matrices: &[Matrix],
    y: &[DevicePtr<f32>],
    n_out: usize,
) -> [MatvecSegment; 3] {
    let mut segments = [MatvecSegment::NONE; 3];
    for ((segment, matrix), &y) in segments.iter_mut().zip(matrices).zip(y) {
        *segment = MatvecSegment {
            weights: case.input("weights", &matrix.bytes),
            y,
            n_out: n_out as u32,
            y_stride: n_out as u32 + 3,
            ..MatvecSegment::NONE
        };
    }
    segments
}

/// Multiplies pairs one by one, and compares with f64.
fn check_pairs(ty: WeightType, format: VectorFormat, mixture: Mixture) {
    let Mixture {
        experts,
        used,
        tokens,
        n_out,
        is_gated,
        ..
    } = mixture;
    let n_in = mixture.n_in(ty);
    let mut random = Random::new((n_in * n_out + tokens) as u64);
    let matrices = mixture.matrices(ty, &mut random);
    let ids = experts_of_pairs(tokens, used, experts, &mut random);
    let pairs = ids.len();
    // Integers over 128 of which one in each scale's group is the largest: exact in either format.
    let x_stride = n_in.next_multiple_of(4) + 4;
    let integer = |i: usize, random: &mut Random| match (i % x_stride).is_multiple_of(16) {
        true => 127,
        false => random.below(255) as i32 - 127,
    };
    // The gated ones are of tokens, the others of pairs.
    let rows = if is_gated { tokens } else { pairs };
    let x: Vec<f32> = (0..rows * x_stride)
        .map(|i| integer(i, &mut random) as f32 / 128.0)
        .collect();
    let sharing = pairs / rows;

    let mut case = Case::new(format!(
        "pairs, {} {} {experts}x{n_out}x{n_in}, {tokens} tokens with {used}",
        ty.name(),
        format.name()
    ));
    let before = vec![9f32; pairs * (n_out + 3)];
    let y = case.in_out("y", &before);
    let segments = segments(&mut case, &matrices, &[y, y], n_out);
    let shape = [n_out as u32, n_in as u32];
    let plan = MatvecPlan::expert(ty, format, is_gated, shape, (2, 99 << 10));
    let plan = plan.expect("a vector fits");
    let epilogue = match is_gated {
        true => MatvecEpilogue::Silu,
        false => MatvecEpilogue::Store,
    };
    let product = MatvecParams {
        x: case.input("x", &x),
        norm_weight: DevicePtr::NULL,
        residual: DevicePtr::NULL,
        residual_weight: DevicePtr::NULL,
        x_out: DevicePtr::NULL,
        segments,
        n_in: n_in as u32,
        vectors: 1,
        x_stride: x_stride as u32,
        epsilon: 1e-5,
        epilogue: epilogue as u32,
        row_split_log2: plan.row_split_log2,
        pair_ends: matvec_pair_ends(&segments, epilogue),
        order: MatvecOrder::InTurn as u32,
    };
    let params = ExpertMatvecParams {
        product,
        ids: case.input("ids", &ids),
        expert_bytes: mixture.expert_bytes(&matrices),
        pairs_of_vector: sharing as u32,
        ids_are_new: 1,
    };
    let shape = Shape {
        grid: [plan.grid, pairs as u32, 1],
        block: plan.block,
        shared_bytes: plan.shared_bytes,
    };
    let kernel = expert_matvec::kernel(ty, format).expect("there is one");
    case.launch(&kernel, shape, params);

    let mut expected = widen(&before);
    let (mut bound, mut factors) = (0f64, 1f64);
    for (pair, &expert) in ids.iter().enumerate() {
        let x = &x[pair / sharing * x_stride..][..n_in];
        for row in 0..n_out {
            let mut product = |matrix: &Matrix| {
                let at = (expert as usize * n_out + row) * n_in;
                let terms = matrix.values[at..at + n_in].iter().zip(x);
                let terms = terms.map(|(&w, &x)| f64::from(w) * f64::from(x));
                bound = bound.max(4e-7 * terms.clone().map(f64::abs).sum::<f64>());
                terms.sum::<f64>()
            };
            let products: Vec<f64> = matrices.iter().map(&mut product).collect();
            expected[pair * (n_out + 3) + row] = match products[..] {
                [gate, up] => {
                    // The derivatives of the activation are below 1.2.
                    factors = factors.max(1.2 * (gate.abs() + up.abs()));
                    gate / (1.0 + (-gate).exp()) * up
                }
                _ => products[0],
            };
        }
    }
    let tolerance = Tolerance {
        relative: 2e-6,
        absolute: bound * factors,
        reason: "f32 sums",
    };
    case.check(y, &expected, tolerance);
}

#[test]
fn pairs_take_the_matrices_of_their_experts() {
    for &ty in WeightType::ALL {
        for format in [VectorFormat::Q8, VectorFormat::F16] {
            let has_kernel = ty.is_quantized() || format == VectorFormat::F16;
            assert_eq!(expert_matvec::kernel(ty, format).is_some(), has_kernel);
            for mixture in MIXTURES.iter().filter(|_| has_kernel) {
                check_pairs(ty, format, aligned(ty, *mixture));
            }
        }
    }
}

/// Three tokens with two of five experts each.
pub fn ragged_pairs() {
    let ty = WeightType::Q4_0;
    check_pairs(ty, VectorFormat::F16, aligned(ty, MIXTURES[1]));
}

/// The mixture, with so many rows that experts' matrices are aligned.
fn aligned(ty: WeightType, mixture: Mixture) -> Mixture {
    let rows = mixture.n_out..;
    let mixtures = rows.map(|n_out| Mixture { n_out, ..mixture });
    let mut fitting = mixtures.filter(|mixture| mixture.is_aligned(ty));
    fitting.next().expect("sixteen rows are")
}

/// Multiplies the pairs of each expert together, and compares with f64.
fn check_groups(ty: WeightType, tiles: u32, mixture: Mixture, scaled: bool) {
    let Mixture {
        experts,
        used,
        tokens,
        n_out,
        ..
    } = mixture;
    let n_in = mixture.n_in(ty);
    let mut random = Random::new((n_in * n_out + tokens) as u64);
    let matrices = mixture.matrices(ty, &mut random);
    let mut sorted = experts_of_pairs(tokens, used, experts, &mut random);
    sorted.sort();
    let pairs = sorted.len();
    let before = |expert: u32| sorted.iter().filter(|&&id| id < expert).count() as u32;
    let starts: Vec<u32> = (0..=experts as u32).map(before).collect();
    let x = random.halves(pairs * n_in, 1.0);
    let scales: Vec<f32> = (0..pairs).map(|i| [1.0, 64.0, 0.25][i % 3]).collect();

    let mut case = Case::new(format!(
        "groups, {} {experts}x{n_out}x{n_in}, {tokens} tokens with {used}, {tiles} tiles, {scaled}",
        ty.name()
    ));
    let untouched = vec![9f32; pairs * (n_out + 3)];
    let y: Vec<DevicePtr<f32>> = matrices
        .iter()
        .map(|_| case.in_out("y", &untouched))
        .collect();
    let segments = segments(&mut case, &matrices, &y, n_out);
    let rows = [
        n_out as u32,
        if mixture.is_gated { n_out as u32 } else { 0 },
        0,
    ];
    let vectors = tiles * MATMUL_TILE_VECTORS;
    let plan = MatmulPlan::new(ty, rows, n_in as u32, vectors, 2, 163 << 10);
    let plan = plan.expect("two stages fit");
    assert_eq!(plan.tiles, tiles);
    let product = MatmulParams {
        x: case.input("x", &x),
        segments,
        scales: match scaled {
            true => case.input("scales", &scales),
            false => DevicePtr::NULL,
        },
        maxima: DevicePtr::NULL,
        n_in: n_in as u32,
        vectors: pairs as u32,
        accumulate: 0,
        k_groups_log2: plan.k_groups.ilog2(),
        stages: plan.stages,
        row_groups_log2: plan.row_groups.ilog2(),
        block_ends: plan.block_ends,
        scale: 2.0,
        reserved: 0,
    };
    let params = ExpertMatmulParams {
        product,
        starts: case.input("starts", &starts),
        expert_bytes: mixture.expert_bytes(&matrices),
        experts: experts as u32,
        reserved: 0,
    };
    let blocks = expert_matmul_blocks(pairs as u32, used as u32, experts as u32, vectors);
    let shape = Shape {
        grid: [blocks, plan.grid[1], 1],
        block: plan.block,
        shared_bytes: plan.shared_bytes,
    };
    let kernel = expert_matmul::kernel(ty, tiles).expect("there is one");
    case.launch(&kernel, shape, params);

    let wide_x = widen(&x);
    for (matrix, &y) in matrices.iter().zip(&y) {
        let mut expected = widen(&untouched);
        let mut largest = 0f64;
        for (place, &expert) in sorted.iter().enumerate() {
            let factor = 2.0
                * if scaled {
                    f64::from(scales[place])
                } else {
                    1.0
                };
            let x = &wide_x[place * n_in..][..n_in];
            for row in 0..n_out {
                let at = (expert as usize * n_out + row) * n_in;
                let terms = matrix.values[at..at + n_in].iter().zip(x);
                let terms = terms.map(|(&w, x)| f16::from_f32(w).to_f64() * x * factor);
                largest = largest.max(terms.clone().map(f64::abs).sum());
                expected[place * (n_out + 3) + row] = terms.sum();
            }
        }
        let tolerance = Tolerance {
            relative: 1.2e-7,
            absolute: 4e-7 * largest,
            reason: "f32 sums of exact products, whose roundings mostly cancel",
        };
        case.check(y, &expected, tolerance);
    }
}

#[test]
fn experts_take_their_pairs_together() {
    for &ty in WeightType::ALL {
        for tiles in EXPERT_MATMUL_TILES {
            let kernel = expert_matmul::kernel(ty, tiles);
            assert_eq!(kernel.is_some(), ty.is_quantized(), "{ty:?}");
            for (index, mixture) in MIXTURES.iter().enumerate() {
                if ty.is_quantized() {
                    check_groups(ty, tiles, aligned(ty, *mixture), index % 2 == 0);
                }
            }
        }
    }
}

/// Several blocks of vectors for one expert, none for others, and one for all pairs of all.
#[test]
fn blocks_go_round_all_experts() {
    for (experts, used, tokens) in [(40, 1, 90), (2, 1, 150), (1, 1, 130), (7, 7, 65)] {
        for tiles in EXPERT_MATMUL_TILES {
            let mixture = Mixture {
                experts,
                used,
                tokens,
                n_out: 16,
                n_in: 32,
                is_gated: false,
            };
            check_groups(WeightType::Q4_0, tiles, mixture, false);
        }
    }
}

#[test]
fn as_many_blocks_as_there_can_be() {
    // All pairs of one expert, or one each.
    assert_eq!(expert_matmul_blocks(1, 1, 128, 16), 1);
    assert_eq!(expert_matmul_blocks(8, 8, 128, 16), 8);
    assert_eq!(expert_matmul_blocks(16_384, 8, 128, 64), 256 + 128);
    assert_eq!(expert_matmul_blocks(6 * 65, 6, 6, 64), 6 + 6);
    for (tokens, used, experts, vectors) in [(5, 2, 4, 16), (64, 8, 128, 16), (90, 1, 40, 64)] {
        let mut random = Random::new(tokens as u64);
        let ids = experts_of_pairs(tokens, used, experts, &mut random);
        let of = |expert| ids.iter().filter(|&&id| id == expert).count() as u32;
        let needed: u32 = (0..experts as u32).map(|e| of(e).div_ceil(vectors)).sum();
        let most =
            expert_matmul_blocks((tokens * used) as u32, used as u32, experts as u32, vectors);
        assert!(needed <= most, "{needed} of {most}");
    }
}
