//! Storage of variables, parameters and arguments, and the addresses of memory operands.

use crate::error::{ParseErrorKind, Result};
use crate::lower::builder::{Builder, FUNCTION_BASE, FUNCTION_STRIDE, Owner, Word};
use crate::lower::{Constant, error, operand_error};
use crate::module::{Instruction, Operand, Param, Variable};
use crate::op::{Address, Base};
use crate::ty::{Space, Ty};

impl Builder<'_> {
    /// The address of a variable or function in its own state space.
    pub(super) fn address_of(
        &mut self,
        at: &Instruction,
        operand: &Operand,
        wide: bool,
    ) -> Result<u32> {
        if let Operand::Symbol { name, .. } = operand
            && let Some(target) = self.callee(name)
        {
            if !wide {
                return Err(operand_error(at, "a function's address has 64 bits"));
            }
            let address = FUNCTION_BASE + FUNCTION_STRIDE * target as u64;
            return Ok(self.long(Constant::Value(address)));
        }
        let place = self.place(at, operand)?;
        match place {
            Place::Fixed(_, address) if wide => Ok(self.long(Constant::Value(u64::from(address)))),
            Place::Fixed(_, address) => Ok(self.word(address)),
            Place::DynamicShared { align, offset } if wide => {
                self.dynamic_align = self.dynamic_align.max(align);
                let column = self.new64();
                self.dynamic64.push((column, align, offset as u32));
                Ok(column)
            }
            Place::DynamicShared { align, offset } => {
                self.dynamic_align = self.dynamic_align.max(align);
                Ok(self.word_column(Word::DynamicShared {
                    align,
                    offset: offset as u32,
                }))
            }
            Place::Module { index, offset, .. } if wide => {
                Ok(self.long(Constant::Variable { index, offset }))
            }
            Place::Module { .. } => Err(operand_error(at, "a global address has 64 bits")),
        }
    }

    /// Where a named variable lives.
    pub fn place(&mut self, at: &Instruction, operand: &Operand) -> Result<Place> {
        let (owner, variable, offset) = match operand {
            Operand::Local { variable, offset } => (
                Owner::Function(self.function_id, *variable),
                &self.function.variables[*variable as usize],
                *offset,
            ),
            Operand::Symbol { name, offset } => {
                if let Some(place) = self.formal(name, *offset) {
                    return Ok(place);
                }
                let Some(&index) = self.variables.get(name) else {
                    return Err(error(at, ParseErrorKind::Undeclared));
                };
                (Owner::Module(index), &self.parsed.variables[index], *offset)
            }
            _ => return Err(operand_error(at, "not a variable")),
        };
        match (variable.space, owner) {
            (Space::Shared, _) if variable.is_unsized => {
                self.program.uses_dynamic_shared = true;
                Ok(Place::DynamicShared {
                    align: variable.align,
                    offset,
                })
            }
            (Space::Shared | Space::Local | Space::Param, _) => {
                let base = self.store(at, owner, variable)?;
                Ok(Place::Fixed(
                    variable.space,
                    base.wrapping_add(offset as u32),
                ))
            }
            (space, Owner::Module(index)) => Ok(Place::Module {
                space,
                index,
                offset,
            }),
            _ => Err(operand_error(at, "variable of an unsupported state space")),
        }
    }

    /// A parameter of the function itself.
    pub(super) fn formal(&self, name: &str, offset: i64) -> Option<Place> {
        let offset = offset as u32;
        if self.function.is_entry {
            let param = self
                .function
                .params
                .iter()
                .find(|param| param.name == name)?;
            return Some(Place::Fixed(
                Space::Param,
                param.offset.wrapping_add(offset),
            ));
        }
        let callee = &self.program.targets[self.callee(&self.function.name)?];
        let find = |formals: &[Param], places: &[(u32, u32)]| {
            let index = formals.iter().position(|param| param.name == name)?;
            Some(Place::Fixed(
                Space::Local,
                places[index].0.wrapping_add(offset),
            ))
        };
        find(&self.function.params, &callee.params)
            .or_else(|| find(&self.function.returns, &callee.returns))
    }

    pub(super) fn store(
        &mut self,
        at: &Instruction,
        owner: Owner,
        variable: &Variable,
    ) -> Result<u32> {
        if let Some(&base) = self.storage.get(&owner) {
            return Ok(base);
        }
        let too_large = || error(at, ParseErrorKind::Limit("storage of the function".into()));
        let is_shared = variable.space == Space::Shared;
        let end = if is_shared {
            self.shared_end
        } else {
            self.program.frame_bytes
        };
        let base = end
            .checked_next_multiple_of(variable.align.max(1))
            .ok_or_else(too_large)?;
        // More than any device has: 227 KiB of shared and 512 KiB of local memory.
        let limit = if is_shared { 256 << 10 } else { 513 << 10 };
        let end = base.checked_add(variable.size).filter(|end| *end <= limit);
        let end = end.ok_or_else(too_large)?;
        if is_shared {
            self.shared_end = end;
        } else {
            self.program.frame_bytes = end;
            if variable.space == Space::Local {
                self.program.local_bytes += variable.size;
            }
        }
        self.storage.insert(owner, base);
        Ok(base)
    }

    pub(super) fn place_formal(&mut self, param: &Param) -> (u32, u32) {
        let base = self
            .program
            .frame_bytes
            .next_multiple_of(param.align.max(1));
        self.program.frame_bytes = base + param.size;
        (base, param.size)
    }

    /// A memory operand in the given space.
    pub fn address(
        &mut self,
        at: &Instruction,
        operand: &Operand,
        space: Space,
    ) -> Result<Address> {
        let Operand::Memory { base, offset } = operand else {
            return Err(operand_error(at, "not a memory operand"));
        };
        match &**base {
            Operand::Register(id) => {
                let column = self.column(*id);
                let base = match self.register_ty(*id).bytes() {
                    8 => Base::R64(column),
                    4 if self.register_ty(*id) != Ty::Pred => Base::R32(column),
                    _ => return Err(operand_error(at, "address in a narrow register")),
                };
                Ok(Address {
                    space,
                    base,
                    offset: *offset,
                })
            }
            Operand::Int(value) => {
                let offset = value.cast_signed().wrapping_add(*offset);
                Ok(Address {
                    space,
                    base: Base::None,
                    offset,
                })
            }
            base @ (Operand::Symbol { .. } | Operand::Local { .. }) => {
                let place = self.place(at, base)?;
                let own = place.space();
                // Formal parameters and arguments of calls live in the thread's local memory.
                let own = if own == Space::Param && !self.is_entry_param(base) {
                    Space::Local
                } else {
                    own
                };
                let agrees = own == space
                    || space == Space::Param && own == Space::Local
                    || space == Space::Generic && own == Space::Global;
                if !agrees {
                    return Err(operand_error(at, "variable of another state space"));
                }
                if let Place::Fixed(_, address) = place {
                    let offset = i64::from(address).wrapping_add(*offset);
                    return Ok(Address {
                        space: own,
                        base: Base::None,
                        offset,
                    });
                }
                let wide = matches!(place, Place::Module { .. });
                let column = self.address_of(at, base, wide)?;
                let base = if wide {
                    Base::R64(column)
                } else {
                    Base::R32(column)
                };
                Ok(Address {
                    space: own,
                    base,
                    offset: *offset,
                })
            }
            _ => Err(operand_error(
                at,
                "address is neither a register nor a variable",
            )),
        }
    }

    pub(super) fn is_entry_param(&self, operand: &Operand) -> bool {
        let Operand::Symbol { name, .. } = operand else {
            return false;
        };
        self.function.is_entry && self.function.params.iter().any(|param| param.name == *name)
    }
}

/// Where a variable lives.
pub(crate) enum Place {
    /// At an address known now, in the state space's own numbering.
    Fixed(Space, u32),
    DynamicShared {
        align: u32,
        offset: i64,
    },
    /// In an allocation that a launch makes.
    Module {
        space: Space,
        index: usize,
        offset: i64,
    },
}

impl Place {
    fn space(&self) -> Space {
        match self {
            Place::Fixed(space, _) => *space,
            Place::DynamicShared { .. } => Space::Shared,
            Place::Module { space, .. } => *space,
        }
    }
}
