//! Operands to columns.

use crate::error::Result;
use crate::lower::builder::Builder;
use crate::lower::{Constant, operand_error};
use crate::module::{Instruction, Operand, RegisterId};
use crate::op::{Alu, Column, P};
use crate::ty::Ty;

impl Builder<'_> {
    pub fn register_ty(&self, id: RegisterId) -> Ty {
        self.function.registers[id as usize].ty
    }

    /// The column of a register, in the file of its width.
    pub fn column(&mut self, id: RegisterId) -> u32 {
        if let Some(&column) = self.columns.get(&(self.function_id, id)) {
            return column;
        }
        let register = &self.function.registers[id as usize];
        let name = register.name.clone();
        let column = match register.ty {
            Ty::Pred => {
                let column = self.new_predicate();
                self.program.names_pred.insert(column, name);
                column
            }
            ty if ty.bytes() == 8 => {
                let column = self.new64();
                self.program.names64.insert(column, name);
                column
            }
            _ => {
                let column = self.new32();
                self.program.names32.insert(column, name);
                column
            }
        };
        self.columns.insert((self.function_id, id), column);
        column
    }

    /// A destination that must have exactly the type's width.
    pub fn dst(&mut self, at: &Instruction, operand: &Operand, ty: Ty) -> Result<u32> {
        match operand {
            Operand::Register(id) if self.register_ty(*id) != Ty::Pred => {
                if self.register_ty(*id).bytes() != ty.bytes() {
                    return Err(operand_error(at, "register width differs from the type's"));
                }
                Ok(self.column(*id))
            }
            Operand::Discard => Ok(if ty.bytes() == 8 {
                self.new64()
            } else {
                self.new32()
            }),
            _ => Err(operand_error(at, "destination is not a data register")),
        }
    }

    pub fn dst_pred(&mut self, at: &Instruction, operand: &Operand) -> Result<P> {
        match operand {
            Operand::Register(id) if self.register_ty(*id) == Ty::Pred => Ok(self.column(*id)),
            Operand::Discard => Ok(self.new_predicate()),
            _ => Err(operand_error(at, "destination is not a predicate")),
        }
    }

    /// A predicate source: its column and whether it is negated.
    pub fn src_pred(&mut self, at: &Instruction, operand: &Operand) -> Result<(P, bool)> {
        match operand {
            Operand::Register(id) if self.register_ty(*id) == Ty::Pred => {
                Ok((self.column(*id), false))
            }
            Operand::Not(inner) => {
                let (column, negated) = self.src_pred(at, inner)?;
                Ok((column, !negated))
            }
            Operand::Int(value) => {
                let column = self.new_predicate();
                self.alu(Alu::SetPred {
                    d: column,
                    value: *value != 0,
                });
                Ok((column, false))
            }
            _ => Err(operand_error(at, "source is not a predicate")),
        }
    }

    /// A source of the type's width: a column of the 64-bit file for 8 bytes, else of the other.
    pub fn src(&mut self, at: &Instruction, operand: &Operand, ty: Ty) -> Result<u32> {
        let wide = ty.bytes() == 8;
        match operand {
            Operand::Register(id) => {
                let register = self.register_ty(*id);
                if register == Ty::Pred || register.bytes() != ty.bytes() {
                    return Err(operand_error(at, "register width differs from the type's"));
                }
                Ok(self.column(*id))
            }
            Operand::Special(special) => {
                if special.is_clock() {
                    return Err(operand_error(at, "clocks can only be moved"));
                }
                if special.is_wide() != wide {
                    return Err(operand_error(at, "special register of another width"));
                }
                if let Some(&column) = self.specials.get(special) {
                    return Ok(column);
                }
                let column = if wide { self.new64() } else { self.new32() };
                self.specials.insert(*special, column);
                Ok(column)
            }
            Operand::Int(_) | Operand::F32(_) | Operand::F64(_) => {
                let bits = immediate(at, operand, ty)?;
                if wide {
                    return Ok(self.long(Constant::Value(bits)));
                }
                Ok(self.word(bits as u32))
            }
            Operand::Symbol { .. } | Operand::Local { .. } => self.address_of(at, operand, wide),
            _ => Err(operand_error(at, "not a source for this type")),
        }
    }

    /// A register of at least the type's width, for loads, stores and conversions.
    pub fn column_of(&mut self, at: &Instruction, operand: &Operand, ty: Ty) -> Result<Column> {
        match operand {
            Operand::Register(id) => {
                let register = self.register_ty(*id);
                if register == Ty::Pred || register.bytes() < ty.bytes() {
                    return Err(operand_error(at, "register narrower than the type"));
                }
                let column = self.column(*id);
                Ok(match register.bytes() {
                    8 => Column::R64(column),
                    4 => Column::R32(column),
                    2 => Column::R16(column),
                    _ => Column::R8(column),
                })
            }
            Operand::Discard => Ok(Column::Discard),
            _ => {
                let column = self.src(at, operand, ty)?;
                Ok(match ty.bytes() {
                    8 => Column::R64(column),
                    4 => Column::R32(column),
                    2 => Column::R16(column),
                    _ => Column::R8(column),
                })
            }
        }
    }
}

/// A literal's bits in the width of the type.
fn immediate(at: &Instruction, operand: &Operand, ty: Ty) -> Result<u64> {
    let bits = match (operand, ty.bytes()) {
        (Operand::Int(_), _) if ty.is_float() => {
            return Err(operand_error(at, "an integer literal for a float type"));
        }
        (Operand::Int(value), 8) => *value,
        (Operand::Int(value), 4) => u64::from(*value as u32),
        (Operand::Int(value), 2) => u64::from(*value as u16),
        (Operand::Int(value), 1) => u64::from(*value as u8),
        (Operand::F32(bits), 4) => u64::from(*bits),
        (Operand::F32(bits), 8) if ty == Ty::F64 => f64::from(f32::from_bits(*bits)).to_bits(),
        (Operand::F64(value), 8) => value.to_bits(),
        (Operand::F64(value), 4) => u64::from((*value as f32).to_bits()),
        _ => return Err(operand_error(at, "literal does not fit the type")),
    };
    Ok(bits)
}
