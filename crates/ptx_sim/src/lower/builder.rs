//! Allocation of columns, constants and storage; operands to columns.

use std::collections::HashMap;

use crate::error::Result;
use crate::lower::{Callee, Constant, LOCAL_BASE, Program, SHARED_BASE};
use crate::module::{Function, LabelId, RegisterId};
use crate::op::{Alu, D, Instr, NONE, Op, P, R};
use crate::parse::Parsed;
use crate::special::SpecialRegister;
use crate::ty::Space;

/// Addresses of functions: outside every memory window, so that a load through one faults.
pub(crate) const FUNCTION_BASE: u64 = 4 << 32;
pub(crate) const FUNCTION_STRIDE: u64 = 16;

/// The unsized array follows every sized one: its address is known when all are placed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Word {
    Value(u32),
    DynamicShared { align: u32, offset: u32 },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Owner {
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
    pub(super) variables: HashMap<String, usize>,
    pub(super) columns: HashMap<(usize, RegisterId), u32>,
    pub(super) words: HashMap<Word, R>,
    pub(super) constants64: HashMap<Constant, D>,
    pub(super) dynamic64: Vec<(D, u32, u32)>,
    pub(super) specials: HashMap<SpecialRegister, u32>,
    pub(super) storage: HashMap<Owner, u32>,
    pub(super) shared_end: u32,
    pub(super) dynamic_align: u32,
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

    pub(super) fn word_column(&mut self, word: Word) -> R {
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

    /// Notes that accesses of that width reach memory other than the thread's own.
    pub fn note_width(&mut self, space: Space, bytes: u32) {
        if !matches!(space, Space::Local | Space::Param) {
            self.program.granule = self.program.granule.min(bytes);
        }
    }
}
