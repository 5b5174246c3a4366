//! Arithmetic, logic, comparison and selection.

use crate::error::Result;
use crate::lower::builder::Builder;
use crate::lower::carry::Chain;
use crate::lower::modifiers::Modifiers;
use crate::lower::operand_error;
use crate::module::{Instruction, Operand};
use crate::op::{Alu, Bin32, Bin64, FloatOp, FloatTest, Tri32, Tri64, Un32, Un64};
use crate::ty::Ty;

/// Integer operations by width and sign: 16 bits, 32 bits, 64 bits.
type IntegerOps = (Bin32, Bin32, Bin64);

impl Builder<'_> {
    pub fn lower_alu(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<bool> {
        match name {
            "add" | "sub" | "addc" | "subc" => self.add(at, name, m)?,
            "mul" | "mad" | "madc" => self.multiply(at, name, m)?,
            "fma" => {
                let ty = m.ty()?;
                self.float(at, m, FloatOp::Fma, ty)?;
            }
            "div" | "rem" | "min" | "max" => self.divide_or_order(at, name, m)?,
            "and" | "or" | "xor" | "not" | "cnot" => self.logic(at, name, m)?,
            "shl" | "shr" => self.shift(at, name, m)?,
            "neg" | "abs" | "popc" | "clz" | "brev" | "bfind" => self.unary(at, name, m)?,
            "sqrt" | "rcp" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => {
                self.transcendental(at, name, m)?;
            }
            "setp" | "set" => self.compare(at, name, m)?,
            "selp" | "slct" => self.select(at, name, m)?,
            "lop3" => {
                m.ty()?;
                let [d, a, b, c, Operand::Int(lut @ 0..=255)] = &at.operands[..] else {
                    return Err(operand_error(at, "expected three sources and a table"));
                };
                let [a, b, c] = [a, b, c].map(|source| self.src(at, source, Ty::B32));
                let d = self.dst(at, d, Ty::B32)?;
                self.alu(Alu::Lop3 {
                    lut: lut.to_le_bytes()[0],
                    d,
                    a: a?,
                    b: b?,
                    c: c?,
                });
            }
            "mul24" | "mad24" => self.multiply24(at, name, m)?,
            "sad" => self.sum_of_difference(at, m)?,
            "prmt" | "shf" | "bfe" | "bfi" | "dp4a" | "dp2a" | "bmsk" => self.bits(at, name, m)?,
            "copysign" => match m.ty()? {
                Ty::F32 => self.bin32(at, Bin32::CopySign, Ty::F32, Ty::F32)?,
                _ => self.bin64(at, Bin64::CopySign, Ty::F64)?,
            },
            "testp" => {
                let test = m.one_of(&[
                    ("finite", FloatTest::Finite),
                    ("infinite", FloatTest::Infinite),
                    ("number", FloatTest::Number),
                    ("notanumber", FloatTest::NotANumber),
                    ("normal", FloatTest::Normal),
                    ("subnormal", FloatTest::Subnormal),
                ])?;
                let [p, a] = self.operands(at)?;
                if m.ty()? != Ty::F32 {
                    return Err(m.unknown());
                }
                let a = self.src(at, a, Ty::F32)?;
                let p = self.dst_pred(at, p)?;
                self.alu(Alu::TestFloat { test, p, a });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub fn operands<'i, const N: usize>(&self, at: &'i Instruction) -> Result<[&'i Operand; N]> {
        let found = at.operands.iter().collect::<Vec<_>>();
        found
            .try_into()
            .map_err(|_| operand_error(at, &format!("expected {N} operands")))
    }

    pub(super) fn un32(&mut self, at: &Instruction, op: Un32, to: Ty, from: Ty) -> Result<()> {
        let [d, a] = self.operands(at)?;
        let a = self.src(at, a, from)?;
        let d = self.dst(at, d, to)?;
        self.alu(Alu::Un32(op, d, a));
        Ok(())
    }

    pub(super) fn un64(&mut self, at: &Instruction, op: Un64) -> Result<()> {
        let [d, a] = self.operands(at)?;
        let a = self.src(at, a, Ty::B64)?;
        let d = self.dst(at, d, Ty::B64)?;
        self.alu(Alu::Un64(op, d, a));
        Ok(())
    }

    pub(super) fn bin32(&mut self, at: &Instruction, op: Bin32, to: Ty, from: Ty) -> Result<()> {
        let [d, a, b] = self.operands(at)?;
        let (a, b) = (self.src(at, a, from)?, self.src(at, b, from)?);
        let d = self.dst(at, d, to)?;
        self.alu(Alu::Bin32(op, d, a, b));
        Ok(())
    }

    pub(super) fn bin64(&mut self, at: &Instruction, op: Bin64, ty: Ty) -> Result<()> {
        let [d, a, b] = self.operands(at)?;
        let (a, b) = (self.src(at, a, ty)?, self.src(at, b, ty)?);
        let d = self.dst(at, d, ty)?;
        self.alu(Alu::Bin64(op, d, a, b));
        Ok(())
    }

    pub(super) fn tri32(
        &mut self,
        at: &Instruction,
        op: Tri32,
        ty: Ty,
        accumulator: Ty,
    ) -> Result<()> {
        let [d, a, b, c] = self.operands(at)?;
        let (a, b) = (self.src(at, a, ty)?, self.src(at, b, ty)?);
        let c = self.src(at, c, accumulator)?;
        let d = self.dst(at, d, accumulator)?;
        self.alu(Alu::Tri32(op, d, a, b, c));
        Ok(())
    }

    pub(super) fn tri64(&mut self, at: &Instruction, op: Tri64, ty: Ty) -> Result<()> {
        let [d, a, b, c] = self.operands(at)?;
        let [a, b, c] = [a, b, c].map(|source| self.src(at, source, ty));
        let d = self.dst(at, d, ty)?;
        self.alu(Alu::Tri64(op, d, a?, b?, c?));
        Ok(())
    }

    pub(super) fn integer(
        &mut self,
        at: &Instruction,
        m: &Modifiers,
        ops: IntegerOps,
        ty: Ty,
    ) -> Result<()> {
        match ty.bytes() {
            2 => self.bin32(at, ops.0, ty, ty),
            4 => self.bin32(at, ops.1, ty, ty),
            8 => self.bin64(at, ops.2, ty),
            _ => Err(m.unknown()),
        }
    }

    fn add(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let subtract = name.starts_with("sub");
        let ty = m.ty()?;
        if ty.is_float() {
            return self.float(
                at,
                m,
                if subtract { FloatOp::Sub } else { FloatOp::Add },
                ty,
            );
        }
        let carry_in = name.ends_with('c');
        let carry_out = m.take("cc");
        if carry_in || carry_out {
            let [d, a, b] = self.operands(at)?;
            let chain = Chain {
                subtract,
                carry_in,
                carry_out,
            };
            let (a, b) = (self.src(at, a, ty)?, self.src(at, b, ty)?);
            return self.add_with_carry(at, m, chain, ty, d, [a, b]);
        }
        if m.take("sat") {
            if ty != Ty::S32 {
                return Err(m.unknown());
            }
            return self.bin32(
                at,
                if subtract {
                    Bin32::SubSatS
                } else {
                    Bin32::AddSatS
                },
                ty,
                ty,
            );
        }
        if !ty.is_integer() {
            return Err(m.unknown());
        }
        if subtract {
            self.integer(at, m, (Bin32::Sub16, Bin32::Sub, Bin64::Sub), ty)
        } else {
            self.integer(at, m, (Bin32::Add16, Bin32::Add, Bin64::Add), ty)
        }
    }

    /// `sad`: the distance of two numbers, added to a third.
    fn sum_of_difference(&mut self, at: &Instruction, m: &mut Modifiers) -> Result<()> {
        let ty = m.ty()?;
        if !ty.is_integer() {
            return Err(m.unknown());
        }
        let (narrow, word, long) = if ty.is_signed() {
            (Tri32::SadS16, Tri32::SadS, Tri64::SadS)
        } else {
            (Tri32::SadU16, Tri32::SadU, Tri64::SadU)
        };
        match ty.bytes() {
            2 => self.tri32(at, narrow, ty, ty),
            4 => self.tri32(at, word, ty, ty),
            8 => self.tri64(at, long, ty),
            _ => Err(m.unknown()),
        }
    }

    fn divide_or_order(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let ty = m.ty()?;
        if ty.is_float() {
            let op = match name {
                "div" => FloatOp::Div,
                "min" => FloatOp::Min,
                "max" => FloatOp::Max,
                _ => return Err(m.unknown()),
            };
            return self.float(at, m, op, ty);
        }
        if !ty.is_integer() {
            return Err(m.unknown());
        }
        let ops = match (name, ty.is_signed()) {
            ("div", false) => (Bin32::DivU16, Bin32::DivU, Bin64::DivU),
            ("div", true) => (Bin32::DivS16, Bin32::DivS, Bin64::DivS),
            ("rem", false) => (Bin32::RemU16, Bin32::RemU, Bin64::RemU),
            ("rem", true) => (Bin32::RemS16, Bin32::RemS, Bin64::RemS),
            ("min", false) => (Bin32::MinU16, Bin32::MinU, Bin64::MinU),
            ("min", true) => (Bin32::MinS16, Bin32::MinS, Bin64::MinS),
            (_, false) => (Bin32::MaxU16, Bin32::MaxU, Bin64::MaxU),
            (_, true) => (Bin32::MaxS16, Bin32::MaxS, Bin64::MaxS),
        };
        self.integer(at, m, ops, ty)
    }
}
