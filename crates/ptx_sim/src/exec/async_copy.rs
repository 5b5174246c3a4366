//! `cp.async`: the copied bytes land when the copying thread waits for them, not before.

use crate::exec::access::{actor, addresses, check_global_read, global};
use crate::exec::launch::Context;
use crate::exec::registers::lanes;
use crate::exec::report::{Outcome, access, invalid, undefined};
use crate::exec::state::BlockState;
use crate::exec::warp::{Pending, Warp};
use crate::op::AsyncCopy;
use crate::ty::Space;

pub(super) fn issue(
    context: &Context<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    op: &AsyncCopy,
    on: u32,
) -> Outcome<()> {
    let to = addresses(&warp.registers, &op.to, on)?;
    let from = addresses(&warp.registers, &op.from, on)?;
    for lane in lanes(on) {
        let at = block.shared.place(lane, to[lane], op.bytes, op.bytes)?;
        let mut read = op.bytes;
        if let Some(column) = op.source_bytes {
            if warp.registers.defined32[column as usize] >> lane & 1 == 0 {
                return Err(undefined("a source size"));
            }
            read = warp.registers.r32[column as usize][lane];
            if read > op.bytes {
                return Err(invalid("source size beyond the copy's"));
            }
        }
        if op
            .ignore
            .is_some_and(|p| warp.registers.pred[p as usize] >> lane & 1 == 1)
        {
            read = 0;
        }
        let actor = actor(warp, lane, false);
        let mut data = [0; 16];
        if read != 0 {
            let (allocation, offset) = global(context, lane, from[lane], read, op.bytes)?;
            // Whole words, then what a short source leaves.
            let mut at = 0;
            while at < read as usize {
                let width = if read as usize - at >= 4 { 4 } else { 1 };
                let place = (offset + at, width);
                check_global_read(context, block, allocation, place, actor, false)
                    .map_err(|kind| access(kind, lane, Space::Global, from[lane] + at as u64))?;
                let value = allocation.load(offset + at, width).to_le_bytes();
                data[at..at + width as usize].copy_from_slice(&value[..width as usize]);
                at += width as usize;
            }
        }
        block.shared.announce(lane, at, op.bytes as usize, actor)?;
        let (group, bytes) = (warp.groups[lane], op.bytes as usize);
        warp.pending.push(Pending {
            lane,
            group,
            at,
            bytes,
            data,
        });
    }
    Ok(())
}

/// Lands the copies of all but the latest `in_flight` committed groups, or of all.
pub(super) fn wait(
    block: &mut BlockState,
    warp: &mut Warp,
    on: u32,
    in_flight: Option<u32>,
) -> Outcome<()> {
    let pending = std::mem::take(&mut warp.pending);
    let (done, rest): (Vec<_>, Vec<_>) = pending.into_iter().partition(|copy| {
        on >> copy.lane & 1 == 1
            && in_flight.is_none_or(|count| copy.group + count < warp.groups[copy.lane])
    });
    warp.pending = rest;
    for copy in done {
        let data = &copy.data[..copy.bytes];
        block
            .shared
            .write(copy.lane, copy.at, data, actor(warp, copy.lane, false))?;
    }
    Ok(())
}
