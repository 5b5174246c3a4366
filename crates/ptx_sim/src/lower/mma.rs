//! `mma.sync`.

use crate::error::Result;
use crate::lower::builder::Builder;
use crate::lower::modifiers::Modifiers;
use crate::lower::operand_error;
use crate::module::{Instruction, Operand};
use crate::op::{Mma, MmaInput, R};
use crate::ty::Ty;

impl Builder<'_> {
    pub fn mma(&mut self, at: &Instruction, m: &mut Modifiers) -> Result<Mma> {
        if !(m.take("sync") && m.take("aligned") && m.take("row") && m.take("col")) {
            return Err(m.unknown());
        }
        let k: usize = m.one_of(&[
            ("m16n8k4", 4),
            ("m16n8k8", 8),
            ("m16n8k16", 16),
            ("m16n8k32", 32),
        ])?;
        let saturate = m.take("satfinite");
        let (to, a_ty, b_ty, accumulator) = (m.ty()?, m.ty()?, m.ty()?, m.ty()?);
        if to != accumulator {
            return Err(m.unknown());
        }
        let is_byte = |ty| matches!(ty, Ty::U8 | Ty::S8);
        let input = match (a_ty, b_ty, to) {
            (Ty::F16, Ty::F16, Ty::F32 | Ty::F16) => MmaInput::F16,
            (Ty::Bf16, Ty::Bf16, Ty::F32) => MmaInput::Bf16,
            (Ty::Tf32, Ty::Tf32, Ty::F32) => MmaInput::Tf32,
            (a, b, Ty::S32) if is_byte(a) && is_byte(b) => {
                MmaInput::Int8(a.is_signed(), b.is_signed())
            }
            _ => return Err(m.unknown()),
        };
        let known = match input {
            MmaInput::F16 | MmaInput::Bf16 => matches!(k, 8 | 16),
            MmaInput::Tf32 => matches!(k, 4 | 8),
            MmaInput::Int8(..) => matches!(k, 16 | 32),
        };
        if !known || saturate && !matches!(input, MmaInput::Int8(..)) {
            return Err(m.unknown());
        }
        let per_register = match input {
            MmaInput::F16 | MmaInput::Bf16 => 2,
            MmaInput::Tf32 => 1,
            MmaInput::Int8(..) => 4,
        };
        let half_accumulator = to == Ty::F16;
        let accumulators = if half_accumulator { 2 } else { 4 };
        let [d, a, b, c] = self.operands(at)?;
        let a = self.fragment(at, a, 16 * k / 32 / per_register, true)?;
        let b = self.fragment(at, b, 8 * k / 32 / per_register, true)?;
        let c = self.fragment(at, c, accumulators, true)?;
        let d = self.fragment(at, d, accumulators, false)?;
        Ok(Mma {
            k,
            input,
            half_accumulator,
            saturate,
            d,
            a,
            b,
            c,
        })
    }

    fn fragment(
        &mut self,
        at: &Instruction,
        operand: &Operand,
        count: usize,
        source: bool,
    ) -> Result<Vec<R>> {
        let elements = match operand {
            Operand::Vector(elements) => elements.as_slice(),
            single => std::slice::from_ref(single),
        };
        if elements.len() != count {
            return Err(operand_error(
                at,
                &format!("expected a fragment of {count} registers"),
            ));
        }
        let mut columns = Vec::with_capacity(count);
        for element in elements {
            columns.push(if source {
                self.src(at, element, Ty::B32)?
            } else {
                self.dst(at, element, Ty::B32)?
            });
        }
        Ok(columns)
    }
}
