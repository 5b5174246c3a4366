//! Tests of `ops/attention_decode.rs`.

use half::f16;
use kernels_gpu::abi::{
    AttentionDecodeParams, DECODE_SHARED_THREADS, DevicePtr, KernelDef, NO_WINDOW, ROPE_ADJACENT,
    ROPE_HALVES, decode_grid_y, decode_partial_floats, decode_shared_bytes, decode_threads,
};
use kernels_gpu::ops::attention_decode as kernels;
use kernels_gpu::prim::half::F16;

use crate::harness::{Case, Random, Shape, Tolerance, widen};
use crate::paged::{Cache, HeadReference, Heads, query_factors, rope_table};

const TOLERANCE: Tolerance = Tolerance {
    relative: 1e-5,
    absolute: 1e-5,
    reason: "f32 sums over a head and the context; weights carry 22 bits",
};

const CACHE_TOLERANCE: Tolerance = Tolerance {
    relative: 1e-3,
    absolute: 1e-6,
    reason: "rounded to f16, from f32 in which it may fall on the other side of a tie",
};

const F16_TOLERANCE: Tolerance = Tolerance {
    relative: 5e-4,
    absolute: 1e-5,
    reason: "the result's rounding to f16, 2^-11, and what it is off by before",
};

#[derive(Clone, Copy)]
struct Decode<'a> {
    kernel: &'a KernelDef<AttentionDecodeParams>,
    heads: Heads,
    /// Position of each sequence's new token.
    positions: &'a [usize],
    splits: usize,
    threads: u32,
    window: Option<usize>,
    norm: bool,
    adjacent: bool,
    pairs: usize,
    /// Whether queries have a factor by position.
    tempered: bool,
    /// The scores' scale, times the root of the head's size.
    scale: f32,
    /// Whether the result is f16.
    out_f16: bool,
    /// Factor on the new keys and values.
    size: f32,
    /// Sequences and tokens whose values are no numbers.
    broken: &'a [(usize, usize)],
    /// Whether the new tokens, which follow each other in one sequence, are in the cache already.
    is_cached: bool,
}

