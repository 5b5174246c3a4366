//! Reconvergence points: the immediate post-dominator of every branch.
//!
//! Traps, exits, calls that do not return and endless loops lead nowhere; paths into them do not
//! count, so that lanes meet again after a bounds check whose other side panics.

use crate::op::{Instr, NONE, Op, Pc};

/// The instruction index at which lanes that part at each branch meet again, per instruction;
/// [`NONE`] where they do not. Branch targets in `code` are instruction indices.
pub(super) fn reconvergence(code: &[Instr], no_return: impl Fn(usize) -> bool) -> Vec<Pc> {
    let blocks = Blocks::new(code, no_return);
    let order = blocks.reverse_postorder();
    let dominators = blocks.post_dominators(&order);
    let mut points = vec![NONE; code.len()];
    for (block, range) in blocks.ranges.windows(2).enumerate() {
        let last = range[1] - 1;
        if matches!(code[last].op, Op::Branch { .. } | Op::BranchIndexed { .. }) {
            let point = dominators[block];
            if point < blocks.exit() {
                points[last] = blocks.ranges[point] as Pc;
            }
        }
    }
    points
}

struct Blocks {
    /// First instruction of each block, and the end.
    ranges: Vec<usize>,
    successors: Vec<Vec<usize>>,
    predecessors: Vec<Vec<usize>>,
}

const UNKNOWN: usize = usize::MAX;

impl Blocks {
    fn new(code: &[Instr], no_return: impl Fn(usize) -> bool) -> Blocks {
        let mut leaders = vec![false; code.len() + 1];
        leaders[0] = true;
        leaders[code.len()] = true;
        for (at, instr) in code.iter().enumerate() {
            match &instr.op {
                Op::Branch { target, .. } => leaders[*target as usize] = true,
                Op::BranchIndexed { targets, .. } => {
                    targets
                        .iter()
                        .for_each(|target| leaders[*target as usize] = true);
                }
                Op::Return | Op::Exit | Op::Trap | Op::Call(_) => {}
                _ => continue,
            }
            leaders[at + 1] = true;
        }
        let ranges: Vec<usize> = (0..=code.len()).filter(|at| leaders[*at]).collect();
        let mut block_of = vec![UNKNOWN; code.len() + 1];
        for (block, start) in ranges.iter().enumerate() {
            block_of[*start] = block;
        }
        let exit = ranges.len() - 1;
        let mut successors = vec![Vec::new(); ranges.len()];
        for block in 0..exit {
            let last = ranges[block + 1] - 1;
            let instr = &code[last];
            let guarded = instr.guard != NONE;
            let next = block + 1;
            let out: &mut Vec<usize> = &mut successors[block];
            match &instr.op {
                Op::Branch { target, .. } => {
                    out.push(block_of[*target as usize]);
                    if guarded {
                        out.push(next);
                    }
                }
                Op::BranchIndexed { targets, .. } => {
                    out.extend(targets.iter().map(|target| block_of[*target as usize]));
                    if guarded {
                        out.push(next);
                    }
                }
                Op::Return if !guarded => out.push(exit),
                Op::Exit | Op::Trap if !guarded => {}
                Op::Call(_) if no_return(last) && !guarded => {}
                _ => out.push(next),
            }
        }
        let mut predecessors = vec![Vec::new(); ranges.len()];
        for (block, out) in successors.iter().enumerate() {
            for &successor in out {
                predecessors[successor].push(block);
            }
        }
        Blocks {
            ranges,
            successors,
            predecessors,
        }
    }

    /// The virtual block after every return.
    fn exit(&self) -> usize {
        self.ranges.len() - 1
    }

    /// Blocks that reach the exit, the exit first, in reverse postorder of the reversed graph.
    fn reverse_postorder(&self) -> Vec<usize> {
        let mut seen = vec![false; self.ranges.len()];
        let mut order = Vec::new();
        let mut stack = vec![(self.exit(), 0)];
        seen[self.exit()] = true;
        while let Some((block, next)) = stack.last_mut() {
            match self.predecessors[*block].get(*next) {
                Some(&predecessor) => {
                    *next += 1;
                    if !seen[predecessor] {
                        seen[predecessor] = true;
                        stack.push((predecessor, 0));
                    }
                }
                None => {
                    order.push(*block);
                    stack.pop();
                }
            }
        }
        order.reverse();
        order
    }

    /// Cooper, Harvey and Kennedy's iteration on the reversed graph.
    fn post_dominators(&self, order: &[usize]) -> Vec<usize> {
        let mut rank = vec![UNKNOWN; self.ranges.len()];
        for (position, &block) in order.iter().enumerate() {
            rank[block] = position;
        }
        let mut dominator = vec![UNKNOWN; self.ranges.len()];
        dominator[self.exit()] = self.exit();
        let mut changed = true;
        while changed {
            changed = false;
            for &block in &order[1..] {
                let mut found = UNKNOWN;
                for &successor in &self.successors[block] {
                    if rank[successor] == UNKNOWN || dominator[successor] == UNKNOWN {
                        continue;
                    }
                    found = if found == UNKNOWN {
                        successor
                    } else {
                        let (mut a, mut b) = (found, successor);
                        while a != b {
                            while rank[a] > rank[b] {
                                a = dominator[a];
                            }
                            while rank[b] > rank[a] {
                                b = dominator[b];
                            }
                        }
                        a
                    };
                }
                if dominator[block] != found {
                    dominator[block] = found;
                    changed = true;
                }
            }
        }
        dominator
    }
}
