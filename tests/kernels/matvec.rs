//! Tests of `ops/matvec.rs` and its parts.

use kernels_gpu::abi::{
    DevicePtr, MatvecEpilogue, MatvecOrder, MatvecParams, MatvecPlan, MatvecSegment, VectorFormat,
    WeightType, matvec_pair_ends, matvec_vectors,
};
use kernels_gpu::ops::matvec_entries::kernel;

use crate::harness::{Case, Random, Shape, Tolerance};
use crate::weights::Matrix;

const EPSILON: f32 = 1e-5;

/// 8-bit activations that share a scale.
const SCALE_GROUP: usize = 16;

/// What is multiplied, and how.
#[derive(Clone)]
struct Product {
    ty: WeightType,
    activations: VectorFormat,
    /// Rows of each segment.
    n_out: Vec<usize>,
    n_in: usize,
    vectors: usize,
    norm: bool,
    residual: bool,
    bias: bool,
    epilogue: MatvecEpilogue,
    /// How many the launch is planned for.
    multiprocessors: u32,
    /// Whether the activations are such that either format has them exactly.
    exact: bool,
}

impl Product {
    fn new(ty: WeightType, activations: VectorFormat, n_out: usize, n_in: usize) -> Self {
        Self {
            ty,
            activations,
            n_out: vec![n_out],
            n_in,
            vectors: 1,
            norm: false,
            residual: false,
            bias: false,
            epilogue: MatvecEpilogue::Store,
            multiprocessors: 2,
            exact: true,
        }
    }

    fn gated(&self) -> bool {
        matches!(self.epilogue, MatvecEpilogue::Silu | MatvecEpilogue::Gelu)
    }

