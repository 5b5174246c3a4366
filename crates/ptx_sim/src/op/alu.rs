//! Operations on registers alone.

use super::float::*;
use super::{Column, D, P, R};
use crate::ty::Space;

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
    /// Sums and differences with `CC.CF`, of which there is one for all: the carry out of the adder.
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
    Mul24HiU,
    Mul24HiS,
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
    SadU16,
    SadS16,
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
    SadU,
    SadS,
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
