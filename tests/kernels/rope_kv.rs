//! Tests of `ops/rope_kv.rs`.

use half::f16;
use kernels_gpu::abi::{
    DevicePtr, ROPE_ADJACENT, ROPE_HALVES, ROPE_HEADS, ROPE_THREADS, RopeKvParams,
};
use kernels_gpu::ops::rope_kv::ROPE_KV;
use kernels_gpu::prim::half::F16;

use crate::harness::{Case, Random, Shape, Tolerance, widen};
use crate::paged::{Cache, HeadReference, Heads, query_factors, rope_table};

const TOLERANCE: Tolerance = Tolerance {
    relative: 5e-4,
    absolute: 2e-6,
    reason: "one rounding to f16 (2^-11), and f32 where a pair cancels",
};

#[derive(Clone, Copy)]
struct Rope {
    heads: Heads,
    /// First position and number of tokens of each sequence.
    sequences: &'static [(usize, usize)],
    norm: bool,
    adjacent: bool,
    pairs: usize,
    /// Whether queries have a factor by position.
    tempered: bool,
    /// Factor on all vectors.
    size: f32,
}

impl Rope {
    fn run(&self) {
        let Heads {
            n_heads,
            n_kv_heads,
            head_dim,
        } = self.heads;
        let mut random = Random::new((n_heads * head_dim + self.pairs) as u64);
        let firsts: Vec<usize> = self.sequences.iter().map(|&(first, _)| first).collect();
        let ends: Vec<usize> = self.sequences.iter().map(|(first, n)| first + n).collect();
        let mut cache = Cache::new(self.heads, &ends, &firsts, &mut random);
        let (q_width, kv_width) = (n_heads * head_dim, n_kv_heads * head_dim);
        let tokens: Vec<(usize, usize)> = self
            .sequences
            .iter()
            .enumerate()
            .flat_map(|(sequence, &(first, n))| (first..first + n).map(move |p| (sequence, p)))
            .collect();
        let n = tokens.len();
        // Rows of K and V lie side by side, as where one product makes both.
        let q = random.floats(n * q_width, 3.0 * self.size);
        let kv_rows = random.floats(n * 2 * kv_width, 3.0 * self.size);
        let norms = [0, 1].map(|_| random.floats(head_dim, 1.5));
        let epsilon = 1e-5;
        let table = rope_table(*ends.iter().max().unwrap(), self.pairs, 1e6);

        let factors = query_factors(*ends.iter().max().unwrap());

        let mut case = Case::new(format!(
            "rope_kv, {:?}, sequences {:?}, norm {}, {} pairs",
            self.heads, self.sequences, self.norm, self.pairs
        ));
        let kv = case.in_out("kv", &cache.data);
        let mut expected = Vec::new();
        for (token, &(sequence, position)) in tokens.iter().enumerate() {
            let turns = &table[2 * self.pairs * position..][..2 * self.pairs];
            let apply = |part: usize, x: &[f32]| {
                let reference = HeadReference {
                    norm: (self.norm && part < 2).then(|| norms[part].as_slice()),
                    epsilon,
                    rotation: (part < 2).then_some((turns, self.adjacent)),
                };
                // Beyond f16 they saturate.
                let values = reference.apply(x).into_iter();
                values
                    .map(|x| x.clamp(-65_504.0, 65_504.0))
                    .collect::<Vec<f64>>()
            };
            let factor = if self.tempered {
                factors[position]
            } else {
                1.0
            };
            for head in 0..n_heads {
                let x = &q[token * q_width + head * head_dim..][..head_dim];
                expected.extend(apply(0, x).into_iter().map(|x| x * f64::from(factor)));
            }
            for part in 0..2 {
                for head in 0..n_kv_heads {
                    let at = (2 * token + part) * kv_width + head * head_dim;
                    let row = apply(part + 1, &kv_rows[at..at + head_dim]);
                    let place = cache.offset(sequence, position, head, part);
                    for (place, value) in cache.data[place..].iter_mut().zip(row) {
                        *place = F16(f16::from_f64(value).to_bits());
                    }
                }
            }
        }

        let q_out = case.output::<F16>("q_out", n * q_width);
        let kv_input = case.input("k and v", &kv_rows);
        let mut optional = |given: bool, label: &str, data: &[f32]| {
            if given {
                case.input(label, data)
            } else {
                DevicePtr::NULL
            }
        };
        let [q_norm, k_norm] = [0, 1].map(|i| optional(self.norm, "norm", &norms[i]));
        let q_factors = optional(self.tempered, "factors", &factors);
        let positions: Vec<u32> = tokens
            .iter()
            .map(|&(_, position)| position as u32)
            .collect();
        let sequences: Vec<u32> = tokens
            .iter()
            .map(|&(sequence, _)| sequence as u32)
            .collect();
        let params = RopeKvParams {
            q: case.input("q", &q),
            k: kv_input,
            v: DevicePtr::from_address(kv_input.address() + 4 * kv_width as u64),
            q_norm,
            k_norm,
            rope: case.input("rope", &table),
            q_factors,
            q_out,
            kv,
            page_table: case.input("page table", &cache.page_table),
            positions: case.input("positions", &positions),
            sequences: case.input("sequences", &sequences),
            n_heads: n_heads as u32,
            n_kv_heads: n_kv_heads as u32,
            head_dim: head_dim as u32,
            pairs: self.pairs as u32,
            pairing: if self.adjacent {
                ROPE_ADJACENT
            } else {
                ROPE_HALVES
            },
            q_stride: q_width as u32,
            kv_stride: 2 * kv_width as u32,
            max_pages: cache.max_pages as u32,
            page_stride: cache.page_stride(),
            epsilon,
        };
        let blocks = ((n_heads + 2 * n_kv_heads) as u32).div_ceil(ROPE_HEADS);
        case.launch(
            &ROPE_KV,
            Shape::new([n as u32, blocks, 1], ROPE_THREADS),
            params,
        );
        case.check(q_out, &expected, TOLERANCE);
        // What no token was written to is still NaN, which no comparison lets pass: leave it out,
        // but only where it is.
        let (actual, expected) = (widen(&case.read(kv)), widen(&cache.data));
        for (i, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
            let allowed = TOLERANCE.absolute + 2.0 * TOLERANCE.relative * expected.abs();
            let same =
                (actual.is_nan() && expected.is_nan()) || (actual - expected).abs() <= allowed;
            assert!(same, "kv[{i}]: {actual}, not {expected}");
        }
    }
}

