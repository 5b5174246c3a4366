//! The typed module: what a PTX text declares.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::dependence::{self, BeforeWait};
use crate::error::ParseError;
use crate::lower::{self, Program};
use crate::op::Op;
use crate::parse;
use crate::special::SpecialRegister;
use crate::ty::{Space, Ty};

/// A parsed PTX text, with every kernel ready to run.
#[derive(Debug)]
pub struct Module {
    pub(crate) id: u64,
    pub(crate) source: Arc<Source>,
    pub(crate) variables: Vec<Variable>,
    functions: Vec<Function>,
    kernels: Vec<Kernel>,
    /// Whether a kernel waits for launches before it.
    pub(crate) waits_for_launches: bool,
}

impl Module {
    /// Parses a PTX text and decodes every function of it.
    ///
    /// # Errors
    /// Anything the text gets wrong or the simulator does not know, with its line and column.
    pub fn parse(text: &str) -> Result<Module, ParseError> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let parsed = parse::parse(text)?;
        let source = Arc::new(Source {
            lines: text.lines().map(str::to_owned).collect(),
        });
        let programs = lower::lower(&parsed)?;
        let parse::Parsed {
            functions,
            variables,
            ..
        } = parsed;
        let (entries, functions): (Vec<_>, Vec<_>) = functions
            .into_iter()
            .partition(|function| function.is_entry);
        let kernels: Vec<Kernel> = entries
            .into_iter()
            .zip(programs)
            .map(|(function, program)| Kernel { function, program })
            .collect();
        let waits = |kernel: &Kernel| {
            kernel
                .program
                .code
                .iter()
                .any(|i| matches!(i.op, Op::GridWait))
        };
        let waits_for_launches = kernels.iter().any(waits);
        Ok(Module {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            source,
            variables,
            functions,
            kernels,
            waits_for_launches,
        })
    }

    /// The kernels, in the order of the text.
    pub fn kernels(&self) -> impl ExactSizeIterator<Item = &Kernel> {
        self.kernels.iter()
    }

    /// The kernel of that name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name() == name)
    }

    /// The device functions that are not kernels.
    pub fn functions(&self) -> impl ExactSizeIterator<Item = &Function> {
        self.functions.iter()
    }

    /// One line of the text, by its one-based number.
    pub fn source_line(&self, line: u32) -> Option<&str> {
        self.source.line(line)
    }
}

#[derive(Debug)]
pub(crate) struct Source {
    lines: Vec<String>,
}

impl Source {
    pub fn line(&self, line: u32) -> Option<&str> {
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        self.lines.get(index).map(String::as_str)
    }
}

/// An `.entry` function.
#[derive(Debug)]
pub struct Kernel {
    function: Function,
    pub(crate) program: Program,
}

impl Kernel {
    /// The entry's name.
    pub fn name(&self) -> &str {
        &self.function.name
    }

    /// The entry itself: parameters, instructions, source line.
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// The parameters in order.
    pub fn params(&self) -> &[Param] {
        &self.function.params
    }

    /// The size of the packed parameter buffer.
    pub fn param_bytes(&self) -> u32 {
        self.function
            .params
            .last()
            .map_or(0, |param| param.offset + param.size)
    }

    /// Bytes of shared memory that the kernel and its callees declare with a size.
    pub fn static_shared_bytes(&self) -> u32 {
        self.program.static_shared_bytes
    }

    /// Whether the kernel or a callee names an unsized `.extern .shared` array.
    pub fn uses_dynamic_shared(&self) -> bool {
        self.program.uses_dynamic_shared
    }

    /// Bytes of local memory a thread needs: the declared arrays of the kernel and its callees.
    pub fn local_bytes(&self) -> u32 {
        self.program.local_bytes
    }

    /// Names of the device functions that the kernel reaches by calls or address.
    pub fn callees(&self) -> &[String] {
        &self.program.callees
    }

    /// What the kernel, or a function that it calls, may do before `griddepcontrol.wait`.
    pub fn before_wait(&self) -> BeforeWait {
        dependence::before_wait(&self.program)
    }

