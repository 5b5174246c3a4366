//! What a kernel may do before it waits for the launches ahead of it.

use crate::lower::Program;
use crate::op::{CallTarget, NONE, Op};
use crate::ty::Space;

/// Lines of the PTX text that a thread can reach without `griddepcontrol.wait`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BeforeWait {
    /// Loads and copies of what may be global memory.
    pub reads: Vec<u32>,
    /// Stores and atomics on what may be global memory.
    pub writes: Vec<u32>,
    /// Where the kernel ends.
    pub ends: Vec<u32>,
}

/// Follows every path from the kernel's entry to its first wait; a guard may hold or not.
pub(crate) fn before_wait(program: &Program) -> BeforeWait {
    let mut found = BeforeWait::default();
    let mut seen = vec![false; program.code.len()];
    let mut open = vec![program.entry];
    while let Some(pc) = open.pop() {
        if std::mem::replace(&mut seen[pc as usize], true) {
            continue;
        }
        let instr = &program.code[pc as usize];
        let line = instr.line;
        let mut goes_on = instr.guard != NONE;
        match &instr.op {
            Op::GridWait | Op::Trap => {}
            Op::Return | Op::Exit => found.ends.push(line),
            Op::Branch { target, .. } => open.push(*target),
            Op::BranchIndexed { targets, .. } => open.extend(targets),
            Op::Call(call) => {
                // Whether the callee has waited when it returns is not followed: it counts as if it had not.
                goes_on = true;
                match call.target {
                    CallTarget::Function(callee) => open.push(program.targets[callee].entry),
                    CallTarget::Pointer(_) => {
                        open.extend(program.targets.iter().map(|target| target.entry));
                    }
                }
            }
            op => {
                goes_on = true;
                match op {
                    Op::Load(access) if may_be_global(access.address.space) => {
                        found.reads.push(line);
                    }
                    Op::AsyncCopy(_) => found.reads.push(line),
                    Op::Store(access) if may_be_global(access.address.space) => {
                        found.writes.push(line);
                    }
                    Op::Atomic(atomic) if may_be_global(atomic.address.space) => {
                        found.writes.push(line);
                    }
                    _ => {}
                }
            }
        }
        if goes_on {
            open.push(pc + 1);
        }
    }
    for lines in [&mut found.reads, &mut found.writes, &mut found.ends] {
        lines.sort_unstable();
        lines.dedup();
    }
    found
}

fn may_be_global(space: Space) -> bool {
    matches!(space, Space::Global | Space::Generic)
}
