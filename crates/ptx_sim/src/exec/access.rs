//! Loads and stores.

use crate::exec::dependence;
use crate::exec::launch::Context;
use crate::exec::race::Actor;
use crate::exec::registers::{LANES, Registers, lanes};
use crate::exec::report::{Outcome, access, undefined};
use crate::exec::state::BlockState;
use crate::exec::warp::Warp;
use crate::fault::{FaultKind, RaceKind};
use crate::lower::LOCAL_BASE;
use crate::memory::{Allocation, Record, Slot, space_of};
use crate::op::{Access, Address, Base, Column, Ordering};
use crate::ty::Space;

/// Every lane's address; those that are off have none.
pub(super) fn addresses(
    registers: &Registers,
    address: &Address,
    on: u32,
) -> Outcome<[u64; LANES]> {
    let mut out = [address.offset.cast_unsigned(); LANES];
    match address.base {
        Base::None => {}
        Base::R32(column) => {
            if registers.defined32[column as usize] & on != on {
                return Err(undefined("an address"));
            }
            let base = &registers.r32[column as usize];
            for lane in 0..LANES {
                out[lane] = u64::from(base[lane]).wrapping_add(out[lane]);
            }
        }
        Base::R64(column) => {
            if registers.defined64[column as usize] & on != on {
                return Err(undefined("an address"));
            }
            let base = &registers.r64[column as usize];
            for lane in 0..LANES {
                out[lane] = base[lane].wrapping_add(out[lane]);
            }
        }
    }
    Ok(out)
}

/// The space of an access, with generic addresses resolved.
#[inline]
pub(super) fn resolve(space: Space, address: u64) -> (Space, u64) {
    match space {
        Space::Generic => space_of(address),
        Space::Const => (Space::Global, address),
        _ => (space, address),
    }
}

/// The allocation and offset of an access that is inside, alive and aligned.
#[inline]
pub(super) fn global<'c>(
    context: &'c Context<'_>,
    lane: usize,
    address: u64,
    bytes: u32,
    align: u32,
) -> Outcome<(&'c Allocation, usize)> {
    let fault = |kind| Err(access(kind, lane, Space::Global, address));
    let (slot, offset) = context.table.find(address);
    match slot {
        Some(Slot::Live(allocation)) => {
            if offset + u64::from(bytes) > allocation.bytes as u64 {
                return fault(FaultKind::OutOfBounds { bytes });
            }
            if offset % u64::from(align) != 0 {
                return fault(FaultKind::Misaligned { bytes: align });
            }
            Ok((allocation, offset as usize))
        }
        Some(Slot::Freed { .. }) => fault(FaultKind::UseAfterFree { bytes }),
        None => fault(FaultKind::OutOfBounds { bytes }),
    }
}

/// The thread that makes an access.
pub(super) fn actor(warp: &Warp, lane: usize, atomic: bool) -> Actor<'_> {
    Actor {
        thread: (warp.index * LANES + lane) as u32,
        clock: &warp.clock,
        atomic,
        early: warp.early >> lane & 1 == 1,
    }
}

/// Who and when, as global memory keeps it.
fn record(context: &Context<'_>, block: &BlockState, actor: Actor) -> Record {
    Record {
        launch: context.launch_id,
        block: block.index,
        thread: actor.thread,
        clock: actor.clock.now - block.base,
        atomic: actor.atomic,
    }
}

/// Whether an earlier access of the same block is unordered with this one.
fn races(block: &BlockState, earlier: Record, actor: Actor) -> bool {
    earlier.is_in(block.index)
        && !(earlier.atomic && actor.atomic)
        && earlier.clock < Record::LAST_CLOCK
        && !actor.is_after(earlier.thread, earlier.clock + block.base)
}

/// Checks a read of global memory against what was written and by whom.
#[inline]
pub(super) fn check_global_read(
    context: &Context<'_>,
    block: &BlockState,
    allocation: &Allocation,
    (offset, bytes): (usize, u32),
    actor: Actor,
    read_only: bool,
) -> Result<(), FaultKind> {
    if context.config.uninitialised_checks && !allocation.is_written(offset, bytes) {
        return Err(FaultKind::UninitialisedRead { bytes });
    }
    dependence::check_read(context, allocation, offset, bytes, actor.early)?;
    if !context.config.race_checks || !allocation.is_written_in(context.launch_id) {
        return Ok(());
    }
    let shift = context.kernel.program.granule.trailing_zeros();
    let records = allocation.records(shift);
    let own = record(context, block, actor).pack();
    for granule in offset >> shift..((offset + bytes as usize - 1) >> shift) + 1 {
        let write = records.writes[granule].load(std::sync::atomic::Ordering::Relaxed);
        let write = Record::unpack(write);
        if write.is_of(context.launch_id) {
            if read_only {
                return Err(FaultKind::StaleRead);
            }
            if races(block, write, actor) {
                let kind = RaceKind::ReadAfterWrite;
                return Err(FaultKind::Race {
                    kind,
                    other: [write.thread, 0, 0],
                });
            }
        }
        records.reads[granule].store(own, std::sync::atomic::Ordering::Relaxed);
    }
    Ok(())
}

