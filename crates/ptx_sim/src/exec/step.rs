//! One warp's turn: arithmetic in stretches, everything else one instruction at a time.

use std::sync::atomic::Ordering::Relaxed;

use crate::exec::launch::Context;
use crate::exec::registers::{LANES, lanes};
use crate::exec::report::{Outcome, invalid, lane, undefined};
use crate::exec::state::BlockState;
use crate::exec::warp::{Meeting, State, Warp};
use crate::exec::{access, alu, async_copy, atomic, barrier, collective};
use crate::fault::FaultKind;
use crate::lower::builder::{FUNCTION_BASE, FUNCTION_STRIDE};
use crate::op::{Call, CallTarget, Column, Instr, NONE, Op, Pc};
use crate::special::SpecialRegister;

/// Instructions after which lanes that wait at a reconvergence point may go ahead.
const PATIENCE: u64 = 1 << 20;

/// Runs a warp until its lanes all wait or have exited, or its turn is over.
pub(super) fn run(
    context: &Context<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    turn: u64,
    executed: &mut u64,
) -> Outcome<()> {
    let end = warp.issued + turn;
    while warp.issued < end && warp.pick() {
        let before = warp.issued;
        run_split(context, block, warp, end, executed)?;
        warp.since_meeting += warp.issued - before;
    }
    if warp.since_meeting > PATIENCE {
        warp.release_waiting();
    }
    if !warp.splits.is_empty() {
        warp.current = (warp.current + 1) % warp.splits.len();
    }
    Ok(())
}

/// Runs the current split until it parts, waits, ends or the turn is over.
fn run_split(
    context: &Context<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    end: u64,
    executed: &mut u64,
) -> Outcome<()> {
    let code = &context.kernel.program.code[..];
    while warp.issued < end {
        let split = warp.splits[warp.current];
        let active = split.mask;
        let count = alu::run(
            &mut warp.registers,
            &code[split.pc as usize..],
            active,
            context.vector,
        );
        let pc = split.pc + count as Pc;
        warp.splits[warp.current].pc = pc;
        let instr = &code[pc as usize];
        let is_join = matches!(instr.op, Op::Join);
        let issued = count as u64 + u64::from(!is_join);
        warp.issued += issued;
        *executed += issued * u64::from(active.count_ones());
        let on = guard(warp, instr, active)?;
        if on == 0 {
            warp.splits[warp.current].pc += 1;
            continue;
        }
        let goes_on = match &instr.op {
            // Arithmetic stops only at a guard without a value.
            Op::Alu(_) => return Err(undefined("a guard")),
            op @ (Op::Branch { .. }
            | Op::BranchIndexed { .. }
            | Op::Join
            | Op::Call(_)
            | Op::Return
            | Op::Exit) => control(context, warp, op, active, on)?,
            Op::Trap => return Err(lane(FaultKind::Trap, on.trailing_zeros() as usize)),
            Op::Barrier(op) => {
                if on != active {
                    warp.part(active & !on, pc + 1);
                }
                barrier::reach(block, warp, op)?;
                op.arrive_only && warp.splits[warp.current].state == State::Ready
            }
            Op::Warp(op) => collective::reach(block, warp, op, on)?,
            op => {
                data(context, block, warp, op, on)?;
                warp.splits[warp.current].pc += 1;
                true
            }
        };
        if !goes_on {
            return Ok(());
        }
    }
    Ok(())
}

/// The active lanes whose guard holds.
fn guard(warp: &Warp, instr: &Instr, active: u32) -> Outcome<u32> {
    if instr.guard == NONE {
        return Ok(active);
    }
    let guard = instr.guard as usize;
    if warp.registers.defined_pred[guard] & active != active {
        return Err(undefined("a guard"));
    }
    let value = warp.registers.pred[guard];
    Ok(active & if instr.guard_inverted { !value } else { value })
}

