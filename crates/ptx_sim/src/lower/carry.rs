//! Sums and differences of more words than one: the carry flag `CC.CF` between instructions.

use crate::error::Result;
use crate::lower::builder::Builder;
use crate::lower::modifiers::Modifiers;
use crate::module::{Instruction, Operand};
use crate::op::{Alu, Column};
use crate::ty::Ty;

/// An instruction's place in a chain.
pub(super) struct Chain {
    pub subtract: bool,
    pub carry_in: bool,
    pub carry_out: bool,
}

impl Builder<'_> {
    /// `d = a + b` or `a - b` with the carry; `a` and `b` are columns of the type's width.
    pub(super) fn add_with_carry(
        &mut self,
        at: &Instruction,
        m: &Modifiers,
        chain: Chain,
        ty: Ty,
        d: &Operand,
        [a, b]: [u32; 2],
    ) -> Result<()> {
        let column: fn(u32) -> Column = match ty.bytes() {
            4 if ty.is_integer() => Column::R32,
            8 if ty.is_integer() => Column::R64,
            _ => return Err(m.unknown()),
        };
        let d = self.dst(at, d, ty)?;
        let cc = self.carry();
        self.alu(Alu::Carry {
            subtract: chain.subtract,
            carry_in: chain.carry_in,
            carry_out: chain.carry_out,
            cc,
            d: column(d),
            a: column(a),
            b: column(b),
        });
        Ok(())
    }
}
