//! Operations that lanes of a warp perform together.

use crate::exec::atomic;
use crate::exec::matrix;
use crate::exec::registers::{LANES, lanes};
use crate::exec::report::{Outcome, invalid, lane as lane_fault, undefined};
use crate::exec::state::BlockState;
use crate::exec::warp::{State, Warp};
use crate::op::{AtomicOp, AtomicTy, Column, NONE, ShuffleMode, VoteMode, WarpOp};

/// The current split comes to a warp operation with the lanes `on`; whether it can go on.
pub(super) fn reach(
    block: &mut BlockState,
    warp: &mut Warp,
    op: &WarpOp,
    on: u32,
) -> Outcome<bool> {
    let members = members(warp, op, on)?;
    let needed = members & warp.live;
    if on & needed == needed {
        run(block, warp, op, on)?;
        warp.splits[warp.current].pc += 1;
        return Ok(true);
    }
    let split = warp.splits[warp.current];
    if on != split.mask {
        warp.part(split.mask & !on, split.pc + 1);
    }
    warp.splits[warp.current].state = State::AtWarpOp;
    // Lanes that parted may come one group after the other.
    let here =
        |other: &crate::exec::warp::Split| other.state == State::AtWarpOp && other.pc == split.pc;
    let gathered = warp
        .splits
        .iter()
        .filter(|other| here(other))
        .fold(0, |m, other| m | other.mask);
    if gathered & needed != needed {
        return Ok(false);
    }
    run(block, warp, op, gathered)?;
    for other in warp.splits.iter_mut().filter(|other| here(other)) {
        other.pc += 1;
        other.state = State::Ready;
    }
    Ok(true)
}

/// The lanes that take part; matrix operations need the whole warp.
fn members(warp: &Warp, op: &WarpOp, on: u32) -> Outcome<u32> {
    let column = match op {
        WarpOp::Sync { members }
        | WarpOp::Shuffle { members, .. }
        | WarpOp::Vote { members, .. }
        | WarpOp::MatchAny { members, .. }
        | WarpOp::MatchAll { members, .. }
        | WarpOp::Reduce { members, .. } => *members,
        WarpOp::LoadMatrix { .. } | WarpOp::StoreMatrix { .. } | WarpOp::Mma(_) => {
            if warp.live != u32::MAX {
                return Err(invalid("matrix operation in a warp without all 32 lanes"));
            }
            return Ok(u32::MAX);
        }
    };
    if warp.registers.defined32[column as usize] & on != on {
        return Err(undefined("a member mask"));
    }
    let masks = &warp.registers.r32[column as usize];
    let first = masks[on.trailing_zeros() as usize];
    for lane in lanes(on) {
        if masks[lane] != first {
            return Err(lane_fault(
                invalid("lanes disagree on the member mask").kind,
                lane,
            ));
        }
        if first >> lane & 1 == 0 {
            return Err(lane_fault(
                invalid("a lane that is not a member").kind,
                lane,
            ));
        }
    }
    Ok(first)
}

fn run(block: &mut BlockState, warp: &mut Warp, op: &WarpOp, on: u32) -> Outcome<()> {
    match op {
        WarpOp::LoadMatrix {
            address,
            d,
            transposed,
        } => {
            return matrix::load(block, warp, address, d, *transposed);
        }
        WarpOp::StoreMatrix {
            address,
            a,
            transposed,
        } => {
            return matrix::store(block, warp, address, a, *transposed);
        }
        WarpOp::Mma(op) => return matrix::multiply(warp, op),
        WarpOp::Sync { .. } => {}
        WarpOp::Shuffle { .. } => shuffle(warp, op, on)?,
        WarpOp::Vote {
            mode,
            d,
            a,
            negated,
            ..
        } => vote(warp, *mode, *d, (*a, *negated), on)?,
        WarpOp::MatchAny { d, a, .. } => match_any(warp, *d, *a, on)?,
        WarpOp::MatchAll { d, all, a, .. } => match_all(warp, *d, *all, *a, on)?,
        WarpOp::Reduce {
            op, signed, d, a, ..
        } => reduce(warp, *op, *signed, (*d, *a), on)?,
    }
    warp.clock.tick();
    Ok(())
}