    /// Multiplies on the device and in f64, and compares.
    fn check(&self) {
        let &Self {
            ty, n_in, vectors, ..
        } = self;
        let mut random = Random::new((n_in * self.n_out[0] + vectors) as u64);
        let matrices: Vec<Matrix> = self
            .n_out
            .iter()
            .map(|&n| Matrix::random(ty, n, n_in, &mut random))
            .collect();
        let x_stride = n_in.next_multiple_of(4) + 4;
        let x = self.activations(x_stride, &mut random);
        let norm_weight: Vec<f32> = (0..n_in)
            .map(|_| [0.5, 1.0, 2.0, -1.0][random.below(4)])
            .collect();
        // A group whose largest factors differ would not keep the activations exact.
        let norm_weight: Vec<f32> = (0..n_in).map(|i| norm_weight[i / 32 * 32]).collect();
        let residual = random.floats(vectors * x_stride, 3.0);
        let residual_weight = random.floats(n_in, 1.0);
        let biases: Vec<Vec<f32>> = self.n_out.iter().map(|&n| random.floats(n, 1.0)).collect();
        let before: Vec<Vec<f32>> = self
            .n_out
            .iter()
            .map(|&n| random.floats(vectors * (n + 3), 1.0))
            .collect();

        let mut case = Case::new(format!(
            "{} {} {:?}x{n_in}, {vectors} vectors, {:?}{}{}{}",
            ty.name(),
            self.activations.name(),
            self.n_out,
            self.epilogue,
            if self.norm { ", norm" } else { "" },
            if self.residual { ", residual" } else { "" },
            if self.bias { ", bias" } else { "" },
        ));
        let mut segments = [MatvecSegment::NONE; 3];
        for (i, matrix) in matrices.iter().enumerate() {
            let n = self.n_out[i];
            segments[i] = MatvecSegment {
                weights: case.input("weights", &matrix.bytes),
                y: case.in_out("y", &before[i]),
                bias: if self.bias {
                    case.input("bias", &biases[i])
                } else {
                    DevicePtr::NULL
                },
                n_out: n as u32,
                y_stride: n as u32 + 3,
            };
        }
        let plan = MatvecPlan::new(
            ty,
            self.activations,
            self.gated(),
            if self.gated() {
                self.n_out[0] as u32
            } else {
                self.n_out.iter().sum::<usize>() as u32
            },
            n_in as u32,
            vectors as u32,
            self.multiprocessors,
            99 * 1024,
        )
        .expect("the vectors fit");
        let mut optional = |given: bool, label: &str, data: &[f32]| {
            if given {
                case.input(label, data)
            } else {
                DevicePtr::NULL
            }
        };
        let mut params = MatvecParams {
            x: optional(true, "x", &x),
            norm_weight: optional(self.norm, "norm_weight", &norm_weight),
            residual: optional(self.residual, "residual", &residual),
            residual_weight: optional(self.residual, "residual_weight", &residual_weight),
            x_out: DevicePtr::NULL,
            segments,
            n_in: n_in as u32,
            vectors: vectors as u32,
            x_stride: x_stride as u32,
            epsilon: EPSILON,
            epilogue: self.epilogue as u32,
            row_split_log2: plan.row_split_log2,
            pair_ends: matvec_pair_ends(&segments, self.epilogue),
            order: MatvecOrder::InTurn as u32,
        };
        if self.residual {
            params.x_out = case.in_out("x_out", &vec![0f32; vectors * x_stride]);
        }
        let kernel = kernel(ty, self.activations, plan.vectors).expect("there is one");
        let shape = Shape {
            grid: [plan.grid, 1, 1],
            block: plan.block,
            shared_bytes: plan.shared_bytes,
        };
        case.launch(&kernel, shape, params);

        let mut x_out = vec![0f64; vectors * x_stride];
        let mut inputs = Vec::new();
        for t in 0..vectors {
            let at = t * x_stride;
            let mut input: Vec<f64> = x[at..at + n_in].iter().map(|&v| v.into()).collect();
            if self.residual {
                let norm = inverse_norm(residual[at..at + n_in].iter().map(|&v| v.into()));
                for i in 0..n_in {
                    input[i] += f64::from(residual[at + i]) * norm * f64::from(residual_weight[i]);
                }
                x_out[at..at + n_in].copy_from_slice(&input);
            }
            if self.norm {
                let norm = inverse_norm(input.iter().copied());
                for i in 0..n_in {
                    input[i] *= norm * f64::from(norm_weight[i]);
                }
            }
            inputs.push(input);
        }
        if self.residual {
            let tolerance = Tolerance {
                relative: 1e-6,
                absolute: 1e-6,
                reason: "f32 arithmetic",
            };
            case.check(params.x_out, &x_out, tolerance);
        }
        self.check_results(&case, &params, &matrices, &biases, &before, &inputs);
    }

    /// ActivationPrecision between -1 and 1: 7-bit integers over 128, the largest (127) being in each group; or any.
    fn activations(&self, x_stride: usize, random: &mut Random) -> Vec<f32> {
        let mut x = random.floats(self.vectors * x_stride, 1.0);
        if self.exact {
            for (i, value) in x.iter_mut().enumerate() {
                let largest = (i % x_stride).is_multiple_of(SCALE_GROUP);
                let integer = if largest {
                    127
                } else {
                    random.below(255) as i32 - 127
                };
                *value = integer as f32 / 128.0;
            }
        }
        x
    }

