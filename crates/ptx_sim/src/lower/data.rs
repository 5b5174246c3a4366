//! Loads, stores, atomics and asynchronous copies.

use crate::error::Result;
use crate::lower::builder::Builder;
use crate::lower::modifiers::Modifiers;
use crate::lower::operand_error;
use crate::module::{Instruction, Operand};
use crate::op::{Access, Alu, AsyncCopy, Atomic, AtomicOp, AtomicTy, Column, Op, Ordering, Un64};
use crate::ty::{Space, Ty};

/// Cache hints change timing only.
fn is_cache_hint(part: &str) -> bool {
    matches!(part, "ca" | "cg" | "cs" | "lu" | "cv" | "wb" | "wt")
        || part.starts_with("L1::")
        || matches!(part, "L2::64B" | "L2::128B" | "L2::256B")
        || matches!(
            part,
            "L2::evict_last" | "L2::evict_normal" | "L2::evict_first"
        )
}

fn is_scope(part: &str) -> bool {
    matches!(part, "cta" | "cluster" | "gpu" | "sys")
}

impl Builder<'_> {
    pub fn lower_data(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<bool> {
        match name {
            "mov" => self.mov(at, m)?,
            "cvt" => self.cvt(at, m)?,
            "cvta" => self.cvta(at, m)?,
            "ld" | "ldu" => {
                let [d, a] = self.operands(at)?;
                let access = self.access(at, m, d, a)?;
                self.emit(Op::Load(Box::new(access)));
            }
            "st" => {
                let [a, b] = self.operands(at)?;
                let access = self.access(at, m, b, a)?;
                self.emit(Op::Store(Box::new(access)));
            }
            "atom" | "red" => self.atomic(at, name, m)?,
            "membar" => {
                if !(m.take("cta") || m.take("gl") || m.take("sys")) {
                    return Err(m.unknown());
                }
                self.emit(Op::Fence);
            }
            "fence" => {
                m.discard(|part| matches!(part, "sc" | "acq_rel") || is_scope(part));
                self.emit(Op::Fence);
            }
            "prefetch" | "prefetchu" | "applypriority" => {
                m.discard(|part| {
                    is_cache_hint(part) || matches!(part, "L1" | "L2" | "global" | "local")
                });
                self.emit(Op::Nop);
            }
            // What a cache is told changes no value.
            "createpolicy" => {
                m.discard(|part| is_cache_hint(part) || part == "fractional");
                let ty = m.ty()?;
                let [d, _fraction] = self.operands(at)?;
                let (d, a) = (self.dst(at, d, ty)?, self.src(at, &Operand::Int(0), ty)?);
                self.alu(Alu::Un64(Un64::Mov, d, a));
            }
            "isspacep" => {
                let space = m.take_space().ok_or_else(|| m.unknown())?;
                let [p, a] = self.operands(at)?;
                let a = self.src(at, a, Ty::B64)?;
                let p = self.dst_pred(at, p)?;
                self.alu(Alu::IsSpace { space, p, a });
            }
            "cp" => self.async_copy(at, m)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn access(
        &mut self,
        at: &Instruction,
        m: &mut Modifiers,
        data: &Operand,
        address: &Operand,
    ) -> Result<Access> {
        let ordering = if m.take("volatile") || m.take("relaxed") {
            Ordering::Relaxed
        } else if m.take("acquire") || m.take("release") {
            Ordering::Synchronizing
        } else {
            m.take("weak");
            Ordering::Weak
        };
        let read_only = m.take("nc");
        let space = m.take_space().unwrap_or(Space::Generic);
        m.discard(|part| is_cache_hint(part) || is_scope(part));
        let count = m
            .take_one_of(&[("v2", 2), ("v4", 4), ("v8", 8)])
            .unwrap_or(1);
        let ty = m.ty()?;
        if matches!(ty, Ty::Pred | Ty::B128) {
            return Err(m.unknown());
        }
        let elements = match data {
            Operand::Vector(elements) => elements.as_slice(),
            single => std::slice::from_ref(single),
        };
        if elements.len() != count || ty.bytes() as usize * count > 32 {
            return Err(operand_error(at, "vector length differs from the type's"));
        }
        let mut columns = Vec::with_capacity(count);
        for element in elements {
            columns.push(self.column_of(at, element, ty)?);
        }
        let address = self.address(at, address, space)?;
        self.note_width(address.space, ty.bytes());
        Ok(Access {
            address,
            element_bytes: ty.bytes(),
            signed: ty.is_signed(),
            columns,
            ordering,
            read_only,
        })
    }

    fn atomic(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<()> {
        let synchronizing = m.take("acquire") | m.take("release") | m.take("acq_rel");
        m.take("relaxed");
        let space = m.take_space().unwrap_or(Space::Generic);
        m.discard(is_scope);
        let op = m.one_of(&[
            ("add", AtomicOp::Add),
            ("min", AtomicOp::Min),
            ("max", AtomicOp::Max),
            ("and", AtomicOp::And),
            ("or", AtomicOp::Or),
            ("xor", AtomicOp::Xor),
            ("exch", AtomicOp::Exchange),
            ("cas", AtomicOp::CompareExchange),
            ("inc", AtomicOp::Increment),
            ("dec", AtomicOp::Decrement),
        ])?;
        m.take("noftz");
        let ty = m.ty()?;
        let atomic_ty = atomic_ty(op, ty).ok_or_else(|| m.unknown())?;
        let (d, rest) = match (name, &at.operands[..]) {
            ("atom", [d, rest @ ..]) => (self.column_of(at, d, ty)?, rest),
            ("red", rest) => (Column::Discard, rest),
            _ => return Err(operand_error(at, "wrong number of operands")),
        };
        let (address, b, c) = match (op, rest) {
            (AtomicOp::CompareExchange, [address, b, c]) => (address, b, Some(c)),
            (AtomicOp::CompareExchange, _) => {
                return Err(operand_error(at, "expected comparand and value"));
            }
            (_, [address, b]) => (address, b, None),
            _ => return Err(operand_error(at, "wrong number of operands")),
        };
        let b = self.column_of(at, b, ty)?;
        let c = c.map_or(Ok(Column::Discard), |c| self.column_of(at, c, ty))?;
        let address = self.address(at, address, space)?;
        self.note_width(address.space, atomic_ty.bytes());
        let atomic = Atomic {
            address,
            op,
            ty: atomic_ty,
            d,
            b,
            c,
            synchronizing,
        };
        self.emit(Op::Atomic(Box::new(atomic)));
        Ok(())
    }

    fn async_copy(&mut self, at: &Instruction, m: &mut Modifiers) -> Result<()> {
        if !m.take("async") {
            return Err(m.unknown());
        }
        if m.take("commit_group") {
            self.emit(Op::AsyncCommit);
            return Ok(());
        }
        if m.take("wait_all") {
            self.emit(Op::AsyncWaitAll);
            return Ok(());
        }
        if m.take("wait_group") {
            let [Operand::Int(pending @ 0..=0xffff)] = at.operands[..] else {
                return Err(operand_error(at, "expected a group count"));
            };
            self.emit(Op::AsyncWait {
                pending: u32::try_from(pending).unwrap_or(u32::MAX),
            });
            return Ok(());
        }
        let bypass = m.take("cg");
        if !bypass && !m.take("ca") {
            return Err(m.unknown());
        }
        if m.take_space() != Some(Space::Shared) || m.take_space() != Some(Space::Global) {
            return Err(m.unknown());
        }
        let has_policy = m.take("L2::cache_hint");
        m.discard(is_cache_hint);
        let [to, from, Operand::Int(bytes), rest @ ..] = &at.operands[..] else {
            return Err(operand_error(at, "expected destination, source and size"));
        };
        let rest = match rest {
            [rest @ .., policy] if has_policy => {
                self.src(at, policy, Ty::B64)?;
                rest
            }
            [] if has_policy => return Err(operand_error(at, "expected a cache policy")),
            rest => rest,
        };
        let bytes = match (*bytes, bypass) {
            (16, _) => 16,
            (8, false) => 8,
            (4, false) => 4,
            _ => return Err(operand_error(at, "copy size")),
        };
        let (mut source_bytes, mut ignore) = (None, None);
        match rest {
            [] => {}
            [Operand::Register(id)] if self.register_ty(*id) == Ty::Pred => {
                ignore = Some(self.column(*id));
            }
            [size] => source_bytes = Some(self.src(at, size, Ty::U32)?),
            _ => return Err(operand_error(at, "too many operands")),
        }
        let to = self.address(at, to, Space::Shared)?;
        let from = self.address(at, from, Space::Global)?;
        let copy = AsyncCopy {
            to,
            from,
            bytes,
            source_bytes,
            ignore,
        };
        self.emit(Op::AsyncCopy(Box::new(copy)));
        Ok(())
    }
}

fn atomic_ty(op: AtomicOp, ty: Ty) -> Option<AtomicTy> {
    use AtomicOp::*;
    let bits = matches!(op, And | Or | Xor | Exchange | CompareExchange);
    let ordered = matches!(op, Min | Max);
    Some(match ty {
        Ty::B32 if bits => AtomicTy::U32,
        Ty::B64 if bits => AtomicTy::U64,
        Ty::B16 if op == CompareExchange => AtomicTy::B16,
        Ty::U32 if !bits => AtomicTy::U32,
        Ty::U64 if ordered || op == Add => AtomicTy::U64,
        Ty::S32 if ordered || op == Add => AtomicTy::S32,
        Ty::S64 if ordered => AtomicTy::S64,
        Ty::F32 if op == Add => AtomicTy::F32,
        Ty::F64 if op == Add => AtomicTy::F64,
        Ty::F16 if op == Add => AtomicTy::F16,
        Ty::F16x2 if op == Add => AtomicTy::F16x2,
        Ty::Bf16 if op == Add => AtomicTy::Bf16,
        Ty::Bf16x2 if op == Add => AtomicTy::Bf16x2,
        _ => return None,
    })
}