fn data(
    context: &Context<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    op: &Op,
    on: u32,
) -> Outcome<()> {
    match op {
        Op::Load(op) => access::load(context, block, warp, op, on),
        Op::Store(op) => access::store(context, block, warp, op, on),
        Op::Atomic(op) => atomic::run(context, block, warp, op, on),
        Op::AsyncCopy(op) => async_copy::issue(context, block, warp, op, on),
        Op::AsyncCommit => {
            lanes(on).for_each(|lane| warp.groups[lane] += 1);
            Ok(())
        }
        Op::AsyncWait { pending } => async_copy::wait(block, warp, on, Some(*pending)),
        Op::AsyncWaitAll => async_copy::wait(block, warp, on, None),
        Op::Fence => {
            block.fence(warp);
            Ok(())
        }
        Op::GridWait => {
            warp.early &= !on;
            block.has_waited = true;
            Ok(())
        }
        Op::GridTrigger => {
            if warp.early & on != 0 {
                context.triggers_early.store(true, Relaxed);
            }
            Ok(())
        }
        Op::ActiveMask { d } => {
            warp.registers.write32(*d, on, &[on; LANES]);
            warp.registers.define32(*d, on, on);
            Ok(())
        }
        Op::Clock { register, d } => {
            clock(warp, *register, *d, on);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Clocks count the warp's instructions, so that runs repeat exactly.
fn clock(warp: &mut Warp, register: SpecialRegister, d: Column, on: u32) {
    let value = match register {
        SpecialRegister::ClockHi | SpecialRegister::GlobalTimerHi => warp.issued >> 32,
        _ => warp.issued,
    };
    for lane in lanes(on) {
        warp.registers.set(d, lane, value);
    }
    warp.registers.define(d, on, on);
}

/// Moves the program counter; whether the current split can go on.
fn control(context: &Context<'_>, warp: &mut Warp, op: &Op, active: u32, on: u32) -> Outcome<bool> {
    match op {
        Op::Branch { target, reconverge } => {
            if on == active {
                warp.splits[warp.current].pc = *target;
            } else {
                warp.expect(*reconverge);
                warp.part(on, *target);
                warp.splits[warp.current].pc += 1;
            }
            Ok(true)
        }
        Op::BranchIndexed {
            index,
            targets,
            reconverge,
        } => {
            branch_indexed(warp, *index, targets, *reconverge, active, on)?;
            Ok(true)
        }
        Op::Join => {
            let split = &mut warp.splits[warp.current];
            let meeting = warp.meetings.get(split.meeting as usize);
            let meets =
                meeting.is_some_and(|meeting| meeting.pc == split.pc && meeting.call.is_none());
            if meets {
                let before = warp.splits.len();
                warp.arrive();
                Ok(warp.splits.len() == before)
            } else {
                split.pc += 1;
                Ok(true)
            }
        }
        Op::Call(call) => {
            call_function(context, warp, call, active, on)?;
            Ok(true)
        }
        Op::Return => {
            if on != active {
                warp.part(active & !on, warp.splits[warp.current].pc + 1);
            }
            return_from(context, warp, on)
        }
        _ => {
            if on != active {
                warp.part(active & !on, warp.splits[warp.current].pc + 1);
            }
            warp.exit(on);
            Ok(false)
        }
    }
}

fn branch_indexed(
    warp: &mut Warp,
    index: u32,
    targets: &[Pc],
    reconverge: Pc,
    active: u32,
    on: u32,
) -> Outcome<()> {
    if warp.registers.defined32[index as usize] & on != on {
        return Err(undefined("a branch index"));
    }
    let indices = warp.registers.r32[index as usize];
    if lanes(on).any(|lane| indices[lane] as usize >= targets.len()) {
        return Err(invalid("branch index beyond its table"));
    }
    let target = |lane: usize| targets[indices[lane] as usize];
    let first = target(on.trailing_zeros() as usize);
    let same = |pc: Pc| {
        lanes(on)
            .filter(|lane| target(*lane) == pc)
            .fold(0, |m, l| m | 1 << l)
    };
    if same(first) == active {
        warp.splits[warp.current].pc = first;
        return Ok(());
    }
    warp.expect(reconverge);
    if on != active {
        warp.part(active & !on, warp.splits[warp.current].pc + 1);
    }
    let mut rest = on & !same(first);
    while rest != 0 {
        let pc = target(rest.trailing_zeros() as usize);
        warp.part(same(pc), pc);
        rest &= !same(pc);
    }
    warp.splits[warp.current].pc = first;
    Ok(())
}

fn call_function(
    context: &Context<'_>,
    warp: &mut Warp,
    call: &Call,
    active: u32,
    on: u32,
) -> Outcome<()> {
    let here = warp.splits[warp.current].pc;
    if on != active {
        warp.part(active & !on, here + 1);
    }
    let program = &context.kernel.program;
    let callee = match call.target {
        CallTarget::Function(callee) => callee,
        CallTarget::Pointer(column) => {
            if warp.registers.defined64[column as usize] & on != on {
                return Err(undefined("a function pointer"));
            }
            let pointers = warp.registers.r64[column as usize];
            let pointer = pointers[on.trailing_zeros() as usize];
            let others = lanes(on).filter(|lane| pointers[*lane] != pointer);
            let others = others.fold(0, |mask, lane| mask | 1 << lane);
            if others != 0 {
                // They come back to this instruction by themselves.
                warp.expect(here + 1);
                warp.part(others, here);
            }
            let offset = pointer.wrapping_sub(FUNCTION_BASE);
            let callee = usize::try_from(offset / FUNCTION_STRIDE).unwrap_or(usize::MAX);
            if !offset.is_multiple_of(FUNCTION_STRIDE) || callee >= program.targets.len() {
                return Err(invalid("call of something that is not a function"));
            }
            callee
        }
    };
    let mask = warp.splits[warp.current].mask;
    let target = &program.targets[callee];
    if !fits(&call.arguments, &target.params) || !fits(&call.results, &target.returns) {
        return Err(invalid("arguments differ from the function's declaration"));
    }
    for (from, to) in call.arguments.iter().zip(&target.params) {
        access::copy_local(warp, mask, from.0, to.0, from.1);
    }
    let parent = warp.splits[warp.current].meeting;
    let call = Some(callee);
    let meeting = Meeting {
        pc: here + 1,
        call,
        expected: mask,
        arrived: 0,
        parent,
    };
    let meeting = warp.new_meeting(meeting);
    let split = &mut warp.splits[warp.current];
    split.meeting = meeting;
    split.pc = target.entry;
    Ok(())
}

fn fits(actual: &[(u32, u32)], formal: &[(u32, u32)]) -> bool {
    actual.len() == formal.len() && actual.iter().zip(formal).all(|(a, f)| a.1 == f.1)
}

/// Returns from a function, or ends the thread in the kernel itself.
fn return_from(context: &Context<'_>, warp: &mut Warp, on: u32) -> Outcome<bool> {
    let split = warp.splits[warp.current];
    let meeting = warp.meetings.get(split.meeting as usize).copied();
    let Some((callee, return_pc)) = meeting.and_then(|m| Some((m.call?, m.pc))) else {
        warp.exit(on);
        return Ok(false);
    };
    let program = &context.kernel.program;
    if let Op::Call(call) = &program.code[return_pc as usize - 1].op {
        for (from, to) in program.targets[callee].returns.iter().zip(&call.results) {
            access::copy_local(warp, on, from.0, to.0, from.1);
        }
    }
    let before = warp.splits.len();
    warp.arrive();
    Ok(warp.splits.len() == before)
}
