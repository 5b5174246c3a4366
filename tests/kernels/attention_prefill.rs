//! Tests of `ops/attention_prefill.rs`.

use half::f16;
use kernels_gpu::abi::{
    AttentionPrefillParams, KernelDef, NO_WINDOW, PREFILL_THREADS, PREFILL_TILE_ROWS,
    prefill_shared_bytes,
};
use kernels_gpu::ops::attention_prefill as kernels;
use kernels_gpu::prim::half::F16;

use crate::harness::{Case, Random, Shape, Tolerance, widen};
use crate::paged::{Cache, Heads};

const TOLERANCE: Tolerance = Tolerance {
    relative: 1e-3,
    absolute: 1e-3,
    reason: "weights and result are rounded to f16 (2^-11 each) for values up to 1",
};

/// First position and number of queries of each sequence.
pub type Sequences<'a> = &'a [(usize, usize)];

/// What attends to what, and how.
#[derive(Clone, Copy)]
pub struct Prefill<'a> {
    pub kernel: &'a KernelDef<AttentionPrefillParams>,
    /// Tiles of rows of a warp that the kernel is made for.
    pub row_tiles: u32,
    pub heads: Heads,
    pub sequences: Sequences<'a>,
    pub window: Option<usize>,
    /// The scores' scale, times the root of the head's size.
    pub scale: f32,
    /// Whether all values are the largest that f16 holds.
    pub largest_values: bool,
    /// Sequences and tokens whose values are no numbers.
    pub broken: &'a [(usize, usize)],
}

impl Prefill<'_> {
    /// Attends on the device and in f64, and compares.
    pub fn run(&self) {
        let heads = self.heads;
        let Heads {
            n_heads,
            n_kv_heads,
            head_dim,
        } = heads;
        let name = format!(
            "{}, {n_heads}/{n_kv_heads} heads, sequences {:?}, window {:?}, scale {}",
            self.kernel.name, self.sequences, self.window, self.scale
        );
        let mut random = Random::new(n_heads as u64 * 1000 + head_dim as u64);
        let lengths: Vec<usize> = self.sequences.iter().map(|(first, n)| first + n).collect();
        let mut cache = Cache::new(heads, &lengths, &lengths, &mut random);
        if self.largest_values {
            cache.fill_values(f16::MAX);
        }
        cache.break_values(self.broken);
        let tokens: usize = self.sequences.iter().map(|(_, n)| n).sum();
        let q = random.halves(tokens * n_heads * head_dim, 2.0);
        let scale = self.scale / (head_dim as f32).sqrt();

        let mut starts = vec![0];
        let mut expected = Vec::with_capacity(q.len());
        for (sequence, &(first, n)) in self.sequences.iter().enumerate() {
            let start = starts[sequence] as usize;
            for query in 0..n {
                let end = first + query + 1;
                let visible = self.window.map_or(0, |window| end.saturating_sub(window))..end;
                for head in 0..n_heads {
                    let at = ((start + query) * n_heads + head) * head_dim;
                    let q = widen(&q[at..at + head_dim]);
                    let row = cache.attend(sequence, head, &q, visible.clone(), scale.into());
                    expected.extend(row);
                }
            }
            starts.push((start + n) as u32);
        }
        let firsts: Vec<u32> = self
            .sequences
            .iter()
            .map(|&(first, _)| first as u32)
            .collect();

        let mut case = Case::new(name);
        let out = case.output::<F16>("out", q.len());
        let params = AttentionPrefillParams {
            q: case.input("q", &q),
            out,
            kv: case.input("kv", &cache.data),
            page_table: case.input("page table", &cache.page_table),
            query_starts: case.input("query starts", &starts),
            first_positions: case.input("first positions", &firsts),
            n_heads: n_heads as u32,
            n_kv_heads: n_kv_heads as u32,
            max_pages: cache.max_pages as u32,
            page_stride: cache.page_stride(),
            window: self.window.map_or(NO_WINDOW, |window| window as u32),
            scale,
        };
        let most = self.sequences.iter().map(|&(_, n)| n).max().unwrap();
        let rows = (most * heads.group()) as u32;
        let shape = Shape {
            grid: [
                rows.div_ceil(PREFILL_TILE_ROWS * self.row_tiles),
                n_kv_heads as u32,
                self.sequences.len() as u32,
            ],
            block: PREFILL_THREADS,
            shared_bytes: prefill_shared_bytes(head_dim as u32, self.row_tiles),
        };
        case.launch(self.kernel, shape, params);
        match self.broken {
            [] => case.check(out, &expected, TOLERANCE),
            _ => case.check_broken(out, &expected, TOLERANCE),
        }
    }
}

