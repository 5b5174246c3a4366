//! PTX's scalar types and state spaces.

/// A fundamental PTX type, as it appears in a `.type` suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ty {
    /// Untyped bits of the given width.
    B8,
    /// See [`Ty::B8`].
    B16,
    /// See [`Ty::B8`].
    B32,
    /// See [`Ty::B8`].
    B64,
    /// See [`Ty::B8`].
    B128,
    /// Unsigned integers.
    U8,
    /// See [`Ty::U8`].
    U16,
    /// See [`Ty::U8`].
    U32,
    /// See [`Ty::U8`].
    U64,
    /// Signed integers.
    S8,
    /// See [`Ty::S8`].
    S16,
    /// See [`Ty::S8`].
    S32,
    /// See [`Ty::S8`].
    S64,
    /// IEEE half precision.
    F16,
    /// Two halves in 32 bits.
    F16x2,
    /// The upper half of a single.
    Bf16,
    /// Two `Bf16` in 32 bits.
    Bf16x2,
    /// A single with a ten-bit fraction.
    Tf32,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// A predicate.
    Pred,
}

impl Ty {
    /// Reads a type suffix without its dot (`"u32"`).
    pub fn parse(name: &str) -> Option<Ty> {
        Some(match name {
            "b8" => Ty::B8,
            "b16" => Ty::B16,
            "b32" => Ty::B32,
            "b64" => Ty::B64,
            "b128" => Ty::B128,
            "u8" => Ty::U8,
            "u16" => Ty::U16,
            "u32" => Ty::U32,
            "u64" => Ty::U64,
            "s8" => Ty::S8,
            "s16" => Ty::S16,
            "s32" => Ty::S32,
            "s64" => Ty::S64,
            "f16" => Ty::F16,
            "f16x2" => Ty::F16x2,
            "bf16" => Ty::Bf16,
            "bf16x2" => Ty::Bf16x2,
            "tf32" => Ty::Tf32,
            "f32" => Ty::F32,
            "f64" => Ty::F64,
            "pred" => Ty::Pred,
            _ => return None,
        })
    }

    /// Bytes in memory; a predicate, which has none, counts as one.
    pub fn bytes(self) -> u32 {
        match self {
            Ty::B8 | Ty::U8 | Ty::S8 | Ty::Pred => 1,
            Ty::B16 | Ty::U16 | Ty::S16 | Ty::F16 | Ty::Bf16 => 2,
            Ty::B32 | Ty::U32 | Ty::S32 | Ty::F32 | Ty::F16x2 | Ty::Bf16x2 | Ty::Tf32 => 4,
            Ty::B64 | Ty::U64 | Ty::S64 | Ty::F64 => 8,
            Ty::B128 => 16,
        }
    }

    /// Whether the type is a signed integer.
    pub fn is_signed(self) -> bool {
        matches!(self, Ty::S8 | Ty::S16 | Ty::S32 | Ty::S64)
    }

    /// Whether the type is an integer with a sign rule (`.u*` or `.s*`).
    pub fn is_integer(self) -> bool {
        self.is_signed() || matches!(self, Ty::U8 | Ty::U16 | Ty::U32 | Ty::U64)
    }

    /// Whether the type is one of the floating-point types, packed ones included.
    pub fn is_float(self) -> bool {
        matches!(
            self,
            Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 | Ty::Tf32 | Ty::F32 | Ty::F64
        )
    }
}

/// A PTX state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Resolved at run time by the address window.
    Generic,
    /// Device memory.
    Global,
    /// The block's memory.
    Shared,
    /// The thread's memory.
    Local,
    /// Kernel parameters, and the arguments of calls.
    Param,
    /// Constant banks.
    Const,
}

impl std::fmt::Display for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Space::Generic => "generic",
            Space::Global => "global",
            Space::Shared => "shared",
            Space::Local => "local",
            Space::Param => "param",
            Space::Const => "const",
        })
    }
}
