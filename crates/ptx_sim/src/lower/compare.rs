//! Comparison, selection and logic.

use crate::error::Result;
use crate::lower::builder::Builder;
use crate::lower::modifiers::Modifiers;
use crate::lower::operand_error;
use crate::module::{Instruction, Operand};
use crate::op::{Alu, Bin32, Bin64, BoolOp, Cmp, Combine, CompareTy, Un32, Un64};
use crate::ty::Ty;

impl Builder<'_> {
    pub(super) fn compare(
        &mut self,
        at: &Instruction,
        name: &str,
        m: &mut Modifiers,
    ) -> Result<()> {
        let Some((cmp, unsigned)) = m.take_one_of(&COMPARISONS) else {
            return Err(m.unknown());
        };
        let op = m.take_one_of(&[
            ("and", BoolOp::And),
            ("or", BoolOp::Or),
            ("xor", BoolOp::Xor),
        ]);
        let first = m.ty()?;
        let ftz = m.take("ftz");
        let is_set = name == "set";
        let result = first;
        let ty = if is_set { m.ty()? } else { first };
        let compare_ty = match ty {
            Ty::F32 if ftz => CompareTy::F32Ftz,
            Ty::F32 => CompareTy::F32,
            Ty::F64 => CompareTy::F64,
            Ty::F16 => CompareTy::F16,
            Ty::Bf16 => CompareTy::Bf16,
            Ty::S16 => CompareTy::S16,
            Ty::S32 => CompareTy::S32,
            Ty::S64 if !unsigned => CompareTy::S64,
            Ty::B16 | Ty::U16 | Ty::B32 | Ty::U32 => CompareTy::U32,
            Ty::B64 | Ty::U64 | Ty::S64 => CompareTy::U64,
            _ => return Err(m.unknown()),
        };
        let (d, a, b, c) = match &at.operands[..] {
            [d, a, b] if op.is_none() => (d, a, b, None),
            [d, a, b, c] if op.is_some() => (d, a, b, Some(c)),
            _ => return Err(operand_error(at, "wrong number of operands")),
        };
        let (a, b) = (self.src(at, a, ty)?, self.src(at, b, ty)?);
        let combine = match (op, c) {
            (Some(op), Some(c)) => {
                let (c, negated) = self.src_pred(at, c)?;
                Some(Combine { op, c, negated })
            }
            _ => None,
        };
        if is_set {
            let p = self.new_predicate();
            let q = self.new_predicate();
            self.alu(Alu::Compare {
                ty: compare_ty,
                cmp,
                p,
                q,
                a,
                b,
                combine,
            });
            if result.bytes() != 4 {
                return Err(m.unknown());
            }
            let yes = self.word(if result == Ty::F32 {
                1f32.to_bits()
            } else {
                u32::MAX
            });
            let no = self.word(0);
            let d = self.dst(at, d, result)?;
            self.alu(Alu::Select32 {
                d,
                a: yes,
                b: no,
                p,
            });
            return Ok(());
        }
        let (p, q) = match d {
            Operand::Pair(p, q) => (self.dst_pred(at, p)?, self.dst_pred(at, q)?),
            _ => (self.dst_pred(at, d)?, crate::op::NONE),
        };
        self.alu(Alu::Compare {
            ty: compare_ty,
            cmp,
            p,
            q,
            a,
            b,
            combine,
        });
        Ok(())
    }

    pub(super) fn select(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let ty = m.ty()?;
        let [d, a, b, c] = self.operands(at)?;
        let (a, b) = (self.src(at, a, ty)?, self.src(at, b, ty)?);
        let p = if name == "selp" {
            self.plain_pred(at, c)?
        } else {
            m.take("ftz");
            let compare_ty = match m.ty()? {
                Ty::S32 => CompareTy::S32,
                Ty::F32 => CompareTy::F32,
                _ => return Err(m.unknown()),
            };
            let c = self.src(at, c, Ty::B32)?;
            let zero = self.word(0);
            let p = self.new_predicate();
            self.alu(Alu::Compare {
                ty: compare_ty,
                cmp: Cmp::Ge,
                p,
                q: crate::op::NONE,
                a: c,
                b: zero,
                combine: None,
            });
            p
        };
        let d = self.dst(at, d, ty)?;
        self.alu(if ty.bytes() == 8 {
            Alu::Select64 { d, a, b, p }
        } else {
            Alu::Select32 { d, a, b, p }
        });
        Ok(())
    }

    pub(super) fn logic(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let ty = m.ty()?;
        if ty == Ty::Pred {
            return self.logic_pred(at, name, m);
        }
        let ops = match name {
            "and" => (Bin32::And, Bin32::And, Bin64::And),
            "or" => (Bin32::Or, Bin32::Or, Bin64::Or),
            "xor" => (Bin32::Xor, Bin32::Xor, Bin64::Xor),
            "not" => {
                return match ty.bytes() {
                    2 => self.un32(at, Un32::Not16, ty, ty),
                    4 => self.un32(at, Un32::Not, ty, ty),
                    8 => self.un64(at, Un64::Not),
                    _ => Err(m.unknown()),
                };
            }
            _ => {
                return match ty.bytes() {
                    2 | 4 => self.un32(at, Un32::Cnot, ty, ty),
                    8 => self.un64(at, Un64::Cnot),
                    _ => Err(m.unknown()),
                };
            }
        };
        self.integer(at, m, ops, ty)
    }

    pub(super) fn logic_pred(&mut self, at: &Instruction, name: &str, m: &Modifiers) -> Result<()> {
        let op = match name {
            "and" => BoolOp::And,
            "or" => BoolOp::Or,
            "xor" => BoolOp::Xor,
            "not" => {
                let [d, a] = self.operands(at)?;
                let (a, negated) = self.src_pred(at, a)?;
                let d = self.dst_pred(at, d)?;
                self.alu(if negated {
                    Alu::Pred(BoolOp::Or, d, a, a)
                } else {
                    Alu::NotPred { d, a }
                });
                return Ok(());
            }
            _ => return Err(m.unknown()),
        };
        let [d, a, b] = self.operands(at)?;
        let (a, b) = (self.plain_pred(at, a)?, self.plain_pred(at, b)?);
        let d = self.dst_pred(at, d)?;
        self.alu(Alu::Pred(op, d, a, b));
        Ok(())
    }

    /// A predicate source with its negation applied.
    pub(super) fn plain_pred(&mut self, at: &Instruction, operand: &Operand) -> Result<u32> {
        let (a, negated) = self.src_pred(at, operand)?;
        if !negated {
            return Ok(a);
        }
        let d = self.new_predicate();
        self.alu(Alu::NotPred { d, a });
        Ok(d)
    }
}

/// Comparisons, and whether they are the unsigned forms `lo`, `ls`, `hi`, `hs`.
const COMPARISONS: [(&str, (Cmp, bool)); 18] = [
    ("eq", (Cmp::Eq, false)),
    ("ne", (Cmp::Ne, false)),
    ("lt", (Cmp::Lt, false)),
    ("le", (Cmp::Le, false)),
    ("gt", (Cmp::Gt, false)),
    ("ge", (Cmp::Ge, false)),
    ("lo", (Cmp::Lt, true)),
    ("ls", (Cmp::Le, true)),
    ("hi", (Cmp::Gt, true)),
    ("hs", (Cmp::Ge, true)),
    ("equ", (Cmp::Equ, false)),
    ("neu", (Cmp::Neu, false)),
    ("ltu", (Cmp::Ltu, false)),
    ("leu", (Cmp::Leu, false)),
    ("gtu", (Cmp::Gtu, false)),
    ("geu", (Cmp::Geu, false)),
    ("num", (Cmp::Num, false)),
    ("nan", (Cmp::Nan, false)),
];
