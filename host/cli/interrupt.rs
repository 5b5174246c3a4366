//! Ctrl-C: the first asks the running generation to end, the second ends the process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use crate::device::end_process;

static REQUESTED: AtomicBool = AtomicBool::new(false);
static INSTALLED: OnceLock<()> = OnceLock::new();

/// The flag that Ctrl-C sets; installs the handler on first use.
pub fn flag() -> anyhow::Result<&'static AtomicBool> {
    if INSTALLED.set(()).is_ok() {
        ctrlc::set_handler(|| {
            if REQUESTED.swap(true, Ordering::Relaxed) {
                end_process(super::INTERRUPTED);
            }
        })
        .context("installing the Ctrl-C handler")?;
    }
    Ok(&REQUESTED)
}

/// The flag without a handler, for a command that has one of its own.
pub fn flag_alone() -> &'static AtomicBool {
    let _ = INSTALLED.set(());
    &REQUESTED
}

/// Whether Ctrl-C was pressed since the last [`reset`].
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Forgets a Ctrl-C that has been dealt with.
pub fn reset() {
    REQUESTED.store(false, Ordering::Relaxed);
}
