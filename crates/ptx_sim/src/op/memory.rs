//! Memory accesses.

use super::{Column, D, P, R};
use crate::ty::Space;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Base {
    /// The offset is the whole address.
    None,
    R32(R),
    R64(D),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub space: Space,
    pub base: Base,
    pub offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ordering {
    Weak,
    /// `.volatile` and `.relaxed`: no race with other such accesses.
    Relaxed,
    /// `.acquire` and `.release`.
    Synchronizing,
}

#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub address: Address,
    pub element_bytes: u32,
    pub signed: bool,
    pub columns: Vec<Column>,
    pub ordering: Ordering,
    /// `.nc`: the memory must not be written during the launch.
    pub read_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomicOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareExchange,
    Increment,
    Decrement,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomicTy {
    U32,
    S32,
    U64,
    S64,
    F32,
    F64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    B16,
}

impl AtomicTy {
    pub fn bytes(self) -> u32 {
        match self {
            Self::U64 | Self::S64 | Self::F64 => 8,
            Self::F16 | Self::Bf16 | Self::B16 => 2,
            _ => 4,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Atomic {
    pub address: Address,
    pub op: AtomicOp,
    pub ty: AtomicTy,
    pub d: Column,
    pub b: Column,
    pub c: Column,
    /// `.acquire`, `.release` or `.acq_rel`.
    pub synchronizing: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct AsyncCopy {
    pub to: Address,
    pub from: Address,
    pub bytes: u32,
    /// Bytes really read; the rest is zero.
    pub source_bytes: Option<R>,
    /// `ignore-src`: read nothing where the predicate holds.
    pub ignore: Option<P>,
}
