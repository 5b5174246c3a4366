//! Shuffles, votes, matches, reductions and matrix loads.

use crate::error::Result;
use crate::lower::builder::Builder;
use crate::lower::modifiers::Modifiers;
use crate::lower::operand_error;
use crate::module::{Instruction, Operand};
use crate::op::{AtomicOp, NONE, Op, ShuffleMode, VoteMode, WarpOp};
use crate::ty::{Space, Ty};

impl Builder<'_> {
    pub fn lower_warp(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<bool> {
        let op = match name {
            "activemask" => {
                m.ty()?;
                let [d] = self.operands(at)?;
                let d = self.dst(at, d, Ty::B32)?;
                self.emit(Op::ActiveMask { d });
                return Ok(true);
            }
            "shfl" => self.shuffle(at, m)?,
            "vote" => self.vote(at, m)?,
            "match" => self.matching(at, m)?,
            "redux" => self.reduce(at, m)?,
            "ldmatrix" | "stmatrix" => self.matrix(at, name, m)?,
            "mma" => WarpOp::Mma(self.mma(at, m)?),
            _ => return Ok(false),
        };
        self.emit(Op::Warp(Box::new(op)));
        Ok(true)
    }

    fn shuffle(&mut self, at: &Instruction, m: &mut Modifiers) -> Result<WarpOp> {
        if !m.take("sync") {
            return Err(m.unknown());
        }
        let mode = m.one_of(&[
            ("up", ShuffleMode::Up),
            ("down", ShuffleMode::Down),
            ("bfly", ShuffleMode::Butterfly),
            ("idx", ShuffleMode::Index),
        ])?;
        m.ty()?;
        let [d, a, b, c, members] = self.operands(at)?;
        let (a, b) = (self.src(at, a, Ty::B32)?, self.src(at, b, Ty::B32)?);
        let (c, members) = (self.src(at, c, Ty::B32)?, self.src(at, members, Ty::B32)?);
        let (d, in_range) = match d {
            Operand::Pair(d, p) => (self.dst(at, d, Ty::B32)?, self.dst_pred(at, p)?),
            d => (self.dst(at, d, Ty::B32)?, NONE),
        };
        Ok(WarpOp::Shuffle {
            mode,
            d,
            in_range,
            a,
            b,
            c,
            members,
        })
    }

    fn vote(&mut self, at: &Instruction, m: &mut Modifiers) -> Result<WarpOp> {
        if !m.take("sync") {
            return Err(m.unknown());
        }
        let mode = m.one_of(&[
            ("all", VoteMode::All),
            ("any", VoteMode::Any),
            ("uni", VoteMode::Uniform),
            ("ballot", VoteMode::Ballot),
        ])?;
        m.ty()?;
        let [d, a, members] = self.operands(at)?;
        let (a, negated) = self.src_pred(at, a)?;
        let members = self.src(at, members, Ty::B32)?;
        let d = match mode {
            VoteMode::Ballot => self.dst(at, d, Ty::B32)?,
            _ => self.dst_pred(at, d)?,
        };
        Ok(WarpOp::Vote {
            mode,
            d,
            a,
            negated,
            members,
        })
    }

    fn matching(&mut self, at: &Instruction, m: &mut Modifiers) -> Result<WarpOp> {
        let all = m.take("all");
        if !all && !m.take("any") || !m.take("sync") {
            return Err(m.unknown());
        }
        let ty = m.ty()?;
        let [d, a, members] = self.operands(at)?;
        let a = self.column_of(at, a, ty)?;
        let members = self.src(at, members, Ty::B32)?;
        Ok(match d {
            Operand::Pair(d, p) if all => {
                let (d, all) = (self.dst(at, d, Ty::B32)?, self.dst_pred(at, p)?);
                WarpOp::MatchAll { d, all, a, members }
            }
            d if all => {
                let d = self.dst(at, d, Ty::B32)?;
                WarpOp::MatchAll {
                    d,
                    all: NONE,
                    a,
                    members,
                }
            }
            d => WarpOp::MatchAny {
                d: self.dst(at, d, Ty::B32)?,
                a,
                members,
            },
        })
    }

    fn reduce(&mut self, at: &Instruction, m: &mut Modifiers) -> Result<WarpOp> {
        if !m.take("sync") {
            return Err(m.unknown());
        }
        let op = m.one_of(&[
            ("add", AtomicOp::Add),
            ("min", AtomicOp::Min),
            ("max", AtomicOp::Max),
            ("and", AtomicOp::And),
            ("or", AtomicOp::Or),
            ("xor", AtomicOp::Xor),
        ])?;
        let ty = m.ty()?;
        if !matches!(ty, Ty::U32 | Ty::S32 | Ty::B32) {
            return Err(m.unknown());
        }
        let [d, a, members] = self.operands(at)?;
        let (a, members) = (self.src(at, a, ty)?, self.src(at, members, Ty::B32)?);
        let d = self.dst(at, d, ty)?;
        Ok(WarpOp::Reduce {
            op,
            signed: ty.is_signed(),
            d,
            a,
            members,
        })
    }

    fn matrix(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<WarpOp> {
        if !(m.take("sync") && m.take("aligned") && m.take("m8n8")) {
            return Err(m.unknown());
        }
        let count = m.one_of(&[("x1", 1), ("x2", 2), ("x4", 4)])?;
        let transposed = m.take("trans");
        let space = m.take_space().unwrap_or(Space::Generic);
        if m.ty()? != Ty::B16 || !matches!(space, Space::Shared | Space::Generic) {
            return Err(m.unknown());
        }
        let [first, second] = self.operands(at)?;
        let is_load = name == "ldmatrix";
        let (data, address) = if is_load {
            (first, second)
        } else {
            (second, first)
        };
        let Operand::Vector(elements) = data else {
            return Err(operand_error(at, "expected a vector of registers"));
        };
        if elements.len() != count {
            return Err(operand_error(
                at,
                "vector length differs from the matrix count",
            ));
        }
        let address = self.address(at, address, space)?;
        let mut columns = Vec::with_capacity(count);
        for element in elements {
            columns.push(if is_load {
                self.dst(at, element, Ty::B32)?
            } else {
                self.src(at, element, Ty::B32)?
            });
        }
        Ok(if is_load {
            WarpOp::LoadMatrix {
                address,
                d: columns,
                transposed,
            }
        } else {
            WarpOp::StoreMatrix {
                address,
                a: columns,
                transposed,
            }
        })
    }
}
