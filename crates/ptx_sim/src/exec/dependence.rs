//! What launches that may overlap do to each other's memory.
//!
//! A dependent launch begins when every block of the launch ahead has let it (`griddepcontrol.launch_dependents`)
//! or has ended. If that launch had waited before it did so, the two of them overlap and no other; otherwise
//! whatever overlaps that launch may overlap this one too. [`Context::overlap`] is the first of these launches.

use crate::exec::launch::Context;
use crate::fault::FaultKind;
use crate::memory::Allocation;

/// Whether launches of these kernels may overlap at all.
#[inline]
fn is_tracked(context: &Context<'_>) -> bool {
    context.launch.dependent || context.module.waits_for_launches
}

/// A read by a thread that has waited, or not yet: what launches that may still run write is not there.
#[inline]
pub(super) fn check_read(
    context: &Context<'_>,
    allocation: &Allocation,
    offset: usize,
    bytes: u32,
    early: bool,
) -> Result<(), FaultKind> {
    if !is_tracked(context) {
        return Ok(());
    }
    let ahead = context.overlap..context.launch_id;
    if early && allocation.stamps().is_written_by(&ahead, offset, bytes) {
        return Err(FaultKind::EarlyRead);
    }
    allocation.stamps().read(context.launch_id, offset, bytes);
    Ok(())
}

/// A write by such a thread. Before the wait it is right only where the one launch that may still run is known
/// and uses other places.
#[inline]
pub(super) fn check_write(
    context: &Context<'_>,
    allocation: &Allocation,
    offset: usize,
    bytes: u32,
    early: bool,
) -> Result<(), FaultKind> {
    if !is_tracked(context) {
        return Ok(());
    }
    if early {
        let ahead = context.overlap..context.launch_id;
        let is_one = ahead.end - ahead.start == 1;
        if !is_one || allocation.stamps().is_used_by(&ahead, offset, bytes) {
            return Err(FaultKind::EarlyWrite);
        }
    }
    allocation.stamps().write(context.launch_id, offset, bytes);
    Ok(())
}