    fn check_results(
        &self,
        case: &Case,
        params: &MatvecParams,
        matrices: &[Matrix],
        biases: &[Vec<f32>],
        before: &[Vec<f32>],
        inputs: &[Vec<f64>],
    ) {
        // The products, and how far the rounded activations may be off.
        let mut bound = 0f64;
        let products: Vec<Vec<Vec<f64>>> = (0..matrices.len())
            .map(|s| {
                let rows = matrices[s].values.chunks(self.n_in);
                let row_products = rows.enumerate().map(|(row, weights)| {
                    let bias = if self.bias {
                        biases[s][row].into()
                    } else {
                        0.0
                    };
                    let product = |input: &Vec<f64>| {
                        bound = bound.max(self.bound(weights, input));
                        let terms = weights.iter().zip(input).map(|(&w, x)| f64::from(w) * x);
                        terms.sum::<f64>() + bias
                    };
                    inputs.iter().map(product).collect()
                });
                row_products.collect()
            })
            .collect();

        let outputs = if self.gated() { 1 } else { matrices.len() };
        for s in 0..outputs {
            let mut expected: Vec<f64> = before[s].iter().map(|&v| v.into()).collect();
            let mut tolerance = bound;
            for (row, row_products) in products[s].iter().enumerate() {
                for (t, &product) in row_products.iter().enumerate() {
                    let y = &mut expected[t * (self.n_out[s] + 3) + row];
                    *y = match self.epilogue {
                        MatvecEpilogue::Store => product,
                        MatvecEpilogue::Add => *y + product,
                        MatvecEpilogue::Silu | MatvecEpilogue::Gelu => {
                            let up = products[1][row][t];
                            // The derivatives of the activations are below 1.2.
                            tolerance = tolerance.max(1.2 * bound * (up.abs() + product.abs()));
                            if self.epilogue == MatvecEpilogue::Silu {
                                silu(product) * up
                            } else {
                                gelu(product) * up
                            }
                        }
                    };
                }
            }
            let tolerance = Tolerance {
                relative: 2e-6,
                absolute: tolerance,
                reason: "f32 sums of rounded activations",
            };
            case.check(params.segments[s].y, &expected, tolerance);
        }
    }

    /// The largest possible error of a product.
    fn bound(&self, weights: &[f32], input: &[f64]) -> f64 {
        let group = SCALE_GROUP;
        let groups = weights.chunks(group).zip(input.chunks(group));
        groups
            .map(|(weights, input)| {
                let largest = input.iter().fold(0f64, |a, b| a.max(b.abs()));
                let weights: f64 = weights.iter().map(|&w| f64::from(w).abs()).sum();
                // Rounding to f16 or to 8 bits of a step that is rounded up to bfloat16; for exact activations
                // only that of the sums.
                let rounding = match self.activations {
                    _ if self.exact => 4e-7,
                    VectorFormat::Q8 => 0.51 / 127.0,
                    VectorFormat::F16 => 4.9e-4,
                };
                weights * largest * rounding
            })
            .sum()
    }
}