fn shuffle(warp: &mut Warp, op: &WarpOp, on: u32) -> Outcome<()> {
    let WarpOp::Shuffle {
        mode,
        d,
        in_range,
        a,
        b,
        c,
        ..
    } = *op
    else {
        return Ok(());
    };
    let registers = &mut warp.registers;
    let known = &registers.defined32;
    if known[b as usize] & known[c as usize] & on != on {
        return Err(undefined("a shuffle's lane operand"));
    }
    let values = registers.r32[a as usize];
    let defined = registers.defined32[a as usize];
    let mut out = [0; LANES];
    let (mut in_bounds, mut out_defined) = (0u32, 0u32);
    for lane in lanes(on) {
        let offset = registers.r32[b as usize][lane] & 31;
        let control = registers.r32[c as usize][lane];
        let (clamp, segment) = (control & 31, control >> 8 & 31);
        let here = lane as u32;
        let max = here & segment | clamp & !segment;
        let min = here & segment;
        let (source, valid) = match mode {
            ShuffleMode::Up => (
                here.wrapping_sub(offset),
                here as i32 - offset as i32 >= max as i32,
            ),
            ShuffleMode::Down => (here + offset, here + offset <= max),
            ShuffleMode::Butterfly => (here ^ offset, here ^ offset <= max),
            ShuffleMode::Index => {
                let source = min | offset & !segment;
                (source, source <= max)
            }
        };
        let source = if valid { source as usize } else { lane };
        if on >> source & 1 == 0 {
            let fault = invalid("a shuffle reads a lane that does not take part");
            return Err(lane_fault(fault.kind, lane));
        }
        out[lane] = values[source];
        out_defined |= (defined >> source & 1) << lane;
        in_bounds |= u32::from(valid) << lane;
    }
    registers.write32(d, on, &out);
    registers.define32(d, on, out_defined);
    if in_range != NONE {
        registers.write_pred(in_range, on, in_bounds, on);
    }
    Ok(())
}

fn vote(
    warp: &mut Warp,
    mode: VoteMode,
    d: u32,
    (a, negated): (u32, bool),
    on: u32,
) -> Outcome<()> {
    let registers = &mut warp.registers;
    if registers.defined_pred[a as usize] & on != on {
        return Err(undefined("a vote"));
    }
    let value = registers.pred[a as usize];
    let ballot = if negated { !value } else { value } & on;
    let truth = match mode {
        VoteMode::Ballot => {
            registers.write32(d, on, &[ballot; LANES]);
            registers.define32(d, on, on);
            return Ok(());
        }
        VoteMode::All => ballot == on,
        VoteMode::Any => ballot != 0,
        VoteMode::Uniform => ballot == on || ballot == 0,
    };
    registers.write_pred(d, on, if truth { u32::MAX } else { 0 }, on);
    Ok(())
}

fn match_any(warp: &mut Warp, d: u32, a: Column, on: u32) -> Outcome<()> {
    if !warp.registers.is_defined(a, on) {
        return Err(undefined("a matched value"));
    }
    let mut out = [0; LANES];
    for lane in lanes(on) {
        let own = warp.registers.get(a, lane);
        let equal = lanes(on).filter(|other| warp.registers.get(a, *other) == own);
        out[lane] = equal.fold(0, |mask, other| mask | 1 << other);
    }
    warp.registers.write32(d, on, &out);
    warp.registers.define32(d, on, on);
    Ok(())
}

fn match_all(warp: &mut Warp, d: u32, all: u32, a: Column, on: u32) -> Outcome<()> {
    if !warp.registers.is_defined(a, on) {
        return Err(undefined("a matched value"));
    }
    let first = warp.registers.get(a, on.trailing_zeros() as usize);
    let equal = lanes(on).all(|lane| warp.registers.get(a, lane) == first);
    warp.registers
        .write32(d, on, &[if equal { on } else { 0 }; LANES]);
    warp.registers.define32(d, on, on);
    if all != NONE {
        warp.registers
            .write_pred(all, on, if equal { u32::MAX } else { 0 }, on);
    }
    Ok(())
}

fn reduce(warp: &mut Warp, op: AtomicOp, signed: bool, (d, a): (u32, u32), on: u32) -> Outcome<()> {
    let registers = &mut warp.registers;
    if registers.defined32[a as usize] & on != on {
        return Err(undefined("a reduced value"));
    }
    let ty = if signed { AtomicTy::S32 } else { AtomicTy::U32 };
    let values = registers.r32[a as usize];
    let result = lanes(on)
        .map(|lane| u64::from(values[lane]))
        .reduce(|sum, value| atomic::apply(op, ty, sum, value, 0))
        .unwrap_or_default();
    registers.write32(d, on, &[result as u32; LANES]);
    registers.define32(d, on, on);
    Ok(())
}
