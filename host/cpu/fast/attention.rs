//! Causal attention in f32, the keys of a page side by side in the lanes.
//!
//! Up to four queries of a key head, heads of one token or tokens of a prompt, share what they load. A score is a sum
//! over the head in order, the sum of exponentials has a lane for every sixteenth position, and values are added in the
//! order of positions: a query's bits do not depend on those beside it.

// Several arrays have an element for each query, vector or half.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use rayon::prelude::*;

use super::math::exp;
use crate::backend::PAGE_TOKENS;
use crate::cpu::attention::Attention;
use crate::cpu::kv_cache::Token;
use crate::gguf::quant::simd::{Kernel, LANES, Simd, dispatch};

/// Queries that are handled together.
const TILE: usize = 4;

/// `[tokens, n_heads * head_dim]`.
pub fn attend(attention: &Attention<'_, f32>) -> Vec<f32> {
    let (config, n_tokens) = (attention.config, attention.tokens.len());
    let dim = config.head_dim;
    let mut out = vec![0.0; attention.q.len()];
    let of_kv_head = n_tokens * config.group_size();
    // `[n_kv_heads, tokens, group_size, head_dim]`.
    let heads = out.par_chunks_mut(of_kv_head * dim).enumerate();
    let tiles = heads.flat_map(|(kv_head, out)| {
        let tiles = out.par_chunks_mut(TILE * dim).enumerate();
        tiles.map(move |(index, out)| (kv_head, index * TILE, out))
    });
    tiles.for_each_init(Vec::new, |scores, (kv_head, first, out)| {
        if attention.interrupt.is_requested() {
            return;
        }
        let end = first + out.len() / dim;
        tile_of(attention, kv_head, first..end, scores, out);
    });
    match n_tokens {
        1 => out,
        _ => by_token(&out, n_tokens, config.n_kv_heads),
    }
}

/// `[n_kv_heads, tokens, n]` to `[tokens, n_kv_heads, n]`.
fn by_token(from: &[f32], n_tokens: usize, n_kv_heads: usize) -> Vec<f32> {
    let n = from.len() / (n_tokens * n_kv_heads).max(1);
    let mut out = vec![0.0; from.len()];
    for (index, out) in out.chunks_exact_mut(n.max(1)).enumerate() {
        let (token, head) = (index / n_kv_heads, index % n_kv_heads);
        out.copy_from_slice(&from[(head * n_tokens + token) * n..][..n]);
    }
    out
}

/// The queries `queries` of a key head, counted over tokens and the heads that share it.
fn tile_of(
    attention: &Attention<'_, f32>,
    kv_head: usize,
    queries: Range<usize>,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let (config, dim) = (attention.config, attention.config.head_dim);
    let group = config.group_size();
    let query = |index: usize| -> Query<'_> {
        let token = index / group;
        let head = kv_head * group + index % group;
        let token = &attention.tokens[token];
        Query {
            q: &attention.q[(index / group * config.n_heads + head) * dim..][..dim],
            visible: attention.visible(token.position),
            token,
        }
    };
    let same = |token: &Token<'_>| std::ptr::eq(token.pages, query(queries.start).token.pages);
    if queries.len() == TILE && queries.clone().all(|index| same(query(index).token)) {
        let queries: [Query<'_>; TILE] = std::array::from_fn(|i| query(queries.start + i));
        dispatch(Heads::new(attention, kv_head, queries, scores, out));
    } else {
        for (index, out) in queries.zip(out.chunks_exact_mut(dim)) {
            dispatch(Heads::new(attention, kv_head, [query(index)], scores, out));
        }
    }
}

/// A head of a token.
struct Query<'a> {
    q: &'a [f32],
    visible: Range<usize>,
    token: &'a Token<'a>,
}

/// Queries of one sequence and key head.
struct Heads<'a, const T: usize> {
    attention: &'a Attention<'a, f32>,
    kv_head: usize,
    queries: [Query<'a>; T],
    /// The first position of the first page that is seen.
    base: usize,
    /// Scores of the positions from `base` on, then their exponentials, of each query.
    scores: [&'a mut [[f32; LANES]]; T],
    /// `[T, head_dim]`.
    out: &'a mut [f32],
}

impl<'a, const T: usize> Heads<'a, T> {
    fn new(
        attention: &'a Attention<'a, f32>,
        kv_head: usize,
        queries: [Query<'a>; T],
        scores: &'a mut Vec<f32>,
        out: &'a mut [f32],
    ) -> Self {
        let first = queries.iter().map(|query| query.visible.start).min();
        let end = queries.iter().map(|query| query.visible.end).max();
        let base = first.unwrap_or(0) / PAGE_TOKENS * PAGE_TOKENS;
        let n = (end.unwrap_or(0) - base).next_multiple_of(LANES);
        scores.clear();
        scores.resize(T * n, 0.0);
        let mut parts = scores.as_chunks_mut().0.chunks_exact_mut(n / LANES);
        let scores = std::array::from_fn(|_| parts.next().unwrap_or_default());
        Heads {
            attention,
            kv_head,
            queries,
            base,
            scores,
            out,
        }
    }

    /// Keys, `[head_dim, PAGE_TOKENS]`, and values, `[PAGE_TOKENS, head_dim]`, of the page of a position.
    fn page(&self, position: usize) -> (&'a [f32], &'a [f32]) {
        let page = self.queries[0].token.pages[position / PAGE_TOKENS];
        let cache = self.attention.cache;
        cache.head(self.attention.layer, page, self.kv_head)
    }
}

impl<const T: usize> Kernel for Heads<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        self.score(simd);
        let scale = self.attention.config.attention_scale;
        let mut sums = [0.0; T];
        for t in 0..T {
            let visible = &self.queries[t].visible;
            let visible = visible.start - self.base..visible.end - self.base;
            sums[t] = exponentials(simd, scale, visible, self.scores[t]);
        }
        self.mix(simd, sums);
    }
}

