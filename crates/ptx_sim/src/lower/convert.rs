//! `mov`, `cvt` and address conversions.

use crate::error::Result;
use crate::lower::builder::Builder;
use crate::lower::modifiers::Modifiers;
use crate::lower::operand_error;
use crate::module::{Instruction, Operand};
use crate::op::{Alu, Bin32, Column, Conversion, Narrow, Op, Round, Tri32, Un32, Un64, Widen};
use crate::ty::{Space, Ty};

impl Builder<'_> {
    pub fn mov(&mut self, at: &Instruction, m: &mut Modifiers) -> Result<()> {
        let ty = m.ty()?;
        let [d, a] = self.operands(at)?;
        match (d, a) {
            (Operand::Vector(parts), source) => self.unpack(at, parts, source, ty),
            (d, Operand::Vector(parts)) => self.pack(at, d, parts, ty),
            (d, Operand::Special(special)) if special.is_clock() => {
                let d = self.column_of(at, d, ty)?;
                self.emit(Op::Clock {
                    register: *special,
                    d,
                });
                Ok(())
            }
            (d, a) if ty == Ty::Pred => {
                let (a, negated) = self.src_pred(at, a)?;
                let d = self.dst_pred(at, d)?;
                self.alu(if negated {
                    Alu::NotPred { d, a }
                } else {
                    Alu::Pred(crate::op::BoolOp::And, d, a, a)
                });
                Ok(())
            }
            (d, a) => {
                let a = self.src(at, a, ty)?;
                let d = self.dst(at, d, ty)?;
                self.alu(if ty.bytes() == 8 {
                    Alu::Un64(Un64::Mov, d, a)
                } else {
                    Alu::Un32(Un32::Mov, d, a)
                });
                Ok(())
            }
        }
    }

    fn pack(&mut self, at: &Instruction, d: &Operand, parts: &[Operand], ty: Ty) -> Result<()> {
        let part_ty = part_ty(ty, parts.len()).ok_or_else(|| operand_error(at, "parts"))?;
        let mut columns = Vec::with_capacity(parts.len());
        for part in parts {
            columns.push(self.src(at, part, part_ty)?);
        }
        let d = self.dst(at, d, ty)?;
        while columns.len() > 2 {
            let narrow = columns.len() == 4 && ty.bytes() == 4;
            let op = if narrow { Bin32::Pack8 } else { Bin32::Pack16 };
            columns = columns
                .chunks(2)
                .map(|pair| {
                    let joined = self.new32();
                    self.alu(Alu::Bin32(op, joined, pair[0], pair[1]));
                    joined
                })
                .collect();
        }
        let (low, high) = (columns[0], columns[1]);
        self.alu(match ty.bytes() {
            8 => Alu::Pack64 { d, low, high },
            4 => Alu::Bin32(Bin32::Pack16, d, low, high),
            _ => Alu::Bin32(Bin32::Pack8, d, low, high),
        });
        Ok(())
    }

    fn unpack(&mut self, at: &Instruction, parts: &[Operand], a: &Operand, ty: Ty) -> Result<()> {
        let part_ty = part_ty(ty, parts.len()).ok_or_else(|| operand_error(at, "parts"))?;
        let source = self.src(at, a, ty)?;
        // A 64-bit source is split into words first.
        let words = if ty.bytes() == 8 {
            let (low, high) = (self.new32(), self.new32());
            self.alu(Alu::Narrow(Narrow::Low, low, source));
            self.alu(Alu::Narrow(Narrow::High, high, source));
            vec![low, high]
        } else {
            vec![source]
        };
        let ops: &[Un32] = match part_ty.bytes() {
            4 => &[Un32::Mov],
            2 => &[Un32::Low16, Un32::High16],
            _ if ty.bytes() == 2 => &[Un32::Low8, Un32::Byte1],
            _ => &[Un32::Low8, Un32::Byte1, Un32::Byte2, Un32::Byte3],
        };
        let pieces = words
            .iter()
            .flat_map(|word| ops.iter().map(move |op| (*op, *word)));
        for (part, (op, word)) in parts.iter().zip(pieces) {
            if !matches!(part, Operand::Discard) {
                let d = self.dst(at, part, part_ty)?;
                self.alu(Alu::Un32(op, d, word));
            }
        }
        Ok(())
    }

    pub fn cvta(&mut self, at: &Instruction, m: &mut Modifiers) -> Result<()> {
        let to = m.take("to");
        let space = m.take_space().ok_or_else(|| m.unknown())?;
        if m.ty()?.bytes() != 8 {
            return Err(m.unknown());
        }
        let [d, a] = self.operands(at)?;
        let a = self.src(at, a, Ty::B64)?;
        let d = self.dst(at, d, Ty::B64)?;
        let window = match space {
            Space::Shared => crate::memory::SHARED_WINDOW,
            Space::Local => crate::memory::LOCAL_WINDOW,
            Space::Param => crate::memory::PARAM_WINDOW,
            Space::Global | Space::Const | Space::Generic => 0,
        };
        if window == 0 {
            self.alu(Alu::Un64(Un64::Mov, d, a));
            return Ok(());
        }
        let window = self.long(crate::lower::Constant::Value(window));
        let op = if to {
            crate::op::Bin64::Sub
        } else {
            crate::op::Bin64::Add
        };
        self.alu(Alu::Bin64(op, d, a, window));
        Ok(())
    }

    pub fn cvt(&mut self, at: &Instruction, m: &mut Modifiers) -> Result<()> {
        if m.take("pack") {
            return self.cvt_pack(at, m);
        }
        let integral = m.take_one_of(&[
            ("rni", Round::Nearest),
            ("rzi", Round::Zero),
            ("rmi", Round::Down),
            ("rpi", Round::Up),
        ]);
        let round = m.take_one_of(&[
            ("rn", Round::Nearest),
            ("rz", Round::Zero),
            ("rm", Round::Down),
            ("rp", Round::Up),
            ("rna", Round::NearestAway),
        ]);
        let conversion = Conversion {
            ftz: m.take("ftz"),
            sat: m.take("sat"),
            relu: m.take("relu"),
            integral: integral.is_some(),
            round: integral.or(round).unwrap_or(Round::Nearest),
            to: m.ty()?,
            from: m.ty()?,
        };
        let Conversion { to, from, .. } = conversion;
        if let (Ty::F16x2 | Ty::Bf16x2, Ty::F32) = (to, from) {
            let [d, a, b] = self.operands(at)?;
            let (a, b) = (self.src(at, a, from)?, self.src(at, b, from)?);
            let d = self.dst(at, d, to)?;
            let toward_zero = match conversion.round {
                Round::Nearest => false,
                Round::Zero => true,
                _ => return Err(m.unknown()),
            };
            let (bf16, relu) = (to == Ty::Bf16x2, conversion.relu);
            self.alu(Alu::ConvertPair {
                bf16,
                relu,
                toward_zero,
                d,
                a,
                b,
            });
            return Ok(());
        }
        let known = |ty: Ty| !matches!(ty, Ty::Pred | Ty::F16x2 | Ty::Bf16x2 | Ty::B128);
        if !known(to) || !known(from) || from == Ty::Tf32 {
            return Err(m.unknown());
        }
        let [d, a] = self.operands(at)?;
        let a = match a {
            Operand::Int(_) | Operand::F32(_) | Operand::F64(_) => {
                let column = self.src(at, a, from)?;
                if from.bytes() == 8 {
                    Column::R64(column)
                } else {
                    Column::R32(column)
                }
            }
            _ => self.column_of(at, a, from)?,
        };
        if matches!(d, Operand::Discard) {
            return Ok(());
        }
        let d = self.column_of(at, d, to)?;
        self.convert(conversion, d, a);
        Ok(())
    }

    /// Emits the quick form of frequent conversions, else the general one.
    fn convert(&mut self, conversion: Conversion, d: Column, a: Column) {
        let Conversion {
            to,
            from,
            round,
            integral,
            ftz,
            sat,
            relu,
        } = conversion;
        let plain = !ftz && !sat && !relu;
        let alu = match (d, a) {
            (Column::R64(d), Column::R32(a)) if plain => match (to, from) {
                (Ty::U64 | Ty::S64, Ty::U32 | Ty::B32) => Some(Alu::Widen(Widen::Zero, d, a)),
                (Ty::U64 | Ty::S64, Ty::S32) => Some(Alu::Widen(Widen::Sign, d, a)),
                _ => None,
            },
            (Column::R64(d), Column::R16(a)) if plain => match (to, from) {
                (Ty::U64 | Ty::S64, Ty::U16 | Ty::B16) => Some(Alu::Widen(Widen::Zero, d, a)),
                (Ty::U64 | Ty::S64, Ty::S16) => Some(Alu::Widen(Widen::Sign16, d, a)),
                (Ty::U64 | Ty::S64, Ty::S8) => Some(Alu::Widen(Widen::Sign8, d, a)),
                _ => None,
            },
            (Column::R32(d), Column::R64(a)) if plain => match (to, from) {
                (Ty::U32 | Ty::S32, Ty::U64 | Ty::S64) => Some(Alu::Narrow(Narrow::Low, d, a)),
                _ => None,
            },
            (Column::R16(d), Column::R64(a)) if plain => match (to, from) {
                (Ty::U16 | Ty::S16, Ty::U64 | Ty::S64) => Some(Alu::Narrow(Narrow::Low16, d, a)),
                (Ty::U8, Ty::U64 | Ty::S64) => Some(Alu::Narrow(Narrow::Low8, d, a)),
                _ => None,
            },
            (Column::R32(d), Column::R32(a)) if plain => match (to, from) {
                (Ty::F32, Ty::U32) if round == Round::Nearest => Some(Un32::F32FromU32),
                (Ty::F32, Ty::S32) if round == Round::Nearest => Some(Un32::F32FromS32),
                (Ty::U32, Ty::F32) if integral && round == Round::Zero => Some(Un32::U32FromF32Rz),
                (Ty::S32, Ty::F32) if integral && round == Round::Zero => Some(Un32::S32FromF32Rz),
                (Ty::U32 | Ty::S32, Ty::U32 | Ty::S32) => Some(Un32::Mov),
                (Ty::U32 | Ty::S32, Ty::S8) => Some(Un32::Sext8),
                (Ty::U32 | Ty::S32, Ty::U8) => Some(Un32::Low8),
                (Ty::U32 | Ty::S32, Ty::S16) => Some(Un32::Sext16),
                (Ty::U32 | Ty::S32, Ty::U16) => Some(Un32::Low16),
                _ => None,
            }
            .map(|op| Alu::Un32(op, d, a)),
            (Column::R32(d), Column::R16(a)) if plain => match (to, from) {
                (Ty::F32, Ty::F16) => Some(Un32::F32FromF16),
                (Ty::F32, Ty::Bf16) => Some(Un32::F32FromBf16),
                (Ty::U32 | Ty::S32, Ty::U16) => Some(Un32::Low16),
                (Ty::U32 | Ty::S32, Ty::S16) => Some(Un32::Sext16),
                (Ty::U32 | Ty::S32, Ty::U8) => Some(Un32::Low8),
                (Ty::U32 | Ty::S32, Ty::S8) => Some(Un32::Sext8),
                (Ty::F32, Ty::U16) => Some(Un32::F32FromU32),
                _ => None,
            }
            .map(|op| Alu::Un32(op, d, a)),
            (Column::R16(d), Column::R32(a)) if plain => match (to, from) {
                (Ty::F16, Ty::F32) if round == Round::Nearest => Some(Un32::F16FromF32),
                (Ty::Bf16, Ty::F32) if round == Round::Nearest => Some(Un32::Bf16FromF32),
                (Ty::U16 | Ty::S16, Ty::U32 | Ty::S32) => Some(Un32::Low16),
                (Ty::U8, Ty::U32 | Ty::S32) => Some(Un32::Low8),
                (Ty::S8, Ty::U32 | Ty::S32) => Some(Un32::Sext8To16),
                _ => None,
            }
            .map(|op| Alu::Un32(op, d, a)),
            _ => None,
        };
        self.alu(alu.unwrap_or(Alu::Convert(conversion, d, a)));
    }

    fn cvt_pack(&mut self, at: &Instruction, m: &mut Modifiers) -> Result<()> {
        if !m.take("sat") {
            return Err(m.unknown());
        }
        let to = m.ty()?;
        if m.ty()? != Ty::S32 {
            return Err(m.unknown());
        }
        let op = match to {
            Ty::S8 => Tri32::PackSatS8,
            Ty::U8 => Tri32::PackSatU8,
            Ty::S16 => Tri32::PackSatS16,
            Ty::U16 => Tri32::PackSatU16,
            _ => return Err(m.unknown()),
        };
        let (d, a, b, c) = match &at.operands[..] {
            [d, a, b] if to.bytes() == 2 => (d, a, b, &Operand::Int(0)),
            [d, a, b, c] if to.bytes() == 1 && m.ty()? == Ty::B32 => (d, a, b, c),
            _ => return Err(operand_error(at, "wrong number of operands")),
        };
        let [a, b, c] = [a, b, c].map(|source| self.src(at, source, Ty::B32));
        let d = self.dst(at, d, Ty::B32)?;
        self.alu(Alu::Tri32(op, d, a?, b?, c?));
        Ok(())
    }
}

fn part_ty(ty: Ty, parts: usize) -> Option<Ty> {
    Some(match (ty.bytes(), parts) {
        (8, 2) => Ty::B32,
        (8, 4) | (4, 2) => Ty::B16,
        (4, 4) | (2, 2) => Ty::B8,
        _ => return None,
    })
}
