//! Floating-point arithmetic and functions.

use crate::error::Result;
use crate::lower::builder::Builder;
use crate::lower::modifiers::Modifiers;
use crate::lower::operand_error;
use crate::module::Instruction;
use crate::op::{
    Alu, Approx, Bin32, Bin64, FloatMode, FloatOp, HalfFormat, HalfMode, HalfOp, Round, Tri32,
    Tri64, Un32, Un64,
};
use crate::ty::Ty;

impl Builder<'_> {
    /// Floating-point arithmetic of any format.
    pub(super) fn float(
        &mut self,
        at: &Instruction,
        m: &mut Modifiers,
        op: FloatOp,
        ty: Ty,
    ) -> Result<()> {
        let round = m.take_round();
        let ftz = m.take("ftz");
        let sat = m.take("sat");
        let nan = m.take("NaN");
        if matches!(op, FloatOp::Div) {
            // Both approximations stay within their documented 2 ulp when the quotient is exact.
            m.discard(|part| part == "full" || part == "approx");
        }
        let mode = FloatMode {
            round: round.unwrap_or(Round::Nearest),
            ftz,
            sat,
            nan,
        };
        match ty {
            Ty::F32 => self.float32(at, op, mode),
            Ty::F64
                if mode
                    == FloatMode {
                        round: Round::Nearest,
                        ftz: false,
                        sat: false,
                        nan,
                    } =>
            {
                if nan {
                    return Err(m.unknown());
                }
                let op = match op {
                    FloatOp::Add => Bin64::AddF64,
                    FloatOp::Sub => Bin64::SubF64,
                    FloatOp::Mul => Bin64::MulF64,
                    FloatOp::Div => Bin64::DivF64,
                    FloatOp::Min => Bin64::MinF64,
                    FloatOp::Max => Bin64::MaxF64,
                    FloatOp::Fma => {
                        let [d, a, b, c] = self.operands(at)?;
                        let [a, b, c] = [a, b, c].map(|source| self.src(at, source, ty));
                        let d = self.dst(at, d, ty)?;
                        self.alu(Alu::Tri64(Tri64::FmaF64, d, a?, b?, c?));
                        return Ok(());
                    }
                    _ => return Err(m.unknown()),
                };
                self.bin64(at, op, ty)
            }
            Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 if mode.round == Round::Nearest => {
                self.half(at, m, op, mode, ty)
            }
            _ => Err(m.unknown()),
        }
    }

    pub(super) fn float32(&mut self, at: &Instruction, op: FloatOp, mode: FloatMode) -> Result<()> {
        let plain = FloatMode {
            round: Round::Nearest,
            ftz: false,
            sat: false,
            nan: false,
        };
        let fast = match op {
            FloatOp::Add => Some(Bin32::AddF32),
            FloatOp::Sub => Some(Bin32::SubF32),
            FloatOp::Mul => Some(Bin32::MulF32),
            FloatOp::Div => Some(Bin32::DivF32),
            FloatOp::Min => Some(Bin32::MinF32),
            FloatOp::Max => Some(Bin32::MaxF32),
            _ => None,
        };
        if mode == plain {
            if let Some(op) = fast {
                return self.bin32(at, op, Ty::F32, Ty::F32);
            }
            if op == FloatOp::Fma {
                return self.tri32(at, Tri32::FmaF32, Ty::F32, Ty::F32);
            }
        }
        self.float_sources(at, op, Ty::F32, |d, sources| {
            Alu::Float(op, mode, d, sources)
        })
    }

    /// Emits an operation on one, two or three sources; missing ones repeat the last.
    pub(super) fn float_sources(
        &mut self,
        at: &Instruction,
        op: FloatOp,
        ty: Ty,
        make: impl Fn(u32, [u32; 3]) -> Alu,
    ) -> Result<()> {
        let count = match op {
            FloatOp::Fma => 3,
            FloatOp::Sqrt | FloatOp::Rcp | FloatOp::Abs | FloatOp::Neg => 1,
            _ => 2,
        };
        let [d, sources @ ..] = &at.operands[..] else {
            return Err(operand_error(at, "expected a destination"));
        };
        // `min` and `max` have a three-input form on newer devices, which is not known here.
        if sources.len() != count {
            return Err(operand_error(at, &format!("expected {count} sources")));
        }
        let mut columns = [0; 3];
        for (column, source) in columns.iter_mut().zip(sources) {
            *column = self.src(at, source, ty)?;
        }
        for missing in count..3 {
            columns[missing] = columns[count - 1];
        }
        let d = self.dst(at, d, ty)?;
        self.alu(make(d, columns));
        Ok(())
    }

    pub(super) fn half(
        &mut self,
        at: &Instruction,
        m: &mut Modifiers,
        op: FloatOp,
        mode: FloatMode,
        ty: Ty,
    ) -> Result<()> {
        let half_op = match op {
            FloatOp::Add => HalfOp::Add,
            FloatOp::Sub => HalfOp::Sub,
            FloatOp::Mul => HalfOp::Mul,
            FloatOp::Fma => HalfOp::Fma,
            FloatOp::Min => HalfOp::Min,
            FloatOp::Max => HalfOp::Max,
            _ => return Err(m.unknown()),
        };
        let mode = HalfMode {
            format: half_format(ty).ok_or_else(|| m.unknown())?,
            ftz: mode.ftz,
            sat: mode.sat,
            relu: m.take("relu"),
            nan: mode.nan,
        };
        self.float_sources(at, op, ty, |d, sources| {
            Alu::Half(half_op, mode, d, sources)
        })
    }

    pub(super) fn transcendental(
        &mut self,
        at: &Instruction,
        name: &str,
        m: &mut Modifiers,
    ) -> Result<()> {
        let ty = m.ty()?;
        let approx = m.take("approx");
        let ftz = m.take("ftz");
        if let Some(format) = half_format(ty) {
            let op = match name {
                "ex2" => Approx::Exp2Half(format),
                "tanh" => Approx::TanhHalf(format),
                _ => return Err(m.unknown()),
            };
            let [d, a] = self.operands(at)?;
            let (a, d) = (self.src(at, a, ty)?, self.dst(at, d, ty)?);
            self.alu(Alu::Approx(op, ftz, d, a));
            return Ok(());
        }
        if !approx {
            let round = m.take_round().ok_or_else(|| m.unknown())?;
            let (plain, op, wide) = match name {
                "sqrt" => (Un32::SqrtF32, FloatOp::Sqrt, Un64::SqrtF64),
                "rcp" => (Un32::RcpF32, FloatOp::Rcp, Un64::RcpF64),
                _ => return Err(m.unknown()),
            };
            return match ty {
                Ty::F64 if round == Round::Nearest && !ftz => self.un64(at, wide),
                Ty::F32 if round == Round::Nearest && !ftz => self.un32(at, plain, ty, ty),
                Ty::F32 => self.float32(
                    at,
                    op,
                    FloatMode {
                        round,
                        ftz,
                        sat: false,
                        nan: false,
                    },
                ),
                _ => Err(m.unknown()),
            };
        }
        if ty != Ty::F32 {
            return Err(m.unknown());
        }
        let op = match name {
            "ex2" => Approx::Exp2,
            "lg2" => Approx::Log2,
            "rsqrt" => Approx::Rsqrt,
            "rcp" => Approx::Rcp,
            "sqrt" => Approx::Sqrt,
            "sin" => Approx::Sin,
            "cos" => Approx::Cos,
            _ => Approx::Tanh,
        };
        let [d, a] = self.operands(at)?;
        let (a, d) = (self.src(at, a, ty)?, self.dst(at, d, ty)?);
        self.alu(Alu::Approx(op, ftz, d, a));
        Ok(())
    }
}

pub(super) fn half_format(ty: Ty) -> Option<HalfFormat> {
    Some(match ty {
        Ty::F16 => HalfFormat::F16,
        Ty::F16x2 => HalfFormat::F16x2,
        Ty::Bf16 => HalfFormat::Bf16,
        Ty::Bf16x2 => HalfFormat::Bf16x2,
        _ => return None,
    })
}