impl<const T: usize> Heads<'_, T> {
    /// Products of the queries with the keys.
    #[inline(always)]
    fn score<S: Simd>(&mut self, simd: S) {
        for index in 0..self.scores[0].len() {
            let position = self.base + index * LANES;
            let (keys, _) = self.page(position);
            let keys = keys.as_chunks::<PAGE_TOKENS>().0;
            let at = position % PAGE_TOKENS;
            let mut sums = [simd.splat(0.0); T];
            for (d, keys) in keys.iter().enumerate() {
                let keys = simd.load(&keys.as_chunks().0[at / LANES]);
                for t in 0..T {
                    sums[t] = simd.mul_add(simd.splat(self.queries[t].q[d]), keys, sums[t]);
                }
            }
            for t in 0..T {
                simd.store(sums[t], &mut self.scores[t][index]);
            }
        }
    }

    /// Values times exponentials, divided by the sums.
    #[inline(always)]
    fn mix<S: Simd>(&mut self, simd: S, sums: [f32; T]) {
        let dim = self.attention.config.head_dim;
        // What all queries see, and what some see before and behind it.
        let (mut start, mut end) = (0, usize::MAX);
        for query in &self.queries {
            start = start.max(query.visible.start);
            end = end.min(query.visible.end);
        }
        let start = start.min(end);
        for at in (0..dim).step_by(LANES) {
            let mut mixed = [simd.splat(0.0); T];
            for t in 0..T {
                let before = self.queries[t].visible.start..start;
                [mixed[t]] = self.add_values(simd, before, at, [t], [mixed[t]]);
            }
            let mut all = [0; T];
            for (t, of) in all.iter_mut().enumerate() {
                *of = t;
            }
            mixed = self.add_values(simd, start..end, at, all, mixed);
            for t in 0..T {
                let behind = end..self.queries[t].visible.end;
                [mixed[t]] = self.add_values(simd, behind, at, [t], [mixed[t]]);
                let mut lanes = [0.0; LANES];
                simd.store(simd.div(mixed[t], simd.splat(sums[t])), &mut lanes);
                let out = &mut self.out[t * dim + at..(t + 1) * dim];
                let n = out.len().min(LANES);
                out[..n].copy_from_slice(&lanes[..n]);
            }
        }
    }

    /// `sums` and the elements from `at` on of the values at `positions`, times the exponentials of the queries `of`.
    #[inline(always)]
    fn add_values<S: Simd, const N: usize>(
        &self,
        simd: S,
        positions: Range<usize>,
        at: usize,
        of: [usize; N],
        mut sums: [S::Floats; N],
    ) -> [S::Floats; N] {
        let dim = self.attention.config.head_dim;
        let mut first = positions.start;
        while first < positions.end {
            let end = positions.end.min((first / PAGE_TOKENS + 1) * PAGE_TOKENS);
            let (_, values) = self.page(first);
            for position in first..end {
                let value = &values[position % PAGE_TOKENS * dim..][..dim][at..];
                let value = match value.first_chunk() {
                    Some(value) => simd.load(value),
                    None => {
                        let mut lanes = [0.0; LANES];
                        lanes[..value.len()].copy_from_slice(value);
                        simd.load(&lanes)
                    }
                };
                let place = position - self.base;
                for n in 0..N {
                    let factor = self.scores[of[n]][place / LANES][place % LANES];
                    sums[n] = simd.mul_add(simd.splat(factor), value, sums[n]);
                }
            }
            first = end;
        }
        sums
    }
}

/// `e^(scale * score - max)` of what is visible, in place, and their sum. What is not visible adds less than f32
/// can tell.
#[inline(always)]
fn exponentials<S: Simd>(
    simd: S,
    scale: f32,
    visible: Range<usize>,
    scores: &mut [[f32; LANES]],
) -> f32 {
    for place in 0..visible.start {
        scores[place / LANES][place % LANES] = f32::NEG_INFINITY;
    }
    for place in visible.end..scores.len() * LANES {
        scores[place / LANES][place % LANES] = f32::NEG_INFINITY;
    }
    let mut max = simd.splat(f32::NEG_INFINITY);
    for score in scores.iter_mut() {
        let scaled = simd.mul(simd.load(score), simd.splat(scale));
        simd.store(scaled, score);
        max = simd.max(max, scaled);
    }
    let mut lanes = [0.0; LANES];
    simd.store(max, &mut lanes);
    let mut max = lanes[0];
    for lane in lanes {
        max = if max > lane { max } else { lane };
    }
    let mut sums = simd.splat(0.0);
    for score in scores.iter_mut() {
        let value = exp(simd, simd.sub(simd.load(score), simd.splat(max)));
        simd.store(value, score);
        sums = simd.add(sums, value);
    }
    simd.sum(sums)
}