impl Decode<'_> {
    fn run(&self) {
        let heads = self.heads;
        let Heads {
            n_heads,
            n_kv_heads,
            head_dim,
        } = heads;
        let name = format!(
            "{}, {n_heads}/{n_kv_heads} heads, blocks of {}, positions {:?}, {} splits, window {:?}, scale {}",
            self.kernel.name, self.threads, self.positions, self.splits, self.window, self.scale
        );
        let mut random = Random::new(n_heads as u64 * 1000 + head_dim as u64);
        let n = self.positions.len();
        let mut capacities: Vec<usize> = self.positions.iter().map(|p| p + 1).collect();
        let mut filled = self.positions;
        if self.is_cached {
            capacities.drain(..n - 1);
            filled = &filled[..1];
        }
        let mut cache = Cache::new(heads, &capacities, filled, &mut random);
        cache.break_values(self.broken);
        // As where Q, K and V are one product's result.
        let (q_width, kv_width) = (n_heads * head_dim, n_kv_heads * head_dim);
        let stride = q_width + 2 * kv_width;
        let mut qkv = random.floats(n * stride, 2.0);
        for row in qkv.chunks_mut(stride) {
            row[q_width..].iter_mut().for_each(|x| *x *= self.size);
        }
        let norms = [random.floats(head_dim, 1.5), random.floats(head_dim, 1.5)];
        let epsilon = 1e-6;
        let context = *capacities.iter().max().unwrap();
        let table = rope_table(context, self.pairs, 1e4);
        let factors = query_factors(context);
        let scale = self.scale / (head_dim as f32).sqrt();

        let mut case = Case::new(name);
        let before = cache.data.clone();
        let mut expected = Vec::new();
        for (token, &position) in self.positions.iter().enumerate() {
            let row = &qkv[token * stride..][..stride];
            let sequence = if self.is_cached { 0 } else { token };
            let turns = &table[2 * self.pairs * position..][..2 * self.pairs];
            let reference = |norm: Option<usize>| HeadReference {
                norm: norm.filter(|_| self.norm).map(|i| norms[i].as_slice()),
                epsilon,
                rotation: norm.map(|_| (turns, self.adjacent)),
            };
            for kv_head in 0..n_kv_heads {
                for part in 0..2 {
                    let x = &row[q_width + part * kv_width + kv_head * head_dim..][..head_dim];
                    let norm = (part == 0).then_some(1);
                    let at = cache.offset(sequence, position, kv_head, part);
                    for (i, value) in reference(norm).apply(x).into_iter().enumerate() {
                        // Beyond f16 they saturate.
                        let value = value.clamp(-65_504.0, 65_504.0);
                        cache.data[at + i] = F16(f16::from_f64(value).to_bits());
                    }
                }
            }
            let end = position + 1;
            let visible = self.window.map_or(0, |window| end.saturating_sub(window))..end;
            let factor = if self.tempered {
                factors[position]
            } else {
                1.0
            };
            let scale = f64::from(scale) * f64::from(factor);
            for head in 0..n_heads {
                let q = reference(Some(0)).apply(&row[head * head_dim..][..head_dim]);
                expected.extend(cache.attend(sequence, head, &q, visible.clone(), scale));
            }
        }

        let kv = match self.is_cached {
            true => {
                cache.page_table = cache.page_table.repeat(n);
                case.in_out("kv", &cache.data)
            }
            false => case.in_out("kv", &before),
        };
        let qkv = case.input("qkv", &qkv);
        let at = |offset: usize| DevicePtr::from_address(qkv.address() + 4 * offset as u64);
        let grid_y = decode_grid_y(n_heads as u32, n_kv_heads as u32);
        let out: DevicePtr<()> = match self.out_f16 {
            true => case.output::<F16>("out", n * q_width).cast(),
            false => case.output::<f32>("out", n * q_width).cast(),
        };
        let partial_floats = decode_partial_floats(head_dim as u32, self.splits as u32, grid_y);
        let arrived = case.in_out("arrived", &vec![0u32; n * grid_y as usize]);
        let norm = |case: &mut Case, i: usize| {
            if self.norm {
                case.input("norm", &norms[i])
            } else {
                DevicePtr::NULL
            }
        };
        let q_factors = match self.tempered {
            true => case.input("factors", &factors),
            false => DevicePtr::NULL,
        };
        let positions: Vec<u32> = self.positions.iter().map(|&p| p as u32).collect();
        let params = AttentionDecodeParams {
            q: at(0),
            k: at(q_width),
            v: at(q_width + kv_width),
            q_norm: norm(&mut case, 0),
            k_norm: norm(&mut case, 1),
            rope: case.input("rope", &table),
            q_factors,
            kv,
            page_table: case.input("page table", &cache.page_table),
            positions: case.input("positions", &positions),
            out,
            partial: case.output("partial", n * partial_floats as usize),
            arrived,
            n_heads: n_heads as u32,
            n_kv_heads: n_kv_heads as u32,
            pairs: self.pairs as u32,
            pairing: if self.adjacent {
                ROPE_ADJACENT
            } else {
                ROPE_HALVES
            },
            q_stride: stride as u32,
            kv_stride: stride as u32,
            max_pages: cache.max_pages as u32,
            page_stride: cache.page_stride(),
            window: self.window.map_or(NO_WINDOW, |window| window as u32),
            scale,
            epsilon,
            out_f16: self.out_f16.into(),
            is_cached: self.is_cached.into(),
            reserved: 0,
        };
        let shape = Shape {
            grid: [self.splits as u32, grid_y, n as u32],
            block: self.threads,
            shared_bytes: decode_shared_bytes(head_dim as u32, self.threads),
        };
        // Twice: the counters must be ready for the next launch.
        for _ in 0..2 {
            case.launch(self.kernel, shape, params);
            match self.out_f16 {
                true => case.check(out.cast::<F16>(), &expected, F16_TOLERANCE),
                false if !self.broken.is_empty() => {
                    case.check_broken(out.cast::<f32>(), &expected, TOLERANCE);
                }
                false => case.check(out.cast::<f32>(), &expected, TOLERANCE),
            }
        }
        case.check(arrived, &vec![0.0; n * grid_y as usize], Tolerance::EXACT);
        // Written tokens only: what no token is in must still be NaN.
        let (actual, expected) = (widen(&case.read(kv)), widen(&cache.data));
        for (i, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
            let same = if expected.is_nan() {
                actual.is_nan()
            } else {
                (actual - expected).abs()
                    <= CACHE_TOLERANCE.absolute + CACHE_TOLERANCE.relative * expected.abs()
            };
            assert!(
                same,
                "{}: kv[{i}]: {actual}, not {expected}",
                self.kernel.name
            );
        }
    }
}

const QWEN: Decode = Decode {
    kernel: &kernels::ATTENTION_DECODE_64,
    heads: Heads {
        n_heads: 14,
        n_kv_heads: 2,
        head_dim: 64,
    },
    positions: &[0],
    splits: 1,
    threads: DECODE_SHARED_THREADS,
    window: None,
    norm: false,
    adjacent: false,
    pairs: 32,
    tempered: false,
    scale: 1.5,
    out_f16: false,
    size: 1.0,
    broken: &[],
    is_cached: false,
};

