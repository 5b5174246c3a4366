//! Allocation of columns, constants and storage; operands to columns.

use std::collections::HashMap;

use crate::error::{ParseErrorKind, Result};
use crate::lower::{Callee, Constant, LOCAL_BASE, Program, SHARED_BASE, error, operand_error};
use crate::module::{Function, Instruction, LabelId, Operand, RegisterId, Variable};
use crate::op::{Address, Alu, Base, Column, D, Instr, NONE, Op, P, R};
use crate::parse::Parsed;
use crate::special::SpecialRegister;
use crate::ty::{Space, Ty};

/// Addresses of functions: outside every memory window, so that a load through one faults.
pub(crate) const FUNCTION_BASE: u64 = 4 << 32;
pub(crate) const FUNCTION_STRIDE: u64 = 16;

/// The unsized array follows every sized one: its address is known when all are placed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Word {
    Value(u32),
    DynamicShared { align: u32, offset: u32 },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    Module(usize),
    Function(usize, u32),
}

pub(crate) struct Builder<'p> {
    pub parsed: &'p Parsed,
    pub program: Program,
    /// The function being lowered.
    pub function: &'p Function,
    pub function_id: usize,
    pub code: Vec<Instr>,
    /// Position in `code` of each label.
    pub labels: Vec<(LabelId, usize)>,
    /// The module's variables by name.
    variables: HashMap<String, usize>,
    columns: HashMap<(usize, RegisterId), u32>,
    words: HashMap<Word, R>,
    constants64: HashMap<Constant, D>,
    dynamic64: Vec<(D, u32, u32)>,
    specials: HashMap<SpecialRegister, u32>,
    storage: HashMap<Owner, u32>,
    shared_end: u32,
    dynamic_align: u32,
    carry: P,
    callees: HashMap<String, usize>,
}

impl<'p> Builder<'p> {
    /// Lowers the functions, the first of which is the kernel, into one program.
    pub fn program(parsed: &'p Parsed, order: &[usize]) -> Result<Program> {
        let program = Program {
            code: Vec::new(),
            entry: 0,
            registers32: 0,
            registers64: 0,
            predicates: 0,
            constants32: Vec::new(),
            constants64: Vec::new(),
            specials: Vec::new(),
            names32: HashMap::new(),
            names64: HashMap::new(),
            names_pred: HashMap::new(),
            targets: Vec::new(),
            static_shared_bytes: 0,
            uses_dynamic_shared: false,
            frame_bytes: LOCAL_BASE,
            local_bytes: 0,
            granule: 4,
            callees: Vec::new(),
        };
        let mut builder = Builder {
            parsed,
            program,
            function: &parsed.functions[order[0]],
            function_id: order[0],
            code: Vec::new(),
            labels: Vec::new(),
            variables: parsed
                .variables
                .iter()
                .enumerate()
                .map(|(index, variable)| (variable.name.clone(), index))
                .collect(),
            columns: HashMap::new(),
            words: HashMap::new(),
            constants64: HashMap::new(),
            dynamic64: Vec::new(),
            specials: HashMap::new(),
            storage: HashMap::new(),
            shared_end: SHARED_BASE,
            dynamic_align: 16,
            carry: NONE,
            callees: HashMap::new(),
        };
        for &callee in &order[1..] {
            let function = &parsed.functions[callee];
            let params = function
                .params
                .iter()
                .map(|p| builder.place_formal(p))
                .collect();
            let returns = function
                .returns
                .iter()
                .map(|p| builder.place_formal(p))
                .collect();
            let target = builder.program.targets.len();
            builder.callees.insert(function.name.clone(), target);
            builder.program.targets.push(Callee {
                entry: NONE,
                params,
                returns,
            });
            builder.program.callees.push(function.name.clone());
        }
        for &id in order {
            builder.function = &parsed.functions[id];
            builder.function_id = id;
            let entry = builder.lower_function()?;
            if let Some(&target) = builder.callees.get(&builder.function.name) {
                builder.program.targets[target].entry = entry;
            }
        }
        Ok(builder.finish())
    }