/// Checks a write to global memory against the accesses before it, and records it.
#[inline]
pub(super) fn check_global_write(
    context: &Context<'_>,
    block: &BlockState,
    allocation: &Allocation,
    (offset, bytes): (usize, u32),
    actor: Actor,
    same_value: impl Fn() -> bool,
) -> Result<(), FaultKind> {
    dependence::check_write(context, allocation, offset, bytes, actor.early)?;
    let config = context.config;
    if !config.race_checks && !config.block_race_checks {
        return Ok(());
    }
    allocation.note_write(context.launch_id);
    let shift = context.kernel.program.granule.trailing_zeros();
    let records = allocation.records(shift);
    let own = record(context, block, actor).pack();
    for granule in offset >> shift..((offset + bytes as usize - 1) >> shift) + 1 {
        // Two plain accesses: an exchange would cost more than all else here, and a conflict of
        // blocks that is missed once is found the next time.
        let write = records.writes[granule].load(std::sync::atomic::Ordering::Relaxed);
        records.writes[granule].store(own, std::sync::atomic::Ordering::Relaxed);
        let write = Record::unpack(write);
        let other = [write.thread, 0, 0];
        if write.is_of(context.launch_id) {
            if config.race_checks && races(block, write, actor) && !same_value() {
                return Err(FaultKind::Race {
                    kind: RaceKind::WriteAfterWrite,
                    other,
                });
            }
            let atomic = write.atomic || actor.atomic;
            // Blocks that fence may hand memory over by flags, which is not tracked.
            let other_block = !write.is_in(block.index) && !atomic && !block.has_fenced;
            if config.block_race_checks && other_block && !same_value() {
                return Err(FaultKind::BlockRace { other: write.block });
            }
        }
        let read = records.reads[granule].load(std::sync::atomic::Ordering::Relaxed);
        let read = Record::unpack(read);
        if config.race_checks
            && read.is_of(context.launch_id)
            && races(block, read, actor)
            && !same_value()
        {
            let other = [read.thread, 0, 0];
            return Err(FaultKind::Race {
                kind: RaceKind::WriteAfterRead,
                other,
            });
        }
    }
    Ok(())
}

