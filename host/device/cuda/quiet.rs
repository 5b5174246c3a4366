//! Keeps graph captures apart from calls that wait for the whole context.
//!
//! Freeing memory, loading and unloading code, and starting and ending cuBLAS synchronize the context,
//! and that spoils a capture under way on any thread and any stream of it (status 901, seen with
//! driver 580). Whoever makes such a call holds [`outside_captures`]; a capture holds
//! [`capture`] and so waits for them, and they for it.

use super::super::error::{DeviceError, Result};
use cust::memory::LockedBuffer;
use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static CAPTURES: RwLock<()> = RwLock::new(());

thread_local! {
    static CAPTURING: Cell<bool> = const { Cell::new(false) };
}

/// Waits until no capture is under way, and keeps new ones from beginning. On the capturing thread
/// itself there is nothing to wait for. Not to be taken twice.
pub(super) fn outside_captures() -> Option<RwLockReadGuard<'static, ()>> {
    (!CAPTURING.get()).then(|| CAPTURES.read().unwrap_or_else(PoisonError::into_inner))
}

/// Held by the one capture under way.
pub(super) struct Capture {
    _exclusive: RwLockWriteGuard<'static, ()>,
}

/// Begins a capture on this thread once every other, and all calls that would spoil it, have ended.
///
/// # Errors
/// This thread is capturing already.
pub(super) fn capture() -> Result<Capture> {
    if CAPTURING.get() {
        return Err(DeviceError::Capturing("another graph"));
    }
    let exclusive = CAPTURES.write().unwrap_or_else(PoisonError::into_inner);
    CAPTURING.set(true);
    Ok(Capture {
        _exclusive: exclusive,
    })
}

impl Drop for Capture {
    fn drop(&mut self) {
        CAPTURING.set(false);
    }
}

/// Fails on a thread that is capturing: for operations that cannot be part of a graph.
pub(super) fn refuse_in_capture(operation: &'static str) -> Result<()> {
    match CAPTURING.get() {
        true => Err(DeviceError::Capturing(operation)),
        false => Ok(()),
    }
}

/// Page-locked memory. The owner makes the context current before dropping it.
pub(super) struct PageLocked(ManuallyDrop<LockedBuffer<u8>>);

impl PageLocked {
    /// `bytes` zeros in the current context.
    pub fn new(bytes: usize) -> cust::error::CudaResult<Self> {
        let _quiet = outside_captures();
        Ok(PageLocked(ManuallyDrop::new(LockedBuffer::new(&0, bytes)?)))
    }
}

impl Deref for PageLocked {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for PageLocked {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for PageLocked {
    fn drop(&mut self) {
        let _quiet = outside_captures();
        // SAFETY: dropped once, here.
        unsafe { ManuallyDrop::drop(&mut self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_capture_keeps_other_threads_waiting_and_not_its_own() {
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let held = capture().unwrap();
            assert!(outside_captures().is_none());
            assert!(refuse_in_capture("waiting").is_err());
            assert!(capture().is_err());
            let other = scope.spawn(|| {
                refuse_in_capture("waiting").unwrap();
                let quiet = outside_captures();
                assert!(quiet.is_some() && ended.load(Ordering::Acquire));
            });
            thread::sleep(Duration::from_millis(20));
            ended.store(true, Ordering::Release);
            drop(held);
            other.join().unwrap();
        });
        refuse_in_capture("waiting").unwrap();
    }
}