const QWEN: Rope = Rope {
    heads: Heads {
        n_heads: 14,
        n_kv_heads: 2,
        head_dim: 64,
    },
    sequences: &[(0, 5), (62, 4)],
    norm: false,
    adjacent: false,
    pairs: 32,
    tempered: false,
    size: 1.0,
};

#[test]
fn norms_and_pairings() {
    for (norm, adjacent, pairs) in [
        (false, false, 32),
        (false, true, 32),
        (true, false, 32),
        (true, true, 12),
        (false, false, 0),
    ] {
        let rope = Rope {
            norm,
            adjacent,
            pairs,
            ..QWEN
        };
        rope.run();
    }
}

#[test]
fn queries_with_factors() {
    for pairs in [0, 12, 32] {
        let rope = Rope {
            pairs,
            tempered: true,
            ..QWEN
        };
        rope.run();
    }
}

#[test]
fn every_head_size() {
    for (n_heads, n_kv_heads, head_dim) in [
        (1, 1, 2),
        (9, 3, 64),
        (3, 1, 80),
        (4, 4, 96),
        (4, 1, 256),
        (2, 2, 100),
    ] {
        let rope = Rope {
            heads: Heads {
                n_heads,
                n_kv_heads,
                head_dim,
            },
            sequences: &[(127, 2), (0, 1), (3, 3)],
            norm: true,
            pairs: head_dim / 2,
            ..QWEN
        };
        rope.run();
    }
}

#[test]
fn what_f16_does_not_hold_saturates() {
    for size in [3e4, 1e30] {
        Rope { size, ..QWEN }.run();
    }
}