/// Puts a loaded element into its register, extended to the register's width.
#[inline]
fn put(registers: &mut Registers, op: &Access, column: Column, lane: usize, value: u64) {
    let value = if op.signed {
        let unused = 64 - 8 * op.element_bytes;
        (value.cast_signed() << unused >> unused).cast_unsigned()
    } else {
        value
    };
    registers.set(column, lane, value);
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

pub(super) fn load(
    context: &Context<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    op: &Access,
    on: u32,
) -> Outcome<()> {
    let element = op.element_bytes;
    let bytes = element * op.columns.len() as u32;
    let atomic = op.ordering != Ordering::Weak;
    if op.ordering == Ordering::Synchronizing {
        block.fence(warp);
    }
    let addresses = addresses(&warp.registers, &op.address, on)?;
    let mut defined = on;
    for lane in lanes(on) {
        let (space, address) = resolve(op.address.space, addresses[lane]);
        match space {
            Space::Shared => {
                let at = block.shared.place(lane, address, bytes, bytes)?;
                let actor = actor(warp, lane, atomic);
                let data = block.shared.read(lane, at, bytes as usize, actor)?;
                for (part, column) in data.chunks_exact(element as usize).zip(&op.columns) {
                    put(&mut warp.registers, op, *column, lane, little_endian(part));
                }
            }
            Space::Local => {
                let at = local(warp, lane, address, bytes, bytes)?;
                if !warp.local_defined[at..at + bytes as usize]
                    .iter()
                    .all(|defined| *defined)
                {
                    defined &= !(1 << lane);
                }
                for (index, column) in op.columns.iter().enumerate() {
                    let start = at + index * element as usize;
                    let value = little_endian(&warp.local[start..start + element as usize]);
                    put(&mut warp.registers, op, *column, lane, value);
                }
            }
            Space::Param => {
                let start = address as usize;
                let params = context.launch.params;
                let data = start
                    .checked_add(bytes as usize)
                    .and_then(|end| params.get(start..end));
                let Some(data) = data else {
                    let kind = FaultKind::OutOfBounds { bytes };
                    return Err(access(kind, lane, Space::Param, address));
                };
                for (part, column) in data.chunks_exact(element as usize).zip(&op.columns) {
                    put(&mut warp.registers, op, *column, lane, little_endian(part));
                }
            }
            _ => {
                let (allocation, offset) = global(context, lane, address, bytes, bytes)?;
                let actor = actor(warp, lane, atomic);
                let range = (offset, bytes);
                check_global_read(context, block, allocation, range, actor, op.read_only)
                    .map_err(|kind| access(kind, lane, Space::Global, address))?;
                for (index, column) in op.columns.iter().enumerate() {
                    let value = allocation.load(offset + index * element as usize, element);
                    put(&mut warp.registers, op, *column, lane, value);
                }
            }
        }
    }
    for column in &op.columns {
        warp.registers.define(*column, on, defined);
    }
    if op.ordering == Ordering::Synchronizing {
        block.fence(warp);
    }
    Ok(())
}

pub(super) fn store(
    context: &Context<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    op: &Access,
    on: u32,
) -> Outcome<()> {
    let element = op.element_bytes as usize;
    let bytes = op.element_bytes * op.columns.len() as u32;
    let atomic = op.ordering != Ordering::Weak;
    if op.ordering == Ordering::Synchronizing {
        block.fence(warp);
    }
    let addresses = addresses(&warp.registers, &op.address, on)?;
    let defined = op
        .columns
        .iter()
        .all(|column| warp.registers.is_defined(*column, on));
    for lane in lanes(on) {
        let (space, address) = resolve(op.address.space, addresses[lane]);
        let mut data = [0; 32];
        for (part, column) in data.chunks_exact_mut(element).zip(&op.columns) {
            let value = warp.registers.get(*column, lane).to_le_bytes();
            part.copy_from_slice(&value[..element]);
        }
        let data = &data[..bytes as usize];
        if !defined
            && space != Space::Local
            && let Some(column) = first_undefined(warp, op, lane)
        {
            let register = column_name(context, column);
            let kind = FaultKind::UninitialisedRegister { register };
            return Err(access(kind, lane, space, address));
        }
        match space {
            Space::Shared => {
                let at = block.shared.place(lane, address, bytes, bytes)?;
                block
                    .shared
                    .write(lane, at, data, actor(warp, lane, atomic))?;
            }
            Space::Local => {
                let at = local(warp, lane, address, bytes, bytes)?;
                warp.local[at..at + data.len()].copy_from_slice(data);
                for (index, column) in op.columns.iter().enumerate() {
                    let known = warp.registers.is_defined(*column, 1 << lane);
                    let start = at + index * element;
                    warp.local_defined[start..start + element].fill(known);
                }
            }
            Space::Param => return Err(access(FaultKind::ReadOnly, lane, space, address)),
            _ => {
                let (allocation, offset) = global(context, lane, address, bytes, bytes)?;
                let actor = actor(warp, lane, atomic);
                let width = op.element_bytes;
                let same = || {
                    data.chunks_exact(element).enumerate().all(|(index, part)| {
                        allocation.load(offset + index * element, width) == little_endian(part)
                    })
                };
                check_global_write(context, block, allocation, (offset, bytes), actor, same)
                    .map_err(|kind| access(kind, lane, Space::Global, address))?;
                for (index, part) in data.chunks_exact(element).enumerate() {
                    allocation.store(offset + index * element, width, little_endian(part));
                }
            }
        }
    }
    if op.ordering == Ordering::Synchronizing {
        block.fence(warp);
    }
    Ok(())
}

fn first_undefined(warp: &Warp, op: &Access, lane: usize) -> Option<Column> {
    let undefined = |column: &&Column| !warp.registers.is_defined(**column, 1 << lane);
    op.columns.iter().find(undefined).copied()
}

fn column_name(context: &Context<'_>, column: Column) -> String {
    let program = &context.kernel.program;
    let name = match column {
        Column::R32(r) | Column::R16(r) | Column::R8(r) => program.names32.get(&r),
        Column::R64(d) => program.names64.get(&d),
        Column::Discard => None,
    };
    name.cloned().unwrap_or_else(|| "a register".into())
}

/// The place of a local access in the warp's storage.
pub(super) fn local(
    warp: &Warp,
    lane: usize,
    address: u64,
    bytes: u32,
    align: u32,
) -> Outcome<usize> {
    let frame = warp.local.len() / LANES;
    let inside = address >= u64::from(LOCAL_BASE)
        && address
            .checked_add(u64::from(bytes))
            .is_some_and(|end| end <= frame as u64);
    if !inside {
        return Err(access(
            FaultKind::OutOfBounds { bytes },
            lane,
            Space::Local,
            address,
        ));
    }
    if !address.is_multiple_of(u64::from(align)) {
        return Err(access(
            FaultKind::Misaligned { bytes: align },
            lane,
            Space::Local,
            address,
        ));
    }
    Ok(lane * frame + address as usize)
}

/// Copies an argument or result between the storage of caller and callee.
pub(super) fn copy_local(warp: &mut Warp, mask: u32, from: u32, to: u32, bytes: u32) {
    let frame = warp.local.len() / LANES;
    for lane in lanes(mask) {
        let source = lane * frame + from as usize;
        let target = lane * frame + to as usize;
        let source = source..source + bytes as usize;
        warp.local.copy_within(source.clone(), target);
        warp.local_defined.copy_within(source, target);
    }
}
