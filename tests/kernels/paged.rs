//! A paged KV cache for the tests of the attention family, and attention in f64.

use half::f16;
use kernels_gpu::abi::PAGE_TOKENS;
use kernels_gpu::prim::half::F16;

use crate::harness::{Element, Random};

/// Shape of a model's attention.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
}

impl Heads {
    pub fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }
}

/// The cache of one layer, with a page table per sequence. Pages are dealt out in random order, and
/// what no token was written to is NaN.
pub struct Cache {
    pub heads: Heads,
    /// `[page][K, V][kv_head][token][element]`.
    pub data: Vec<F16>,
    /// `[sequence][max_pages]`; an unused entry is a page far outside.
    pub page_table: Vec<u32>,
    pub max_pages: usize,
}

impl Cache {
    /// A cache for sequences of up to `capacities` tokens, of which the first `filled` are random.
    pub fn new(heads: Heads, capacities: &[usize], filled: &[usize], random: &mut Random) -> Self {
        let page_tokens = PAGE_TOKENS as usize;
        let pages_of = |tokens: &usize| tokens.div_ceil(page_tokens);
        let max_pages = capacities.iter().map(pages_of).max().unwrap();
        let pages: usize = capacities.iter().map(pages_of).sum();
        let mut free: Vec<u32> = (0..pages as u32).collect();
        let mut page_table = vec![u32::MAX; capacities.len() * max_pages];
        for (sequence, tokens) in capacities.iter().enumerate() {
            for entry in 0..pages_of(tokens) {
                let taken = random.below(free.len());
                page_table[sequence * max_pages + entry] = free.swap_remove(taken);
            }
        }
        let page_elements = 2 * heads.n_kv_heads * page_tokens * heads.head_dim;
        let mut cache = Self {
            heads,
            data: vec![F16(f16::NAN.to_bits()); pages * page_elements],
            page_table,
            max_pages,
        };
        for (sequence, &tokens) in filled.iter().enumerate() {
            for token in 0..tokens {
                for kv_head in 0..heads.n_kv_heads {
                    for part in 0..2 {
                        let at = cache.offset(sequence, token, kv_head, part);
                        let row = random.halves(heads.head_dim, 1.0);
                        cache.data[at..at + heads.head_dim].copy_from_slice(&row);
                    }
                }
            }
        }
        cache
    }

    /// Makes all values of all tokens `value`.
    pub fn fill_values(&mut self, value: f16) {
        let part = self.page_stride() as usize / 2;
        for page in self.data.chunks_mut(2 * part) {
            let tokens = page[part..].iter_mut();
            for old in tokens.filter(|old| !f16::from_bits(old.0).is_nan()) {
                *old = F16(value.to_bits());
            }
        }
    }

    /// Makes the values of tokens of sequences no numbers.
    pub fn break_values(&mut self, tokens: &[(usize, usize)]) {
        for &(sequence, token) in tokens {
            for kv_head in 0..self.heads.n_kv_heads {
                let at = self.offset(sequence, token, kv_head, 1);
                self.data[at..at + self.heads.head_dim].fill(F16(f16::NAN.to_bits()));
            }
        }
    }

    /// Elements from page to page.
    pub fn page_stride(&self) -> u32 {
        (2 * self.heads.n_kv_heads * PAGE_TOKENS as usize * self.heads.head_dim) as u32
    }

    /// Where a token's key (`part` 0) or value (1) begins.
    pub fn offset(&self, sequence: usize, token: usize, kv_head: usize, part: usize) -> usize {
        let page_tokens = PAGE_TOKENS as usize;
        let page = self.page_table[sequence * self.max_pages + token / page_tokens] as usize;
        let head = part * self.heads.n_kv_heads + kv_head;
        let row = head * page_tokens + token % page_tokens;
        page * self.page_stride() as usize + row * self.heads.head_dim
    }

    /// A token's key or value in f64.
    pub fn row(&self, sequence: usize, token: usize, kv_head: usize, part: usize) -> Vec<f64> {
        let at = self.offset(sequence, token, kv_head, part);
        let row = &self.data[at..at + self.heads.head_dim];
        row.iter().map(|value| value.to_f64()).collect()
    }

    /// `softmax(scale * q K^T) V` of one query head over the tokens of a range.
    pub fn attend(
        &self,
        sequence: usize,
        head: usize,
        q: &[f64],
        visible: std::ops::Range<usize>,
        scale: f64,
    ) -> Vec<f64> {
        let kv_head = head / self.heads.group();
        let scores: Vec<f64> = visible
            .clone()
            .map(|token| {
                let key = self.row(sequence, token, kv_head, 0);
                scale * q.iter().zip(&key).map(|(q, k)| q * k).sum::<f64>()
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut out = vec![0.0; self.heads.head_dim];
        for (token, weight) in visible.zip(weights) {
            let value = self.row(sequence, token, kv_head, 1);
            for (out, value) in out.iter_mut().zip(value) {
                *out += weight / sum * value;
            }
        }
        out
    }
}

/// Cosine and sine, f32 `[context][pairs][2]`, as the host makes them.
pub fn rope_table(context: usize, pairs: usize, base: f64) -> Vec<f32> {
    let mut table = Vec::with_capacity(2 * context * pairs);
    for position in 0..context {
        for pair in 0..pairs {
            let angle = position as f64 * base.powf(-(pair as f64) / pairs as f64);
            table.extend([angle.cos() as f32, angle.sin() as f32]);
        }
    }
    table
}

/// Factors on the queries at each position, `[context]`.
pub fn query_factors(context: usize) -> Vec<f32> {
    let factors = (0..context).map(|position| 1.0 + (position / 3) as f32 / 64.0);
    factors.collect()
}

/// What becomes of a head's raw vector: RMSNorm and rotation, each where given.
pub struct HeadReference<'a> {
    pub norm: Option<&'a [f32]>,
    pub epsilon: f32,
    /// The table's row, and whether pairs are adjacent.
    pub rotation: Option<(&'a [f32], bool)>,
}

impl HeadReference<'_> {
    /// In f64, not rounded.
    pub fn apply(&self, x: &[f32]) -> Vec<f64> {
        let mut x: Vec<f64> = x.iter().map(|&x| x.into()).collect();
        if let Some(norm) = self.norm {
            let squares: f64 = x.iter().map(|x| x * x).sum();
            let scale = 1.0 / (squares / x.len() as f64 + f64::from(self.epsilon)).sqrt();
            x.iter_mut()
                .zip(norm)
                .for_each(|(x, &w)| *x *= scale * f64::from(w));
        }
        if let Some((table, adjacent)) = self.rotation {
            let pairs = table.len() / 2;
            for pair in 0..pairs {
                let (first, second) = if adjacent {
                    (2 * pair, 2 * pair + 1)
                } else {
                    (pair, pair + pairs)
                };
                let (cos, sin) = (f64::from(table[2 * pair]), f64::from(table[2 * pair + 1]));
                let (a, b) = (x[first], x[second]);
                x[first] = a * cos - b * sin;
                x[second] = a * sin + b * cos;
            }
        }
        x
    }
}