    fn finish(mut self) -> Program {
        let dynamic = self.shared_end.next_multiple_of(self.dynamic_align);
        if self.program.uses_dynamic_shared {
            self.shared_end = dynamic;
        }
        self.program.static_shared_bytes = self.shared_end - SHARED_BASE;
        for (word, column) in &self.words {
            let value = match *word {
                Word::Value(value) => value,
                Word::DynamicShared { offset, .. } => dynamic.wrapping_add(offset),
            };
            self.program.constants32.push((*column, value));
        }
        for (constant, column) in &self.constants64 {
            self.program.constants64.push((*column, constant.clone()));
        }
        for &(column, _, offset) in &self.dynamic64 {
            let value = u64::from(dynamic.wrapping_add(offset));
            self.program
                .constants64
                .push((column, Constant::Value(value)));
        }
        self.program.specials = self
            .specials
            .iter()
            .map(|(&s, &column)| (s, column))
            .collect();
        self.program
    }

    pub fn emit(&mut self, op: Op) {
        self.code.push(Instr {
            guard: NONE,
            guard_inverted: false,
            line: 0,
            op,
        });
    }

    pub fn alu(&mut self, alu: Alu) {
        self.emit(Op::Alu(alu));
    }

    pub fn new32(&mut self) -> R {
        self.program.registers32 += 1;
        (self.program.registers32 - 1) as R
    }

    pub fn new64(&mut self) -> D {
        self.program.registers64 += 1;
        (self.program.registers64 - 1) as D
    }

    pub fn new_predicate(&mut self) -> P {
        self.program.predicates += 1;
        (self.program.predicates - 1) as P
    }

    /// The carry flag of `add.cc` and the like.
    pub fn carry(&mut self) -> P {
        if self.carry == NONE {
            self.carry = self.new_predicate();
            self.program.names_pred.insert(self.carry, "CC.CF".into());
        }
        self.carry
    }

    pub fn callee(&self, name: &str) -> Option<usize> {
        self.callees.get(name).copied()
    }

    pub fn word(&mut self, value: u32) -> R {
        self.word_column(Word::Value(value))
    }

    fn word_column(&mut self, word: Word) -> R {
        if let Some(&column) = self.words.get(&word) {
            return column;
        }
        let column = self.new32();
        self.words.insert(word, column);
        column
    }

    pub fn long(&mut self, constant: Constant) -> D {
        if let Some(&column) = self.constants64.get(&constant) {
            return column;
        }
        let column = self.new64();
        self.constants64.insert(constant, column);
        column
    }

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

    /// The address of a variable or function in its own state space.
    fn address_of(&mut self, at: &Instruction, operand: &Operand, wide: bool) -> Result<u32> {
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
    fn formal(&self, name: &str, offset: i64) -> Option<Place> {
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
        let find = |formals: &[crate::module::Param], places: &[(u32, u32)]| {
            let index = formals.iter().position(|param| param.name == name)?;
            Some(Place::Fixed(
                Space::Local,
                places[index].0.wrapping_add(offset),
            ))
        };
        find(&self.function.params, &callee.params)
            .or_else(|| find(&self.function.returns, &callee.returns))
    }

    fn store(&mut self, at: &Instruction, owner: Owner, variable: &Variable) -> Result<u32> {
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

    fn place_formal(&mut self, param: &crate::module::Param) -> (u32, u32) {
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

    fn is_entry_param(&self, operand: &Operand) -> bool {
        let Operand::Symbol { name, .. } = operand else {
            return false;
        };
        self.function.is_entry && self.function.params.iter().any(|param| param.name == *name)
    }

    /// Notes that accesses of that width reach memory other than the thread's own.
    pub fn note_width(&mut self, space: Space, bytes: u32) {
        if !matches!(space, Space::Local | Space::Param) {
            self.program.granule = self.program.granule.min(bytes);
        }
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
