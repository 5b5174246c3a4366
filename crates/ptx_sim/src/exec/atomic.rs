//! Atomic read-modify-write operations, one lane after the other.

use crate::exec::access::{actor, addresses, check_global_write, global, local, resolve};
use crate::exec::launch::Context;
use crate::exec::registers::lanes;
use crate::exec::report::{Outcome, access, undefined};
use crate::exec::state::BlockState;
use crate::exec::warp::Warp;
use crate::fault::FaultKind;
use crate::numeric::{float, half};
use crate::op::{Atomic, AtomicOp, AtomicTy, HalfFormat, HalfMode, HalfOp};
use crate::ty::Space;

pub(super) fn run(
    context: &Context<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    op: &Atomic,
    on: u32,
) -> Outcome<()> {
    if op.synchronizing {
        block.fence(warp);
    }
    let bytes = op.ty.bytes();
    let addresses = addresses(&warp.registers, &op.address, on)?;
    if !warp.registers.is_defined(op.b, on) || !warp.registers.is_defined(op.c, on) {
        return Err(undefined("an atomic's operand"));
    }
    for lane in lanes(on) {
        let (space, address) = resolve(op.address.space, addresses[lane]);
        let (b, c) = (
            warp.registers.get(op.b, lane),
            warp.registers.get(op.c, lane),
        );
        let update = |old: u64| apply(op.op, op.ty, old, b, c);
        let old = match space {
            Space::Shared => {
                let at = block.shared.place(lane, address, bytes, bytes)?;
                let actor = actor(warp, lane, true);
                let data = block.shared.read(lane, at, bytes as usize, actor)?;
                let old = data
                    .iter()
                    .rev()
                    .fold(0, |value, byte| value << 8 | u64::from(*byte));
                let new = update(old).to_le_bytes();
                block
                    .shared
                    .write(lane, at, &new[..bytes as usize], actor)?;
                old
            }
            Space::Global => {
                let (allocation, offset) = global(context, lane, address, bytes, bytes)?;
                let fault = |kind| access(kind, lane, Space::Global, address);
                if context.config.uninitialised_checks && !allocation.is_written(offset, bytes) {
                    return Err(fault(FaultKind::UninitialisedRead { bytes }));
                }
                let actor = actor(warp, lane, true);
                let range = (offset, bytes);
                check_global_write(context, block, allocation, range, actor, || false)
                    .map_err(fault)?;
                allocation.update(offset, bytes, update)
            }
            Space::Local => {
                let at = local(warp, lane, address, bytes, bytes)?;
                let end = at + bytes as usize;
                let data = &warp.local[at..end];
                let old = data
                    .iter()
                    .rev()
                    .fold(0, |value, byte| value << 8 | u64::from(*byte));
                warp.local[at..end].copy_from_slice(&update(old).to_le_bytes()[..bytes as usize]);
                old
            }
            _ => return Err(access(FaultKind::ReadOnly, lane, space, address)),
        };
        warp.registers.set(op.d, lane, old);
    }
    warp.registers.define(op.d, on, on);
    if op.synchronizing {
        block.fence(warp);
    }
    Ok(())
}

/// The new value of a memory cell.
pub(super) fn apply(op: AtomicOp, ty: AtomicTy, old: u64, b: u64, c: u64) -> u64 {
    let (old32, b32) = (old as u32, b as u32);
    let value = match (op, ty) {
        (AtomicOp::Exchange, _) => b,
        (AtomicOp::CompareExchange, _) => {
            if old == b {
                c
            } else {
                old
            }
        }
        (AtomicOp::And, _) => old & b,
        (AtomicOp::Or, _) => old | b,
        (AtomicOp::Xor, _) => old ^ b,
        (AtomicOp::Increment, _) => {
            if old32 >= b32 {
                0
            } else {
                old + 1
            }
        }
        (AtomicOp::Decrement, _) => {
            if old32 == 0 || old32 > b32 {
                b
            } else {
                old - 1
            }
        }
        // The device's atomic addition on global memory keeps subnormals, as this does.
        (AtomicOp::Add, AtomicTy::F32) => u64::from(float::canonical(
            f32::from_bits(old32) + f32::from_bits(b32),
        )),
        (AtomicOp::Add, AtomicTy::F64) => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        (AtomicOp::Add, AtomicTy::F16) => half_sum(HalfFormat::F16, old32, b32),
        (AtomicOp::Add, AtomicTy::F16x2) => half_sum(HalfFormat::F16x2, old32, b32),
        (AtomicOp::Add, AtomicTy::Bf16) => half_sum(HalfFormat::Bf16, old32, b32),
        (AtomicOp::Add, AtomicTy::Bf16x2) => half_sum(HalfFormat::Bf16x2, old32, b32),
        (AtomicOp::Add, _) => old.wrapping_add(b),
        (AtomicOp::Min, AtomicTy::S64) => {
            if old.cast_signed() < b.cast_signed() {
                old
            } else {
                b
            }
        }
        (AtomicOp::Max, AtomicTy::S64) => {
            if old.cast_signed() > b.cast_signed() {
                old
            } else {
                b
            }
        }
        (AtomicOp::Min, AtomicTy::S32) => {
            u64::from(old32.cast_signed().min(b32.cast_signed()).cast_unsigned())
        }
        (AtomicOp::Max, AtomicTy::S32) => {
            u64::from(old32.cast_signed().max(b32.cast_signed()).cast_unsigned())
        }
        (AtomicOp::Min, _) => old.min(b),
        (AtomicOp::Max, _) => old.max(b),
    };
    if ty.bytes() == 8 {
        value
    } else {
        value & ((1 << (8 * ty.bytes())) - 1)
    }
}

fn half_sum(format: HalfFormat, a: u32, b: u32) -> u64 {
    let mode = HalfMode {
        format,
        ftz: false,
        sat: false,
        relu: false,
        nan: false,
    };
    u64::from(half::apply(HalfOp::Add, mode, a, b, 0))
}
