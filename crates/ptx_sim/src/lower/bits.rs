//! Shifts, counts, bit fields, permutations and packed dot products.

use crate::error::Result;
use crate::lower::builder::Builder;
use crate::lower::modifiers::Modifiers;
use crate::lower::operand_error;
use crate::module::Instruction;
use crate::op::{Alu, Bin32, FloatMode, FloatOp, Narrow, Permute, Round, Shift, Tri32, Un32, Un64};
use crate::ty::Ty;

impl Builder<'_> {
    pub(super) fn shift(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let ty = m.ty()?;
        let (narrow, word, wide) = match (name, ty.is_signed()) {
            ("shl", _) => (Bin32::Shl16, Bin32::Shl, Shift::Left),
            (_, false) => (Bin32::ShrU16, Bin32::ShrU, Shift::RightU),
            (_, true) => (Bin32::ShrS16, Bin32::ShrS, Shift::RightS),
        };
        let [d, a, b] = self.operands(at)?;
        let a = self.src(at, a, ty)?;
        let b = self.src(at, b, Ty::U32)?;
        let d = self.dst(at, d, ty)?;
        self.alu(match ty.bytes() {
            2 => Alu::Bin32(narrow, d, a, b),
            4 => Alu::Bin32(word, d, a, b),
            8 => Alu::Shift64(wide, d, a, b),
            _ => return Err(m.unknown()),
        });
        Ok(())
    }

    pub(super) fn unary(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let ty = m.ty()?;
        let wide = ty.bytes() == 8;
        let counts = match name {
            "popc" => Some((Un32::Popc, Narrow::Popc)),
            "clz" => Some((Un32::Clz, Narrow::Clz)),
            "bfind" if m.take("shiftamt") => Some(match (ty.is_signed(), wide) {
                (_, true) => return Err(m.unknown()),
                (true, _) => (Un32::ShiftFindS, Narrow::FindS),
                (false, _) => (Un32::ShiftFindU, Narrow::FindU),
            }),
            "bfind" if ty.is_signed() => Some((Un32::FindS, Narrow::FindS)),
            "bfind" => Some((Un32::FindU, Narrow::FindU)),
            _ => None,
        };
        if let Some((narrow_op, wide_op)) = counts {
            let [d, a] = self.operands(at)?;
            let a = self.src(at, a, ty)?;
            let d = self.dst(at, d, Ty::U32)?;
            self.alu(match ty.bytes() {
                4 => Alu::Un32(narrow_op, d, a),
                8 => Alu::Narrow(wide_op, d, a),
                _ => return Err(m.unknown()),
            });
            return Ok(());
        }
        let ftz = m.take("ftz");
        let op = match (name, ty) {
            ("neg" | "abs", Ty::F32) if ftz => {
                let op = if name == "neg" {
                    FloatOp::Neg
                } else {
                    FloatOp::Abs
                };
                return self.float32(
                    at,
                    op,
                    FloatMode {
                        round: Round::Nearest,
                        ftz,
                        sat: false,
                        nan: false,
                    },
                );
            }
            _ if ftz => return Err(m.unknown()),
            ("neg", Ty::S16) => Un32::Neg16,
            ("neg", Ty::S32) => Un32::Neg,
            ("neg", Ty::S64) => return self.un64(at, Un64::Neg),
            ("neg", Ty::F32) => Un32::NegF32,
            ("neg", Ty::F64) => return self.un64(at, Un64::NegF64),
            ("neg", Ty::F16 | Ty::Bf16) => Un32::NegHalf,
            ("neg", Ty::F16x2 | Ty::Bf16x2) => Un32::NegHalf2,
            ("abs", Ty::S16) => Un32::Abs16,
            ("abs", Ty::S32) => Un32::Abs,
            ("abs", Ty::S64) => return self.un64(at, Un64::Abs),
            ("abs", Ty::F32) => Un32::AbsF32,
            ("abs", Ty::F64) => return self.un64(at, Un64::AbsF64),
            ("abs", Ty::F16 | Ty::Bf16) => Un32::AbsHalf,
            ("abs", Ty::F16x2 | Ty::Bf16x2) => Un32::AbsHalf2,
            ("brev", Ty::B32) => Un32::Brev,
            ("brev", Ty::B64) => return self.un64(at, Un64::Brev),
            _ => return Err(m.unknown()),
        };
        self.un32(at, op, ty, ty)
    }

    /// Bit fields, byte permutation, funnel shifts, packed dot products.
    pub(super) fn bits(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let op = match name {
            "prmt" => Tri32::Permute(
                m.take_one_of(&[
                    ("f4e", Permute::Forward4),
                    ("b4e", Permute::Backward4),
                    ("rc8", Permute::Replicate8),
                    ("ecl", Permute::EdgeLeft),
                    ("ecr", Permute::EdgeRight),
                    ("rc16", Permute::Replicate16),
                ])
                .unwrap_or(Permute::Index),
            ),
            "shf" => {
                let left = m.take("l");
                if !left && !m.take("r") {
                    return Err(m.unknown());
                }
                let wrap = m.take("wrap");
                if !wrap && !m.take("clamp") {
                    return Err(m.unknown());
                }
                match (left, wrap) {
                    (true, true) => Tri32::FunnelLeftWrap,
                    (true, false) => Tri32::FunnelLeftClamp,
                    (false, true) => Tri32::FunnelRightWrap,
                    (false, false) => Tri32::FunnelRightClamp,
                }
            }
            "dp4a" => {
                let (a, b) = (m.ty()?, m.ty()?);
                Tri32::Dp4a(a.is_signed(), b.is_signed())
            }
            "dp2a" => {
                let (a, b) = (m.ty()?, m.ty()?);
                if m.take("hi") {
                    Tri32::Dp2aHigh(a.is_signed(), b.is_signed())
                } else if m.take("lo") {
                    Tri32::Dp2aLow(a.is_signed(), b.is_signed())
                } else {
                    return Err(m.unknown());
                }
            }
            "bmsk" => {
                m.ty()?;
                let op =
                    m.one_of(&[("clamp", Bin32::BitMaskClamp), ("wrap", Bin32::BitMaskWrap)])?;
                return self.bin32(at, op, Ty::B32, Ty::B32);
            }
            "bfe" | "bfi" => return self.bit_field(at, name, m),
            _ => return Err(m.unknown()),
        };
        if matches!(name, "prmt" | "shf") && m.ty()? != Ty::B32 {
            return Err(m.unknown());
        }
        self.tri32(at, op, Ty::B32, Ty::B32)
    }

    pub(super) fn bit_field(
        &mut self,
        at: &Instruction,
        name: &str,
        m: &mut Modifiers,
    ) -> Result<()> {
        let ty = m.ty()?;
        let wide = ty.bytes() == 8;
        if ty.bytes() < 4 || ty.is_float() {
            return Err(m.unknown());
        }
        let (d, a, b, position, length) = match (name, &at.operands[..]) {
            ("bfe", [d, a, position, length]) => (d, a, a, position, length),
            ("bfi", [d, a, b, position, length]) => (d, a, b, position, length),
            _ => return Err(operand_error(at, "wrong number of operands")),
        };
        let (a, b) = (self.src(at, a, ty)?, self.src(at, b, ty)?);
        let position = self.src(at, position, Ty::U32)?;
        let length = self.src(at, length, Ty::U32)?;
        let d = self.dst(at, d, ty)?;
        let signed = ty.is_signed();
        if name == "bfe" && !wide {
            let op = if signed {
                Tri32::ExtractS
            } else {
                Tri32::ExtractU
            };
            self.alu(Alu::Tri32(op, d, a, position, length));
            return Ok(());
        }
        let place = self.new32();
        self.alu(Alu::Bin32(Bin32::Pack8, place, position, length));
        self.alu(match (name, wide) {
            ("bfe", _) => Alu::Extract64 {
                signed,
                d,
                a,
                place,
            },
            (_, true) => Alu::Insert64 { d, a, b, place },
            (_, false) => Alu::Tri32(Tri32::Insert, d, a, b, place),
        });
        Ok(())
    }
}
