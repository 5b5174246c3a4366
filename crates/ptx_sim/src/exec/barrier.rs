//! Barriers of a block.

use crate::exec::report::{Outcome, invalid, undefined};
use crate::exec::state::{Barrier, BlockState};
use crate::exec::warp::{State, Warp};
use crate::op::{BarrierOp, Instr, NONE, Op, ReductionKind};

/// The current split, all of its lanes, comes to a barrier.
pub(super) fn reach(block: &mut BlockState, warp: &mut Warp, op: &BarrierOp) -> Outcome<()> {
    let split = warp.splits[warp.current];
    if op.aligned && split.mask != warp.live {
        warp.splits[warp.current].state = State::AtBarrier;
        // The lanes may yet meet; see `gather`.
        return Ok(());
    }
    arrive(block, warp, op, split.mask, &[warp.current])
}

fn check(warp: &Warp, op: &BarrierOp, mask: u32) -> Outcome<(u32, u32)> {
    let first = mask.trailing_zeros() as usize;
    let uniform = |column: u32| {
        let values = &warp.registers.r32[column as usize];
        let same = crate::exec::registers::lanes(mask).all(|lane| values[lane] == values[first]);
        if warp.registers.defined32[column as usize] & mask != mask {
            return Err(undefined("the barrier's operands"));
        }
        if same {
            Ok(values[first])
        } else {
            Err(invalid("barrier operands differ by lane"))
        }
    };
    let id = uniform(op.id)?;
    if id > 15 {
        return Err(invalid("barrier numbers end at 15"));
    }
    let expected = if op.threads == NONE {
        0
    } else {
        uniform(op.threads)?
    };
    if op.threads != NONE && (expected == 0 || expected % 32 != 0) {
        return Err(invalid(
            "a barrier's thread count is a positive multiple of 32",
        ));
    }
    Ok((id, expected))
}

fn arrive(
    block: &mut BlockState,
    warp: &mut Warp,
    op: &BarrierOp,
    mask: u32,
    splits: &[usize],
) -> Outcome<()> {
    let (id, expected) = check(warp, op, mask)?;
    let barrier = &mut block.barriers[id as usize];
    if barrier.arrived != 0 && barrier.expected != expected {
        return Err(invalid("threads disagree on the barrier's thread count"));
    }
    barrier.expected = expected;
    // Counts are in whole warps where the whole warp takes part.
    barrier.arrived += if expected != 0 && op.aligned {
        32
    } else {
        mask.count_ones()
    };
    warp.clock.release(warp.index, &mut barrier.clock);
    if let Some(reduction) = op.reduction {
        let value = warp.registers.pred[reduction.source as usize];
        let value = if reduction.negated { !value } else { value } & mask;
        barrier.count += value.count_ones();
        barrier.all &= value == mask;
        barrier.reduction = Some((reduction.kind, reduction.d));
    }
    for &split in splits {
        let split = &mut warp.splits[split];
        if op.arrive_only {
            split.pc += 1;
            split.state = State::Ready;
        } else {
            split.state = State::InBarrier(id);
        }
    }
    Ok(())
}

/// Lets splits of a warp that wait at the same aligned barrier arrive together; whether they did.
pub(super) fn gather(block: &mut BlockState, warp: &mut Warp, code: &[Instr]) -> Outcome<bool> {
    let waiting: Vec<usize> = (0..warp.splits.len())
        .filter(|at| warp.splits[*at].state == State::AtBarrier)
        .collect();
    let Some(&first) = waiting.first() else {
        return Ok(false);
    };
    let pc = warp.splits[first].pc;
    let same_place = waiting.iter().all(|at| warp.splits[*at].pc == pc);
    let mask = waiting
        .iter()
        .fold(0, |mask, at| mask | warp.splits[*at].mask);
    if !same_place || mask != warp.live {
        return Ok(false);
    }
    let Op::Barrier(op) = &code[pc as usize].op else {
        return Ok(false);
    };
    warp.current = first;
    arrive(block, warp, op, mask, &waiting)?;
    Ok(true)
}

/// Opens the barriers that everyone awaited has reached; whether there was one.
pub(super) fn complete(block: &mut BlockState, warps: &mut [Warp]) -> bool {
    let live: u32 = warps.iter().map(|warp| warp.live.count_ones()).sum();
    let mut opened = false;
    for id in 0..16u32 {
        let barrier = block.barriers[id as usize];
        let expected = if barrier.expected == 0 {
            live
        } else {
            barrier.expected
        };
        if barrier.arrived == 0 || barrier.arrived < expected {
            continue;
        }
        opened = true;
        block.barriers[id as usize] = Barrier::default();
        for warp in warps.iter_mut() {
            for at in 0..warp.splits.len() {
                if warp.splits[at].state != State::InBarrier(id) {
                    continue;
                }
                let split = &mut warp.splits[at];
                split.pc += 1;
                split.state = State::Ready;
                let mask = split.mask;
                warp.clock.acquire(&barrier.clock);
                match barrier.reduction {
                    Some((ReductionKind::Popc, d)) => {
                        warp.registers.write32(d, mask, &[barrier.count; 32]);
                        warp.registers.define32(d, mask, mask);
                    }
                    Some((kind, d)) => {
                        let truth = match kind {
                            ReductionKind::And => barrier.all,
                            _ => barrier.count != 0,
                        };
                        let value = if truth { u32::MAX } else { 0 };
                        warp.registers.write_pred(d, mask, value, mask);
                    }
                    None => {}
                }
            }
        }
    }
    opened
}