    /// The instructions of the entry, without its callees'.
    pub fn instructions(&self) -> impl Iterator<Item = &Instruction> {
        self.function.instructions()
    }
}

/// An `.entry` or `.func` with a body.
#[derive(Debug)]
pub struct Function {
    pub(crate) name: String,
    pub(crate) is_entry: bool,
    pub(crate) line: u32,
    pub(crate) params: Vec<Param>,
    pub(crate) returns: Vec<Param>,
    pub(crate) registers: Vec<Register>,
    pub(crate) variables: Vec<Variable>,
    pub(crate) items: Vec<Item>,
    pub(crate) label_count: usize,
    pub(crate) branch_tables: Vec<(String, Vec<LabelId>)>,
    pub(crate) bounds: LaunchBounds,
}

impl Function {
    /// The function's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The line of its declaration.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// `.maxntid`, `.reqntid` and `.minnctapersm`.
    pub fn launch_bounds(&self) -> &LaunchBounds {
        &self.bounds
    }

    /// The instructions in order.
    pub fn instructions(&self) -> impl Iterator<Item = &Instruction> {
        self.items.iter().filter_map(|item| match item {
            Item::Instruction(instruction) => Some(instruction),
            Item::Label(_) => None,
        })
    }
}

/// Launch limits that a kernel's directives state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaunchBounds {
    /// `.maxntid`: at most that many threads in all.
    pub max_threads: Option<[u32; 3]>,
    /// `.reqntid`: exactly that block.
    pub required_threads: Option<[u32; 3]>,
    /// `.minnctapersm`: resident blocks wanted on a multiprocessor.
    pub min_blocks: Option<u32>,
}

/// One parameter of a function, at its place in the packed buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// The parameter's PTX name.
    pub name: String,
    /// Bytes.
    pub size: u32,
    /// Alignment in bytes.
    pub align: u32,
    /// Offset in the packed parameter buffer.
    pub offset: u32,
}

/// One instruction of the text.
#[derive(Debug)]
pub struct Instruction {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) opcode: String,
    pub(crate) text: String,
    pub(crate) guard: Option<(RegisterId, bool)>,
    pub(crate) operands: Vec<Operand>,
}

impl Instruction {
    /// The opcode with its modifiers: `ld.global.v4.u32`.
    pub fn opcode(&self) -> &str {
        &self.opcode
    }

    /// The whole instruction as written, without its semicolon.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// One-based line of the text.
    pub fn line(&self) -> u32 {
        self.line
    }
}

pub(crate) type RegisterId = u32;
pub(crate) type LabelId = u32;

#[derive(Clone, Debug)]
pub(crate) struct Register {
    pub name: String,
    pub ty: Ty,
}

#[derive(Debug)]
pub(crate) enum Item {
    Label(LabelId),
    Instruction(Instruction),
}

#[derive(Clone, Debug)]
pub(crate) enum Operand {
    Register(RegisterId),
    Special(SpecialRegister),
    Int(u64),
    F32(u32),
    F64(f64),
    /// A variable declared in the function, by index.
    Local {
        variable: u32,
        offset: i64,
    },
    /// A name of the module's scope.
    Symbol {
        name: String,
        offset: i64,
    },
    /// A code label.
    Label(LabelId),
    Memory {
        base: Box<Operand>,
        offset: i64,
    },
    /// `[t, {x, y}]`: a place in a texture, a surface or a tensor, which no instruction here takes.
    Texel,
    Vector(Vec<Operand>),
    Group(Vec<Operand>),
    Pair(Box<Operand>, Box<Operand>),
    Not(Box<Operand>),
    Discard,
}

/// A declared variable.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub name: String,
    pub space: Space,
    pub align: u32,
    /// Bytes; zero for an unsized `.extern` array.
    pub size: u32,
    pub is_unsized: bool,
    pub initial: Vec<Initial>,
}

/// A piece of a variable's initial value at a byte offset.
#[derive(Clone, Debug)]
pub(crate) enum Initial {
    Bytes {
        offset: u32,
        bytes: Vec<u8>,
    },
    Address {
        offset: u32,
        symbol: String,
        addend: i64,
    },
}
