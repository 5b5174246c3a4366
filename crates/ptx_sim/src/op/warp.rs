//! What lanes do together: barriers, shuffles, votes, matrix products.

use super::{Address, AtomicOp, Column, P, R};

#[derive(Clone, Copy, Debug)]
pub(crate) struct BarrierOp {
    pub id: R,
    /// Thread count; [`NONE`](super::NONE) for the whole block.
    pub threads: R,
    pub arrive_only: bool,
    /// All threads of the warp take part together.
    pub aligned: bool,
    pub reduction: Option<BarrierReduction>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct BarrierReduction {
    pub kind: ReductionKind,
    pub source: P,
    pub negated: bool,
    /// A 32-bit column for `Popc`, else a predicate.
    pub d: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReductionKind {
    Popc,
    And,
    Or,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VoteMode {
    All,
    Any,
    Uniform,
    Ballot,
}

/// Operations that lanes of a warp perform together.
#[derive(Clone, Debug)]
pub(crate) enum WarpOp {
    Sync {
        members: R,
    },
    Shuffle {
        mode: ShuffleMode,
        d: R,
        in_range: P,
        a: R,
        b: R,
        c: R,
        members: R,
    },
    Vote {
        mode: VoteMode,
        d: u32,
        a: P,
        negated: bool,
        members: R,
    },
    MatchAny {
        d: R,
        a: Column,
        members: R,
    },
    MatchAll {
        d: R,
        all: P,
        a: Column,
        members: R,
    },
    Reduce {
        op: AtomicOp,
        signed: bool,
        d: R,
        a: R,
        members: R,
    },
    LoadMatrix {
        address: Address,
        d: Vec<R>,
        transposed: bool,
    },
    StoreMatrix {
        address: Address,
        a: Vec<R>,
        transposed: bool,
    },
    Mma(Mma),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MmaInput {
    F16,
    Bf16,
    Tf32,
    /// Signedness of A and of B.
    Int8(bool, bool),
}

#[derive(Clone, Debug)]
pub(crate) struct Mma {
    pub k: usize,
    pub input: MmaInput,
    /// Accumulators in halves, for `.f16` inputs.
    pub half_accumulator: bool,
    /// `.satfinite` for integers.
    pub saturate: bool,
    pub d: Vec<R>,
    pub a: Vec<R>,
    pub b: Vec<R>,
    pub c: Vec<R>,
}