fn inverse_norm(x: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = x.len() as f64;
    1.0 / (x.map(|v| v * v).sum::<f64>() / n + f64::from(EPSILON)).sqrt()
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn gelu(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}

/// Every pair of types that has kernels.
fn types() -> Vec<(WeightType, VectorFormat)> {
    let pair = |&ty| [(ty, VectorFormat::Q8), (ty, VectorFormat::F16)];
    let all = WeightType::ALL.iter().flat_map(pair);
    all.filter(|&(ty, activations)| kernel(ty, activations, 1).is_some())
        .collect()
}

#[test]
fn every_type_has_kernels() {
    for &ty in WeightType::ALL {
        for activations in [VectorFormat::Q8, VectorFormat::F16] {
            for &n in matvec_vectors(ty, activations) {
                let given = kernel(ty, activations, n).is_some();
                let expected = ty.is_quantized() || activations == VectorFormat::F16;
                assert_eq!(given, expected, "{ty:?} {activations:?} {n}");
            }
        }
    }
}

/// Rows and columns. Minimal; a row in an odd number of rows; tiles that end inside a row, rows over several
/// warps; Qwen2.5-0.5B's; more rows than warps.
fn shapes(ty: WeightType) -> [(usize, usize); 6] {
    let block = ty.block_elements() as usize;
    let whole = |n: usize| n.next_multiple_of(block);
    [
        (1, block),
        (3, 3 * block),
        (5, whole(1024 + 160)),
        (33, whole(896)),
        (7, whole(4864)),
        (150, block),
    ]
}

#[test]
fn shapes_of_every_type() {
    for (ty, activations) in types() {
        for (n_out, n_in) in shapes(ty) {
            Product::new(ty, activations, n_out, n_in).check();
        }
    }
}

#[test]
fn several_vectors() {
    for (ty, activations) in types() {
        let kernels = matvec_vectors(ty, activations);
        for (i, (n_out, n_in)) in shapes(ty).into_iter().enumerate() {
            for sizes in kernels.windows(2) {
                // All numbers of vectors that a kernel is for, one after the other.
                let [smaller, largest] = [sizes[0], sizes[1]].map(|n| n as usize);
                let vectors = largest - i % (largest - smaller);
                Product {
                    vectors,
                    norm: i % 2 == 0,
                    ..Product::new(ty, activations, n_out, n_in)
                }
                .check();
            }
        }
    }
}

#[test]
fn segments_norm_and_bias() {
    for (ty, activations) in types() {
        let n_in = 512;
        Product {
            n_out: vec![12, 3, 5],
            norm: true,
            bias: true,
            ..Product::new(ty, activations, 1, n_in)
        }
        .check();
    }
}

#[test]
fn gate_and_up() {
    for (ty, activations) in types() {
        for (epilogue, vectors) in [(MatvecEpilogue::Silu, 1), (MatvecEpilogue::Gelu, 4)] {
            Product {
                n_out: vec![11, 11],
                norm: true,
                epilogue,
                vectors,
                ..Product::new(ty, activations, 1, 768)
            }
            .check();
        }
    }
}

#[test]
fn sums_are_added_to_what_is_there() {
    for (ty, activations) in types() {
        Product {
            epilogue: MatvecEpilogue::Add,
            vectors: 2,
            ..Product::new(ty, activations, 13, 256)
        }
        .check();
    }
}

#[test]
fn a_residual_is_normalized_added_and_written() {
    for (vectors, n_in) in [(1, 640), (2, 2048), (3, 32), (4, 96)] {
        Product {
            n_out: vec![6, 4],
            vectors,
            norm: true,
            residual: true,
            exact: false,
            ..Product::new(WeightType::BF16, VectorFormat::F16, 1, n_in)
        }
        .check();
    }
}

#[test]
fn any_activations() {
    for (ty, activations) in types() {
        Product {
            exact: false,
            norm: true,
            ..Product::new(ty, activations, 20, 1024)
        }
        .check();
    }
}

#[test]
fn plain_rows_of_any_length() {
    for ty in [WeightType::F32, WeightType::F16, WeightType::BF16] {
        for n_in in [1, 3, 7, 50, 257, 1001] {
            Product {
                vectors: 2,
                norm: true,
                exact: false,
                ..Product::new(ty, VectorFormat::F16, 5, n_in)
            }
            .check();
        }
    }
}

#[test]
fn a_nan_in_the_activations_is_a_nan_in_every_result() {
    for activations in [VectorFormat::Q8, VectorFormat::F16] {
        let mut case = Case::new("a NaN");
        let matrix = Matrix::random(WeightType::Q4_0, 4, 64, &mut Random::new(1));
        let mut x = vec![1f32; 64];
        x[37] = f32::NAN;
        let y = case.output::<f32>("y", 4);
        let mut segments = [MatvecSegment::NONE; 3];
        segments[0] = MatvecSegment {
            weights: case.input("weights", &matrix.bytes),
            y,
            n_out: 4,
            ..MatvecSegment::NONE
        };
        let plan = MatvecPlan::new(WeightType::Q4_0, activations, false, 4, 64, 1, 2, 99 << 10)
            .expect("it fits");
        let params = MatvecParams {
            x: case.input("x", &x),
            norm_weight: DevicePtr::NULL,
            residual: DevicePtr::NULL,
            residual_weight: DevicePtr::NULL,
            x_out: DevicePtr::NULL,
            segments,
            n_in: 64,
            vectors: 1,
            x_stride: 64,
            epsilon: EPSILON,
            epilogue: MatvecEpilogue::Store as u32,
            row_split_log2: plan.row_split_log2,
            pair_ends: matvec_pair_ends(&segments, MatvecEpilogue::Store),
            order: MatvecOrder::InTurn as u32,
        };
        let shape = Shape {
            grid: [plan.grid, 1, 1],
            block: plan.block,
            shared_bytes: plan.shared_bytes,
        };
        let kernel = kernel(WeightType::Q4_0, activations, plan.vectors).expect("there is one");
        case.launch(&kernel, shape, params);
        assert!(case.read(y).iter().all(|y| y.is_nan()));
    }
}