/// Qwen2.5-0.5B's heads, with scores large enough that the softmax has an edge.
pub const QWEN: Prefill = Prefill {
    kernel: &kernels::ATTENTION_PREFILL_64,
    row_tiles: 1,
    heads: Heads {
        n_heads: 14,
        n_kv_heads: 2,
        head_dim: 64,
    },
    sequences: &[(0, 17)],
    window: None,
    scale: 2.0,
    largest_values: false,
    broken: &[],
};

/// [`QWEN`] with scores whose exponentials are too large for f16, and for f32.
pub const LARGE_SCORES: Prefill = Prefill {
    scale: 80.0,
    ..QWEN
};

#[test]
fn sequences_of_many_lengths() {
    let sequences: [Sequences<'_>; 6] = [
        &[(0, 1)],
        &[(0, 17)],
        &[(0, 130)],
        &[(63, 1), (64, 2), (0, 9)],
        &[(100, 40), (0, 3), (191, 1)],
        &[(0, 64)],
    ];
    for sequences in sequences {
        for (kernel, row_tiles) in [
            (&kernels::ATTENTION_PREFILL_64, 1),
            (&kernels::ATTENTION_PREFILL_64_WIDE, 2),
        ] {
            Prefill {
                kernel,
                row_tiles,
                sequences,
                ..QWEN
            }
            .run();
        }
    }
}

#[test]
fn sliding_windows() {
    for window in [1, 2, 63, 64, 65, 100] {
        Prefill {
            heads: Heads {
                n_heads: 4,
                n_kv_heads: 2,
                head_dim: 64,
            },
            sequences: &[(0, 70), (150, 33)],
            window: Some(window),
            ..QWEN
        }
        .run();
    }
}

#[test]
fn scores_whose_exponentials_overflow() {
    LARGE_SCORES.run();
    Prefill {
        kernel: &kernels::ATTENTION_PREFILL_128_WIDE,
        row_tiles: 2,
        heads: Heads {
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 128,
        },
        sequences: &[(60, 70)],
        ..LARGE_SCORES
    }
    .run();
}

/// Weights that are rounded may add up to more than one.
#[test]
fn mixtures_of_the_largest_values_are_finite() {
    for (kernel, row_tiles) in [
        (&kernels::ATTENTION_PREFILL_64, 1),
        (&kernels::ATTENTION_PREFILL_64_WIDE, 2),
    ] {
        Prefill {
            kernel,
            row_tiles,
            sequences: &[(0, 130)],
            largest_values: true,
            ..QWEN
        }
        .run();
    }
}

/// What is no number reaches the rows that see it, and no other: those before it and those whose window is past it,
/// also where they share a tile with rows that do.
#[test]
fn broken_values_reach_only_those_that_see_them() {
    const BROKEN: [&[(usize, usize)]; 3] = [&[(0, 5), (1, 70)], &[(0, 63), (1, 40)], &[(0, 128)]];
    for (kernel, head_dim, row_tiles) in [
        (&kernels::ATTENTION_PREFILL_64, 64, 1),
        (&kernels::ATTENTION_PREFILL_64_WIDE, 64, 2),
        (&kernels::ATTENTION_PREFILL_80, 80, 1),
        (&kernels::ATTENTION_PREFILL_128_WIDE, 128, 2),
    ] {
        for window in [None, Some(1), Some(30), Some(64)] {
            for broken in BROKEN {
                Prefill {
                    kernel,
                    row_tiles,
                    heads: Heads {
                        n_heads: 6,
                        n_kv_heads: 2,
                        head_dim,
                    },
                    sequences: &[(0, 130), (40, 60)],
                    window,
                    broken,
                    ..QWEN
                }
                .run();
            }
        }
    }
}

#[test]
fn every_head_size() {
    let kernels = [
        (&kernels::ATTENTION_PREFILL_32, 32, 1),
        (&kernels::ATTENTION_PREFILL_80, 80, 1),
        (&kernels::ATTENTION_PREFILL_96, 96, 1),
        (&kernels::ATTENTION_PREFILL_128, 128, 1),
        (&kernels::ATTENTION_PREFILL_128_WIDE, 128, 2),
        (&kernels::ATTENTION_PREFILL_256, 256, 1),
    ];
    for (kernel, head_dim, row_tiles) in kernels {
        let shapes: [(usize, usize, Sequences<'_>); 5] = [
            (1, 1, &[(0, 1)]),
            (3, 1, &[(0, 5), (70, 23)]),
            (4, 4, &[(10, 65)]),
            (8, 2, &[(0, 40)]),
            (9, 3, &[(126, 3), (0, 1)]),
        ];
        for (n_heads, n_kv_heads, sequences) in shapes {
            Prefill {
                kernel,
                row_tiles,
                heads: Heads {
                    n_heads,
                    n_kv_heads,
                    head_dim,
                },
                sequences,
                ..QWEN
            }
            .run();
        }
    }
}
