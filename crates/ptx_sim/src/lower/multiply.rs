//! Products of integers, and what is added to them.

use crate::error::Result;
use crate::lower::builder::Builder;
use crate::lower::carry::Chain;
use crate::lower::modifiers::Modifiers;
use crate::module::{Instruction, Operand};
use crate::op::{Alu, Bin32, Bin64, FloatOp, Tri32, Tri64};
use crate::ty::Ty;

/// What a product is added to.
struct Sum<'i> {
    d: &'i Operand,
    c: &'i Operand,
}

impl Builder<'_> {
    /// `mul`, `mad` and `madc`.
    pub(super) fn multiply(
        &mut self,
        at: &Instruction,
        name: &str,
        m: &mut Modifiers,
    ) -> Result<()> {
        let ty = m.ty()?;
        let adds = name != "mul";
        if ty.is_float() && name != "madc" {
            return self.float(at, m, if adds { FloatOp::Fma } else { FloatOp::Mul }, ty);
        }
        if !ty.is_integer() {
            return Err(m.unknown());
        }
        let carry_in = name == "madc";
        let carry_out = adds && m.take("cc");
        if !carry_in && !carry_out && m.take("wide") {
            return self.multiply_wide(at, m, adds, ty);
        }
        let high = m.take("hi");
        if !high && !m.take("lo") {
            return Err(m.unknown());
        }
        if carry_in || carry_out {
            let chain = Chain {
                subtract: false,
                carry_in,
                carry_out,
            };
            let [d, a, b, c] = self.operands(at)?;
            let product = self.product(at, m, high, ty, [a, b])?;
            let c = self.src(at, c, ty)?;
            return self.add_with_carry(at, m, chain, ty, d, [product, c]);
        }
        if adds && high && ty == Ty::S32 && m.take("sat") {
            let [d, a, b, c] = self.operands(at)?;
            let product = self.product(at, m, high, ty, [a, b])?;
            return self.add_saturated(at, product, Sum { d, c });
        }
        if adds {
            return self.multiply_add(at, m, high, ty);
        }
        self.integer(at, m, product_ops(high, ty), ty)
    }

    /// `mul24` and `mad24`: of the operands only the low 24 bits count.
    pub(super) fn multiply24(
        &mut self,
        at: &Instruction,
        name: &str,
        m: &mut Modifiers,
    ) -> Result<()> {
        let ty = m.ty()?;
        let high = m.take("hi");
        if !high && !m.take("lo") || ty.bytes() != 4 || !ty.is_integer() {
            return Err(m.unknown());
        }
        let op = match (high, ty.is_signed()) {
            (false, false) => Bin32::Mul24U,
            (false, true) => Bin32::Mul24S,
            (true, false) => Bin32::Mul24HiU,
            (true, true) => Bin32::Mul24HiS,
        };
        if name == "mul24" {
            return self.bin32(at, op, ty, ty);
        }
        let [d, a, b, c] = self.operands(at)?;
        let (a, b) = (self.src(at, a, ty)?, self.src(at, b, ty)?);
        let product = self.new32();
        self.alu(Alu::Bin32(op, product, a, b));
        if high && ty == Ty::S32 && m.take("sat") {
            return self.add_saturated(at, product, Sum { d, c });
        }
        let c = self.src(at, c, ty)?;
        let d = self.dst(at, d, ty)?;
        self.alu(Alu::Bin32(Bin32::Add, d, product, c));
        Ok(())
    }

    /// Half of a product of 32 or 64 bits, in a column of its own.
    fn product(
        &mut self,
        at: &Instruction,
        m: &Modifiers,
        high: bool,
        ty: Ty,
        [a, b]: [&Operand; 2],
    ) -> Result<u32> {
        let (_, word, long) = product_ops(high, ty);
        let (a, b) = (self.src(at, a, ty)?, self.src(at, b, ty)?);
        match ty.bytes() {
            4 => {
                let product = self.new32();
                self.alu(Alu::Bin32(word, product, a, b));
                Ok(product)
            }
            8 => {
                let product = self.new64();
                self.alu(Alu::Bin64(long, product, a, b));
                Ok(product)
            }
            _ => Err(m.unknown()),
        }
    }

    fn add_saturated(&mut self, at: &Instruction, product: u32, sum: Sum<'_>) -> Result<()> {
        let c = self.src(at, sum.c, Ty::S32)?;
        let d = self.dst(at, sum.d, Ty::S32)?;
        self.alu(Alu::Bin32(Bin32::AddSatS, d, product, c));
        Ok(())
    }

    fn multiply_add(&mut self, at: &Instruction, m: &Modifiers, high: bool, ty: Ty) -> Result<()> {
        let (word, long) = match (high, ty.is_signed()) {
            (false, _) => (Tri32::MadLo, Tri64::MadLo),
            (true, false) => (Tri32::MadHiU, Tri64::MadHiU),
            (true, true) => (Tri32::MadHiS, Tri64::MadHiS),
        };
        match ty.bytes() {
            2 if !high => self.tri32(at, Tri32::MadLo16, ty, ty),
            4 => self.tri32(at, word, ty, ty),
            8 => self.tri64(at, long, ty),
            _ => Err(m.unknown()),
        }
    }

    fn multiply_wide(&mut self, at: &Instruction, m: &Modifiers, adds: bool, ty: Ty) -> Result<()> {
        let signed = ty.is_signed();
        match (ty.bytes(), adds) {
            (2, false) => {
                let op = if signed {
                    Bin32::MulWideS16
                } else {
                    Bin32::MulWideU16
                };
                self.bin32(at, op, Ty::B32, ty)
            }
            (2, true) => {
                let op = if signed {
                    Tri32::MadWideS16
                } else {
                    Tri32::MadWideU16
                };
                self.tri32(at, op, ty, Ty::B32)
            }
            (4, false) => {
                let [d, a, b] = self.operands(at)?;
                let (a, b) = (self.src(at, a, ty)?, self.src(at, b, ty)?);
                let d = self.dst(at, d, Ty::B64)?;
                self.alu(Alu::MulWide { signed, d, a, b });
                Ok(())
            }
            (4, true) => {
                let [d, a, b, c] = self.operands(at)?;
                let (a, b) = (self.src(at, a, ty)?, self.src(at, b, ty)?);
                let c = self.src(at, c, Ty::B64)?;
                let d = self.dst(at, d, Ty::B64)?;
                self.alu(Alu::MadWide { signed, d, a, b, c });
                Ok(())
            }
            _ => Err(m.unknown()),
        }
    }
}

/// The instructions of 16, 32 and 64 bits that give a half of a product.
fn product_ops(high: bool, ty: Ty) -> (Bin32, Bin32, Bin64) {
    match (high, ty.is_signed()) {
        (false, _) => (Bin32::MulLo16, Bin32::MulLo, Bin64::MulLo),
        (true, false) => (Bin32::MulHiU16, Bin32::MulHiU, Bin64::MulHiU),
        (true, true) => (Bin32::MulHiS16, Bin32::MulHiS, Bin64::MulHiS),
    }
}
