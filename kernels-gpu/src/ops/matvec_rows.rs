//! Which rows a warp of a matrix-vector kernel takes, and which results its lanes get.

use super::weights::Weights;
use crate::abi::{MatvecEpilogue, MatvecParams, MatvecSegment};

/// Two rows that a warp multiplies at a time: neighbours in a matrix, or a row of the gate's matrix and the
/// same row of the other's. Pairs are numbered through all segments.
#[derive(Clone, Copy)]
pub struct RowPair {
    /// The first row's blocks.
    pub first: *const u8,
    /// The second's; the first's again where a matrix has an odd number of rows.
    pub second: *const u8,
}

impl RowPair {
    /// The number of pairs.
    #[inline(always)]
    pub fn count(p: &MatvecParams) -> u32 {
        let [a, b, c] = &p.segments;
        if is_gated(p) {
            a.n_out
        } else {
            a.n_out.div_ceil(2) + b.n_out.div_ceil(2) + c.n_out.div_ceil(2)
        }
    }

    /// The rows of a pair; dangling behind the last pair.
    #[inline(always)]
    pub fn new<W: Weights>(p: &MatvecParams, pair: u32) -> Self {
        let row_bytes = W::TYPE.row_bytes(p.n_in) as usize;
        let pointer = |row: u32| {
            let (segment, row) = Self::segment_and_row(p, pair, row);
            let row = row.min(segment.n_out.wrapping_sub(1));
            segment.weights.ptr().wrapping_add(row as usize * row_bytes)
        };
        Self {
            first: pointer(0),
            second: pointer(1),
        }
    }

    /// The segment of a pair, and the number there of one of its rows (0 or 1), which may be one behind the
    /// last.
    #[inline(always)]
    pub fn segment_and_row(p: &MatvecParams, pair: u32, row: u32) -> (MatvecSegment, u32) {
        if is_gated(p) {
            return (segment(p, row), pair);
        }
        let in_first = p.segments[0].n_out.div_ceil(2);
        let in_second = p.segments[1].n_out.div_ceil(2);
        let (index, pair) = if pair < in_first {
            (0, pair)
        } else if pair - in_first < in_second {
            (1, pair - in_first)
        } else {
            (2, pair - in_first - in_second)
        };
        (segment(p, index), 2 * pair + row)
    }
}

#[inline(always)]
fn is_gated(p: &MatvecParams) -> bool {
    p.epilogue >= MatvecEpilogue::Silu as u32
}

/// A segment by a variable index, field by field: to index the array would copy it to local memory.
#[inline(always)]
fn segment(p: &MatvecParams, index: u32) -> MatvecSegment {
    let [a, b, c] = p.segments;
    macro_rules! field {
        ($name:ident) => {
            if index == 0 {
                a.$name
            } else if index == 1 {
                b.$name
            } else {
                c.$name
            }
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
