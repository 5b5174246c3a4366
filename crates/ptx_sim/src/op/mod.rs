//! The decoded instruction set that the executor runs.
//!
//! Registers live in three files, each register a column over the warp's 32 lanes: 32 bits (also
//! for narrower types, which are kept zero-extended), 64 bits, and predicates (one mask each).
//! Immediates, addresses of variables and special registers that do not change are columns as
//! well, written when a warp starts, so that every source operand is a column index.

mod alu;
mod float;
mod memory;
mod warp;

use crate::special::SpecialRegister;

pub(crate) use alu::*;
pub(crate) use float::*;
pub(crate) use memory::*;
pub(crate) use warp::*;

/// Column of the 32-bit file.
pub(crate) type R = u32;

/// Column of the 64-bit file.
pub(crate) type D = u32;

/// Column of the predicate file.
pub(crate) type P = u32;

/// Index of an instruction.
pub(crate) type Pc = u32;

/// No reconvergence point, no register, no guard.
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
pub(crate) struct Instr {
    /// Predicate column, or [`NONE`].
    pub guard: P,
    pub guard_inverted: bool,
    /// Line in the PTX text.
    pub line: u32,
    pub op: Op,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Alu(Alu),
    Clock {
        register: SpecialRegister,
        d: Column,
    },
    ActiveMask {
        d: R,
    },
    Load(Box<Access>),
    Store(Box<Access>),
    Atomic(Box<Atomic>),
    AsyncCopy(Box<AsyncCopy>),
    AsyncCommit,
    /// Waits until at most `pending` groups are in flight.
    AsyncWait {
        pending: u32,
    },
    /// Waits for everything, committed or not.
    AsyncWaitAll,
    Fence,
    /// `griddepcontrol.wait`.
    GridWait,
    /// `griddepcontrol.launch_dependents`.
    GridTrigger,
    Branch {
        target: Pc,
        reconverge: Pc,
    },
    BranchIndexed {
        index: R,
        targets: Box<[Pc]>,
        reconverge: Pc,
    },
    /// Lanes that parted at a branch meet here.
    Join,
    Call(Box<Call>),
    Return,
    Exit,
    Trap,
    Barrier(BarrierOp),
    Warp(Box<WarpOp>),
    Nop,
}

/// A destination or source column of either register file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    R32(R),
    R16(R),
    R8(R),
    R64(D),
    Discard,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub target: CallTarget,
    /// Local addresses and sizes of the arguments and results at the call site.
    pub arguments: Vec<(u32, u32)>,
    pub results: Vec<(u32, u32)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum CallTarget {
    Function(usize),
    Pointer(D),
}
