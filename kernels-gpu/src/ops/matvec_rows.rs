//! Which rows a warp of a matrix-vector kernel takes, and which results its lanes get.

use core::hint::select_unpredictable;

use super::weights::Weights;
use crate::abi::{MatvecEpilogue, MatvecParams, MatvecSegment};

/// The pairs of rows that warps multiply: neighbours in a matrix, or a row of the gate's matrix and the
/// same row of the other's. They are numbered through all segments.
#[derive(Clone, Copy)]
pub struct RowPairs<'a>(&'a MatvecParams);

/// Where a pair of rows is.
#[derive(Clone, Copy)]
pub struct Pair {
    segment: u32,
    /// Number of the first row in its segment.
    row: u32,
}

impl<'a> RowPairs<'a> {
    /// The pairs of a launch.
    #[inline(always)]
    pub fn of(params: &'a MatvecParams) -> Self {
        Self(params)
    }

    /// The number of pairs.
    #[inline(always)]
    pub fn count(&self) -> u32 {
        self.0.pair_ends[2]
    }

    /// Whether the second rows are of the second segment.
    #[inline(always)]
    pub fn are_gated(&self) -> bool {
        self.0.epilogue >= MatvecEpilogue::Silu as u32
    }

    /// The place of pair `number`.
    #[inline(always)]
    pub fn place(&self, number: u32) -> Pair {
        let [a, b, _] = self.0.pair_ends;
        // Gated pairs end at the same place in all segments, so that they are all in the first.
        let segment = (number >= a) as u32 + (number >= b) as u32;
        let pair = number - pick(segment, [0, a, b]);
        Pair {
            segment,
            row: if self.are_gated() { pair } else { 2 * pair },
        }
    }

    /// The blocks of both rows; those of the first twice where a matrix has an odd number of rows.
    #[inline(always)]
    pub fn rows<W: Weights>(&self, pair: Pair) -> [*const u8; 2] {
        let row_bytes = W::TYPE.row_bytes(self.0.n_in) as usize;
        let segment = segment(&self.0.segments, pair.segment);
        let offset = pair.row as usize * row_bytes;
        let first = segment.weights.ptr().wrapping_add(offset);
        let has_next = pair.row + 1 < segment.n_out;
        let next = first.wrapping_add(if has_next { row_bytes } else { 0 });
        let up = self.0.segments[1].weights.ptr().wrapping_add(offset);
        [first, select_unpredictable(self.are_gated(), up, next)]
    }

    /// The segment of one of the rows of a pair, 0 or 1, and the row's number there; it may be the first
    /// behind the last.
    #[inline(always)]
    pub fn row(&self, pair: Pair, which: u32) -> (MatvecSegment, u32) {
        let gated = self.are_gated() as u32;
        let index = pair.segment + which * gated;
        (
            segment(&self.0.segments, index),
            pair.row + which * (1 - gated),
        )
    }
}

/// A segment by a variable index, field by field: to index the array would copy it to local memory.
#[inline(always)]
pub fn segment([a, b, c]: &[MatvecSegment; 3], index: u32) -> MatvecSegment {
    macro_rules! field {
        ($name:ident) => {
            pick(index, [a.$name, b.$name, c.$name])
        };
    }
    MatvecSegment {
        weights: field!(weights),
        y: field!(y),
        bias: field!(bias),
        n_out: field!(n_out),
        y_stride: field!(y_stride),
    }
}

/// `choices[index]` without a branch: from branches LLVM makes one load through a variable pointer, which
/// would need the parameters in local memory.
#[inline(always)]
fn pick<T>(index: u32, choices: [T; 3]) -> T {
    let [a, b, c] = choices;
    select_unpredictable(index == 0, a, select_unpredictable(index == 1, b, c))
}

/// The result that a lane has after [`lanes_sums`](crate::prim::reduce::lanes_sums).
#[derive(Clone, Copy)]
pub struct Place {
    /// Number of the result.
    pub index: u32,
    /// Its vector.
    pub vector: u32,
    /// Its row, 0 or 1.
    pub row: u32,
    /// Whether this is the first of the lanes that have it.
    pub leads: bool,
}

impl Place {
    /// The place of a lane, of `2 * N` results.
    #[inline(always)]
    pub fn of_lane<const N: usize>(lane: u32) -> Self {
        let lanes = const { 16 / N as u32 };
        let index = lane / lanes;
        Self {
            index,
            vector: index / 2,
            row: index % 2,
            leads: lane.is_multiple_of(lanes),
        }
    }
}
