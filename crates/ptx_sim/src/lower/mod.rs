//! From parsed functions to executable programs, one per kernel.
//!
//! A program holds the kernel and every function it reaches, linked into one instruction list with
//! registers of its own for each function: recursion is refused, so lanes that are in one function
//! at different call sites never share a register's lane.

mod alu;
mod bits;
pub(crate) mod builder;
mod carry;
mod cfg;
mod compare;
mod control;
mod convert;
mod data;
mod float;
mod mma;
mod modifiers;
mod multiply;
mod operand;
mod place;
mod warp;

use std::collections::{HashMap, HashSet};

use crate::error::{ParseError, ParseErrorKind, Result};
use crate::lower::builder::Builder;
use crate::module::{Function, Instruction, Operand};
use crate::op::{D, Instr, P, Pc, R};
use crate::parse::Parsed;
use crate::special::SpecialRegister;

/// Offset of the first byte of shared memory: the device keeps the first KiB of a block's shared
/// memory to itself, and a null pointer into it should fault.
pub(crate) const SHARED_BASE: u32 = 1024;
/// Offset of the first byte of local memory, for the same reason.
pub(crate) const LOCAL_BASE: u32 = 256;

/// An executable kernel.
#[derive(Debug)]
pub(crate) struct Program {
    pub code: Vec<Instr>,
    pub entry: Pc,
    pub registers32: usize,
    pub registers64: usize,
    pub predicates: usize,
    pub constants32: Vec<(R, u32)>,
    pub constants64: Vec<(D, Constant)>,
    pub specials: Vec<(SpecialRegister, u32)>,
    /// Names of the columns, for reports.
    pub names32: HashMap<R, String>,
    pub names64: HashMap<D, String>,
    pub names_pred: HashMap<P, String>,
    pub targets: Vec<Callee>,
    pub static_shared_bytes: u32,
    pub uses_dynamic_shared: bool,
    /// End of the local frame, arguments of calls included.
    pub frame_bytes: u32,
    /// Bytes of the declared local arrays.
    pub local_bytes: u32,
    /// Width of the narrowest access that can reach shared or global memory.
    pub granule: u32,
    pub callees: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Constant {
    Value(u64),
    /// Address of a variable of the module.
    Variable {
        index: usize,
        offset: i64,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Callee {
    pub entry: Pc,
    /// Local addresses and sizes of the formal parameters and results.
    pub params: Vec<(u32, u32)>,
    pub returns: Vec<(u32, u32)>,
}

/// An error at an instruction.
pub(crate) fn error(at: &Instruction, kind: ParseErrorKind) -> ParseError {
    ParseError {
        line: at.line,
        column: at.column,
        token: at.text.clone(),
        kind,
    }
}

pub(crate) fn operand_error(at: &Instruction, reason: &str) -> ParseError {
    error(at, ParseErrorKind::Operand(reason.to_owned()))
}

/// Decodes every function; gives one program per kernel, in the order of the text.
pub(crate) fn lower(parsed: &Parsed) -> Result<Vec<Program>> {
    let index: HashMap<&str, usize> = parsed
        .functions
        .iter()
        .enumerate()
        .map(|(index, function)| (function.name.as_str(), index))
        .collect();
    let graph: Vec<Vec<usize>> = parsed
        .functions
        .iter()
        .map(|function| mentions(function, &index))
        .collect();
    let mut programs = Vec::new();
    let mut reached = HashSet::new();
    for (root, function) in parsed.functions.iter().enumerate() {
        if function.is_entry {
            let order = reachable(parsed, &graph, root)?;
            reached.extend(order.iter().copied());
            programs.push(Builder::program(parsed, &order)?);
        }
    }
    // Functions that no kernel reaches are still decoded, for their errors.
    for root in 0..parsed.functions.len() {
        if !reached.contains(&root) {
            let order = reachable(parsed, &graph, root)?;
            reached.extend(order.iter().copied());
            Builder::program(parsed, &order)?;
        }
    }
    Ok(programs)
}

/// Functions that the instructions of a function name.
fn mentions(function: &Function, index: &HashMap<&str, usize>) -> Vec<usize> {
    fn visit(operand: &Operand, found: &mut impl FnMut(&str)) {
        match operand {
            Operand::Symbol { name, .. } => found(name),
            Operand::Memory { base, .. } => visit(base, found),
            Operand::Vector(elements) | Operand::Group(elements) => {
                for element in elements {
                    visit(element, found);
                }
            }
            _ => {}
        }
    }
    let mut mentioned = Vec::new();
    for instruction in function.instructions() {
        for operand in &instruction.operands {
            visit(operand, &mut |name| {
                if let Some(&callee) = index.get(name)
                    && !mentioned.contains(&callee)
                {
                    mentioned.push(callee);
                }
            });
        }
    }
    mentioned
}

/// The functions reached from `root`, itself first.
fn reachable(parsed: &Parsed, graph: &[Vec<usize>], root: usize) -> Result<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut state = vec![State::New; graph.len()];
    let mut order = Vec::new();
    let mut stack = vec![(root, 0)];
    state[root] = State::Open;
    order.push(root);
    while let Some((function, next)) = stack.last_mut() {
        let Some(&callee) = graph[*function].get(*next) else {
            state[*function] = State::Done;
            stack.pop();
            continue;
        };
        *next += 1;
        match state[callee] {
            State::Done => {}
            State::New => {
                state[callee] = State::Open;
                order.push(callee);
                stack.push((callee, 0));
            }
            State::Open => {
                let function = &parsed.functions[callee];
                return Err(ParseError {
                    line: function.line,
                    column: 1,
                    token: function.name.clone(),
                    kind: ParseErrorKind::Call("recursion".into()),
                });
            }
        }
    }
    Ok(order)
}
