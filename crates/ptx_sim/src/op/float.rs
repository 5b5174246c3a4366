//! Floating-point operations and conversions.

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
pub(crate) enum FloatTest {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}