#[test]
fn contexts_and_splits() {
    let positions: [&[usize]; 5] = [&[0], &[1, 15, 16, 17], &[63, 64, 65], &[300], &[700, 5]];
    for positions in positions {
        for (splits, threads) in [(1, 128), (1, 256), (3, 128), (8, 128), (8, 256)] {
            Decode {
                positions,
                splits,
                threads,
                ..QWEN
            }
            .run();
        }
    }
}

/// A block alone and several that share a context, which store in different places.
#[test]
fn results_in_f16() {
    for splits in [1, 3] {
        Decode {
            positions: &[300, 0, 65, 130, 7],
            splits,
            out_f16: true,
            ..QWEN
        }
        .run();
    }
}

/// Tokens of one sequence, each of which sees those before it in the same step.
#[test]
fn positions_of_one_sequence() {
    for positions in [&[0, 1, 2][..], &[61, 62, 63, 64, 65], &[255, 256], &[700]] {
        for (splits, out_f16) in [(1, true), (4, false)] {
            for window in [None, Some(3)] {
                Decode {
                    positions,
                    splits,
                    out_f16,
                    window,
                    is_cached: true,
                    ..QWEN
                }
                .run();
            }
        }
    }
}

/// A token that sees itself alone, so that its value is the result.
#[test]
fn keys_and_values_beyond_f16_saturate() {
    for (size, out_f16) in [(1e5, false), (1e5, true), (1e30, false), (1e30, true)] {
        Decode {
            positions: &[0, 0],
            size,
            out_f16,
            ..QWEN
        }
        .run();
    }
}

#[test]
fn sliding_windows() {
    for window in [1, 2, 64, 100, 1000] {
        Decode {
            positions: &[130, 64, 511],
            splits: 4,
            window: Some(window),
            ..QWEN
        }
        .run();
    }
}

/// What is no number reaches the sequences that see it, and no other.
#[test]
fn broken_values_before_the_window_are_not_seen() {
    // Hidden ones next to a window and far from it, and visible ones.
    let cases: [(usize, [(usize, usize); 3]); 4] = [
        (1, [(0, 129), (1, 63), (2, 510)]),
        (2, [(0, 129), (1, 62), (2, 510)]),
        (70, [(0, 60), (1, 3), (2, 442)]),
        (100, [(0, 30), (0, 1), (2, 412)]),
    ];
    for (kernel, head_dim) in [
        (&kernels::ATTENTION_DECODE_64, 64),
        (&kernels::ATTENTION_DECODE_80, 80),
        (&kernels::ATTENTION_DECODE_256, 256),
    ] {
        for (window, broken) in &cases {
            for splits in [1, 4] {
                Decode {
                    kernel,
                    heads: Heads {
                        n_heads: 4,
                        n_kv_heads: 2,
                        head_dim,
                    },
                    positions: &[130, 64, 511],
                    splits,
                    window: Some(*window),
                    pairs: head_dim / 2,
                    broken,
                    ..QWEN
                }
                .run();
            }
        }
    }
}

#[test]
fn scores_whose_exponentials_overflow() {
    for splits in [1, 4] {
        Decode {
            positions: &[130, 7],
            splits,
            scale: 80.0,
            ..QWEN
        }
        .run();
    }
}

#[test]
fn queries_with_factors() {
    for splits in [1, 3] {
        let decode = Decode {
            positions: &[0, 70, 300],
            splits,
            tempered: true,
            ..QWEN
        };
        decode.run();
    }
}

#[test]
fn norms_and_pairings() {
    for (norm, adjacent, pairs) in [
        (true, false, 32),
        (false, true, 32),
        (true, true, 20),
        (true, false, 8),
        (false, false, 0),
    ] {
        Decode {
            positions: &[77],
            splits: 2,
            norm,
            adjacent,
            pairs,
            ..QWEN
        }
        .run();
    }
}

#[test]
fn every_head_size() {
    let kernels = [
        (&kernels::ATTENTION_DECODE_32, 32),
        (&kernels::ATTENTION_DECODE_80, 80),
        (&kernels::ATTENTION_DECODE_96, 96),
        (&kernels::ATTENTION_DECODE_128, 128),
        (&kernels::ATTENTION_DECODE_256, 256),
    ];
    for (kernel, head_dim) in kernels {
        for (n_heads, n_kv_heads, positions) in [
            (1, 1, [0]),
            (3, 1, [40]),
            (4, 4, [129]),
            (20, 2, [200]),
            (9, 3, [64]),
        ] {
            for (splits, threads) in [
                (3, DECODE_SHARED_THREADS),
                (1, decode_threads(head_dim as u32)),
            ] {
                Decode {
                    kernel,
                    heads: Heads {
                        n_heads,
                        n_kv_heads,
                        head_dim,
                    },
                    positions: &positions,
                    splits,
                    threads,
                    pairs: head_dim / 2,
                    ..QWEN
                }
                .run();
            }
        }
    }
}
