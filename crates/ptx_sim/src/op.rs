//! The decoded instruction set that the executor runs.
//!
//! Registers live in three files, each register a column over the warp's 32 lanes: 32 bits (also
//! for narrower types, which are kept zero-extended), 64 bits, and predicates (one mask each).
//! Immediates, addresses of variables and special registers that do not change are columns as
//! well, written when a warp starts, so that every source operand is a column index.

use crate::special::SpecialRegister;
use crate::ty::Space;

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

#[derive(Clone, Copy, Debug)]
pub(crate) struct BarrierOp {
    pub id: R,
    /// Thread count; [`NONE`] for the whole block.
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

/// Instructions that neither touch memory nor control.
#[derive(Clone, Debug)]
pub(crate) enum Alu {
    Un32(Un32, R, R),
    Bin32(Bin32, R, R, R),
    Tri32(Tri32, R, R, R, R),
    Lop3 {
        lut: u8,
        d: R,
        a: R,
        b: R,
        c: R,
    },
    /// Single precision with flush-to-zero, saturation or directed rounding.
    Float(FloatOp, FloatMode, R, [R; 3]),
    Approx(Approx, bool, R, R),
    Half(HalfOp, HalfMode, R, [R; 3]),
    Un64(Un64, D, D),
    Bin64(Bin64, D, D, D),
    Tri64(Tri64, D, D, D, D),
    Shift64(Shift, D, D, R),
    /// `bfe` and `bfi` on 64 bits; the field's length and position are in the low bytes of `place`.
    Extract64 {
        signed: bool,
        d: D,
        a: D,
        place: R,
    },
    Insert64 {
        d: D,
        a: D,
        b: D,
        place: R,
    },
    Widen(Widen, D, R),
    Narrow(Narrow, R, D),
    MulWide {
        signed: bool,
        d: D,
        a: R,
        b: R,
    },
    MadWide {
        signed: bool,
        d: D,
        a: R,
        b: R,
        c: D,
    },
    Pack64 {
        d: D,
        low: R,
        high: R,
    },
    Convert(Conversion, Column, Column),
    /// Two singles into packed halves: `d = {high: a, low: b}`.
    ConvertPair {
        bf16: bool,
        relu: bool,
        toward_zero: bool,
        d: R,
        a: R,
        b: R,
    },
    Carry {
        subtract: bool,
        carry_in: bool,
        carry_out: bool,
        cc: P,
        d: Column,
        a: Column,
        b: Column,
    },
    Compare {
        ty: CompareTy,
        cmp: Cmp,
        p: P,
        q: P,
        a: u32,
        b: u32,
        combine: Option<Combine>,
    },
    Select32 {
        d: R,
        a: R,
        b: R,
        p: P,
    },
    Select64 {
        d: D,
        a: D,
        b: D,
        p: P,
    },
    Pred(BoolOp, P, P, P),
    NotPred {
        d: P,
        a: P,
    },
    SetPred {
        d: P,
        value: bool,
    },
    IsSpace {
        space: Space,
        p: P,
        a: D,
    },
    TestFloat {
        test: FloatTest,
        p: P,
        a: R,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Combine {
    pub op: BoolOp,
    pub c: P,
    pub negated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Un32 {
    Mov,
    Not,
    Not16,
    Cnot,
    Neg,
    Neg16,
    Abs,
    Abs16,
    Popc,
    Clz,
    Brev,
    FindU,
    FindS,
    ShiftFindU,
    ShiftFindS,
    Low8,
    Low16,
    High16,
    /// Byte 1 of the word; with [`Un32::Low8`], [`Un32::High16`] every byte.
    Byte1,
    Byte2,
    Byte3,
    /// Sign extensions to 32 bits.
    Sext8,
    Sext16,
    /// Sign extension of a byte to 16 bits.
    Sext8To16,
    NegF32,
    AbsF32,
    NegHalf,
    AbsHalf,
    NegHalf2,
    AbsHalf2,
    SqrtF32,
    RcpF32,
    F32FromU32,
    F32FromS32,
    F32FromF16,
    F32FromBf16,
    F16FromF32,
    Bf16FromF32,
    S32FromF32Rz,
    U32FromF32Rz,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bin32 {
    Add,
    Sub,
    MulLo,
    MulHiU,
    MulHiS,
    DivU,
    DivS,
    RemU,
    RemS,
    MinU,
    MinS,
    MaxU,
    MaxS,
    And,
    Or,
    Xor,
    Shl,
    ShrU,
    ShrS,
    AddSatS,
    SubSatS,
    Mul24U,
    Mul24S,
    Add16,
    Sub16,
    MulLo16,
    MulHiU16,
    MulHiS16,
    MulWideU16,
    MulWideS16,
    DivU16,
    DivS16,
    RemU16,
    RemS16,
    MinU16,
    MinS16,
    MaxU16,
    MaxS16,
    Shl16,
    ShrU16,
    ShrS16,
    Pack16,
    Pack8,
    AddF32,
    SubF32,
    MulF32,
    DivF32,
    MinF32,
    MaxF32,
    CopySign,
    BitMaskClamp,
    BitMaskWrap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tri32 {
    MadLo,
    MadHiU,
    MadHiS,
    MadLo16,
    MadWideU16,
    MadWideS16,
    SadU,
    SadS,
    FmaF32,
    Dp4a(bool, bool),
    Dp2aLow(bool, bool),
    Dp2aHigh(bool, bool),
    Permute(Permute),
    FunnelLeftWrap,
    FunnelLeftClamp,
    FunnelRightWrap,
    FunnelRightClamp,
    ExtractU,
    ExtractS,
    /// `bfi` takes a fourth operand: position in the low, length in the high half.
    Insert,
    PackSatS8,
    PackSatU8,
    PackSatS16,
    PackSatU16,
}

/// `prmt` modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permute {
    Index,
    Forward4,
    Backward4,
    Replicate8,
    EdgeLeft,
    EdgeRight,
    Replicate16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloatOp {
    Add,
    Sub,
    Mul,
    Fma,
    Div,
    Min,
    Max,
    Sqrt,
    Rcp,
    Abs,
    Neg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// To nearest, ties to even.
    Nearest,
    Zero,
    Down,
    Up,
    /// To nearest, ties away from zero.
    NearestAway,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FloatMode {
    pub round: Round,
    pub ftz: bool,
    pub sat: bool,
    /// `.NaN` of `min` and `max`.
    pub nan: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Approx {
    Exp2,
    Log2,
    Rsqrt,
    Rcp,
    Sqrt,
    Sin,
    Cos,
    Tanh,
    /// On packed or single halves: the operation in the lower half of the enum's column.
    Exp2Half(HalfFormat),
    TanhHalf(HalfFormat),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HalfFormat {
    F16,
    F16x2,
    Bf16,
    Bf16x2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HalfOp {
    Add,
    Sub,
    Mul,
    Fma,
    Min,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HalfMode {
    pub format: HalfFormat,
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
    pub nan: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Un64 {
    Mov,
    Not,
    Cnot,
    Neg,
    Abs,
    Brev,
    NegF64,
    AbsF64,
    SqrtF64,
    RcpF64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bin64 {
    Add,
    Sub,
    MulLo,
    MulHiU,
    MulHiS,
    DivU,
    DivS,
    RemU,
    RemS,
    MinU,
    MinS,
    MaxU,
    MaxS,
    And,
    Or,
    Xor,
    AddF64,
    SubF64,
    MulF64,
    DivF64,
    MinF64,
    MaxF64,
    CopySign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tri64 {
    MadLo,
    MadHiU,
    MadHiS,
    FmaF64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shift {
    Left,
    RightU,
    RightS,
}

/// 32-bit column to 64-bit column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Widen {
    Zero,
    Sign,
    Sign16,
    Sign8,
}

/// 64-bit column to 32-bit column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Narrow {
    Low,
    High,
    Low16,
    Low8,
    Popc,
    Clz,
    FindU,
    FindS,
}

/// A `cvt` in full generality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conversion {
    pub to: crate::ty::Ty,
    pub from: crate::ty::Ty,
    pub round: Round,
    /// `.rni`, `.rzi`, …: the result has an integral value.
    pub integral: bool,
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompareTy {
    U32,
    S32,
    S16,
    F16,
    Bf16,
    F32,
    F32Ftz,
    U64,
    S64,
    F64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BoolOp {
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloatTest {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}
