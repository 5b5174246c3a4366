//! Functions, branches, calls and barriers.

use crate::error::{ParseErrorKind, Result};
use crate::lower::builder::Builder;
use crate::lower::modifiers::Modifiers;
use crate::lower::place::Place;
use crate::lower::{cfg, error, operand_error};
use crate::module::{Instruction, Item, LabelId, Operand};
use crate::op::{
    BarrierOp, BarrierReduction, Call, CallTarget, Instr, NONE, Op, Pc, ReductionKind,
};
use crate::ty::{Space, Ty};

impl Builder<'_> {
    /// Lowers the current function and links it to the end of the program; gives its entry.
    pub fn lower_function(&mut self) -> Result<Pc> {
        self.code.clear();
        self.labels.clear();
        let function = self.function;
        for item in &function.items {
            match item {
                Item::Label(label) => self.labels.push((*label, self.code.len())),
                Item::Instruction(instruction) => self.lower_guarded(instruction)?,
            }
        }
        // Control that runs off the end returns, as in ptxas.
        self.emit(Op::Return);
        self.resolve_labels();
        let no_return: Vec<bool> = self
            .code
            .iter()
            .map(|instr| self.never_returns(instr))
            .collect();
        let points = cfg::reconvergence(&self.code, |at| no_return[at]);
        Ok(self.link(&points))
    }

    fn lower_guarded(&mut self, at: &Instruction) -> Result<()> {
        let start = self.code.len();
        self.lower_instruction(at)?;
        let guard = at
            .guard
            .map(|(register, inverted)| (self.column(register), inverted));
        for instr in &mut self.code[start..] {
            instr.line = at.line;
            if let Some((column, inverted)) = guard {
                instr.guard = column;
                instr.guard_inverted = inverted;
            }
        }
        Ok(())
    }

    fn lower_instruction(&mut self, at: &Instruction) -> Result<()> {
        let (name, mut modifiers) = Modifiers::new(at);
        let done = self.lower_control(at, name, &mut modifiers)?
            || self.lower_data(at, name, &mut modifiers)?
            || self.lower_warp(at, name, &mut modifiers)?
            || self.lower_alu(at, name, &mut modifiers)?;
        if !done {
            return Err(modifiers.unknown());
        }
        modifiers.finish()
    }

    fn lower_control(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<bool> {
        match name {
            "bra" => {
                m.take("uni");
                let [Operand::Label(label)] = at.operands[..] else {
                    return Err(operand_error(at, "not a label"));
                };
                self.emit(Op::Branch {
                    target: label,
                    reconverge: NONE,
                });
            }
            "brx" => {
                m.take("uni");
                if !m.take("idx") {
                    return Err(m.unknown());
                }
                let [index, Operand::Symbol { name, .. }] = &at.operands[..] else {
                    return Err(operand_error(at, "not an index and a table"));
                };
                let index = self.src(at, index, Ty::U32)?;
                let tables = &self.function.branch_tables;
                let Some((_, labels)) = tables.iter().find(|(table, _)| table == name) else {
                    return Err(error(at, ParseErrorKind::Undeclared));
                };
                let targets = labels.clone().into_boxed_slice();
                self.emit(Op::BranchIndexed {
                    index,
                    targets,
                    reconverge: NONE,
                });
            }
            "ret" => {
                m.take("uni");
                self.emit(Op::Return);
            }
            "exit" => self.emit(Op::Exit),
            "trap" => self.emit(Op::Trap),
            "brkpt" | "pmevent" => self.emit(Op::Nop),
            "nanosleep" => {
                m.ty()?;
                self.emit(Op::Nop);
            }
            "call" => {
                m.take("uni");
                self.call(at)?;
            }
            "bar" | "barrier" => return self.barrier(at, name, m),
            // One grid runs after the other here: what waits was satisfied long ago, and is only checked.
            "griddepcontrol" => {
                let waits = m.one_of(&[("wait", true), ("launch_dependents", false)])?;
                self.emit(if waits { Op::GridWait } else { Op::GridTrigger });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn call(&mut self, at: &Instruction) -> Result<()> {
        let mut operands = at.operands.iter().peekable();
        let mut group = |wanted: bool| match operands.peek() {
            Some(Operand::Group(elements)) if wanted => {
                operands.next();
                elements.as_slice()
            }
            _ => &[],
        };
        let results = group(true);
        let target = match operands.next() {
            Some(Operand::Symbol { name, .. }) => match self.callee(name) {
                Some(callee) => CallTarget::Function(callee),
                None if self.parsed.declared.contains(name) => {
                    let reason = format!("`{name}` is declared and not defined");
                    return Err(error(at, ParseErrorKind::Call(reason)));
                }
                None => return Err(error(at, ParseErrorKind::Undeclared)),
            },
            Some(operand @ Operand::Register(_)) => {
                CallTarget::Pointer(self.src(at, operand, Ty::B64)?)
            }
            _ => return Err(operand_error(at, "not a function")),
        };
        let arguments = match operands.peek() {
            Some(Operand::Group(elements)) => elements.as_slice(),
            _ => &[],
        };
        let arguments = self.call_storage(at, arguments)?;
        let results = self.call_storage(at, results)?;
        if let CallTarget::Function(callee) = target {
            let callee = &self.program.targets[callee];
            let agree = |actual: &[(u32, u32)], formal: &[(u32, u32)]| {
                actual.len() == formal.len()
                    && actual
                        .iter()
                        .zip(formal)
                        .all(|(actual, formal)| actual.1 == formal.1)
            };
            if !agree(&arguments, &callee.params) || !agree(&results, &callee.returns) {
                return Err(operand_error(at, "arguments differ from the declaration"));
            }
        }
        self.emit(Op::Call(Box::new(Call {
            target,
            arguments,
            results,
        })));
        Ok(())
    }

    fn call_storage(&mut self, at: &Instruction, operands: &[Operand]) -> Result<Vec<(u32, u32)>> {
        let mut places = Vec::with_capacity(operands.len());
        for operand in operands {
            let Operand::Local { variable, .. } = operand else {
                return Err(operand_error(at, "arguments must be `.param` variables"));
            };
            let size = self.function.variables[*variable as usize].size;
            match self.place(at, operand)? {
                Place::Fixed(Space::Param, address) => places.push((address, size)),
                _ => return Err(operand_error(at, "arguments must be `.param` variables")),
            }
        }
        Ok(places)
    }

    fn barrier(&mut self, at: &Instruction, name: &str, m: &mut Modifiers) -> Result<bool> {
        if m.take("warp") {
            if !m.take("sync") {
                return Err(m.unknown());
            }
            let [members] = &at.operands[..] else {
                return Err(operand_error(at, "expected a member mask"));
            };
            let members = self.src(at, members, Ty::B32)?;
            self.emit(Op::Warp(Box::new(crate::op::WarpOp::Sync { members })));
            return Ok(true);
        }
        m.take("cta");
        let aligned = m.take("aligned") || name == "bar";
        let arrive_only = m.take("arrive");
        let reduction = if m.take("red") {
            let kind = m.one_of(&[
                ("popc", ReductionKind::Popc),
                ("and", ReductionKind::And),
                ("or", ReductionKind::Or),
            ])?;
            m.ty()?;
            Some(kind)
        } else {
            if !arrive_only && !m.take("sync") {
                return Err(m.unknown());
            }
            None
        };
        let mut operands = &at.operands[..];
        let mut reduce = None;
        if let Some(kind) = reduction {
            let ([d, rest @ .., source], true) = (operands, operands.len() >= 3) else {
                return Err(operand_error(at, "expected result, barrier and predicate"));
            };
            let (source, negated) = self.src_pred(at, source)?;
            let d = match kind {
                ReductionKind::Popc => self.dst(at, d, Ty::U32)?,
                ReductionKind::And | ReductionKind::Or => self.dst_pred(at, d)?,
            };
            reduce = Some(BarrierReduction {
                kind,
                source,
                negated,
                d,
            });
            operands = rest;
        }
        let (id, threads) = match operands {
            [id] if !arrive_only => (self.src(at, id, Ty::U32)?, NONE),
            [id, threads] => (self.src(at, id, Ty::U32)?, self.src(at, threads, Ty::U32)?),
            _ => return Err(operand_error(at, "expected a barrier and a thread count")),
        };
        let barrier = BarrierOp {
            id,
            threads,
            arrive_only,
            aligned,
            reduction: reduce,
        };
        self.emit(Op::Barrier(barrier));
        Ok(true)
    }

    fn resolve_labels(&mut self) {
        let mut positions = vec![self.code.len() - 1; self.function.label_count];
        for (label, position) in &self.labels {
            positions[*label as usize] = *position;
        }
        let position = |label: LabelId| positions[label as usize] as Pc;
        for instr in &mut self.code {
            match &mut instr.op {
                Op::Branch { target, .. } => *target = position(*target),
                Op::BranchIndexed { targets, .. } => {
                    targets
                        .iter_mut()
                        .for_each(|target| *target = position(*target));
                }
                _ => {}
            }
        }
    }

    /// Whether a call's function has no way to return.
    fn never_returns(&self, instr: &Instr) -> bool {
        let Op::Call(call) = &instr.op else {
            return false;
        };
        let CallTarget::Function(target) = call.target else {
            return false;
        };
        let name = &self.program.callees[target];
        let function = self
            .parsed
            .functions
            .iter()
            .find(|function| function.name == *name);
        function.is_some_and(|function| {
            !function
                .instructions()
                .any(|instruction| instruction.opcode.starts_with("ret"))
        })
    }

    /// Inserts the joins and appends the code to the program.
    fn link(&mut self, points: &[Pc]) -> Pc {
        let base = self.program.code.len();
        let mut has_join = vec![false; self.code.len()];
        for &point in points {
            if point != NONE {
                has_join[point as usize] = true;
            }
        }
        let mut moved = Vec::with_capacity(self.code.len());
        let mut next = base;
        for &join in &has_join {
            moved.push(next as Pc);
            next += 1 + usize::from(join);
        }
        for (at, mut instr) in self.code.drain(..).enumerate() {
            if has_join[at] {
                let line = instr.line;
                let join = Instr {
                    guard: NONE,
                    guard_inverted: false,
                    line,
                    op: Op::Join,
                };
                self.program.code.push(join);
            }
            let meet = |point: Pc| {
                if point == NONE {
                    NONE
                } else {
                    moved[point as usize]
                }
            };
            match &mut instr.op {
                Op::Branch { target, reconverge } => {
                    *target = moved[*target as usize];
                    *reconverge = meet(points[at]);
                }
                Op::BranchIndexed {
                    targets,
                    reconverge,
                    ..
                } => {
                    targets
                        .iter_mut()
                        .for_each(|target| *target = moved[*target as usize]);
                    *reconverge = meet(points[at]);
                }
                _ => {}
            }
            self.program.code.push(instr);
        }
        base as Pc
    }
}
