//! A mapped file that is cut off while it is in use.
//!
//! Reading a page that the file no longer has makes the kernel send SIGBUS. Nothing can be put in the place of
//! the missing data, so the process ends: with a line that names the file and exit code 1, instead of a bus
//! error.

use std::path::Path;

/// Watches over a mapping for as long as it lives.
#[derive(Debug)]
pub(super) struct Watch {
    #[cfg(unix)]
    slot: Option<usize>,
    /// What the handler writes; it must stay where it is.
    #[cfg(unix)]
    _message: Box<str>,
}

#[cfg(not(unix))]
impl Watch {
    /// Elsewhere a file that is mapped cannot be cut off.
    pub(super) fn over(_map: &[u8], _path: &Path) -> Watch {
        Watch {}
    }
}

#[cfg(unix)]
mod unix {
    use std::mem::{self, MaybeUninit};
    use std::ptr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

    use super::{Path, Watch};

    /// Mappings that are watched at a time: models in many parts, several of them.
    const SLOTS: usize = 4096;

    /// A watched range of addresses. The handler may run between any two stores, so that the range is empty
    /// (`end` is 0) until all else is there.
    struct Slot {
        /// 0 where the slot is free.
        start: AtomicUsize,
        end: AtomicUsize,
        message: AtomicPtr<u8>,
        message_len: AtomicUsize,
    }

    static WATCHED: [Slot; SLOTS] = [const {
        Slot {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            message: AtomicPtr::new(ptr::null_mut()),
            message_len: AtomicUsize::new(0),
        }
    }; SLOTS];

    /// What was done on SIGBUS before.
    static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

    impl Watch {
        /// Watches over `map`, a mapping of the file at `path`, until it is dropped, which must be before the
        /// mapping ends.
        pub(in super::super) fn over(map: &[u8], path: &Path) -> Watch {
            PREVIOUS.get_or_init(install);
            let message: Box<str> = format!(
                "error: {}: the file was cut off while it was in use; fetch it again\n",
                path.display()
            )
            .into();
            let start = map.as_ptr() as usize;
            let slot = WATCHED.iter().position(|slot| {
                let free =
                    slot.start
                        .compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed);
                free.is_ok()
            });
            if let Some(slot) = slot.map(|slot| &WATCHED[slot]) {
                slot.message
                    .store(message.as_ptr().cast_mut(), Ordering::Relaxed);
                slot.message_len.store(message.len(), Ordering::Relaxed);
                slot.end.store(start + map.len(), Ordering::Release);
            }
            Watch {
                slot,
                _message: message,
            }
        }
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            if let Some(slot) = self.slot {
                WATCHED[slot].end.store(0, Ordering::Release);
                WATCHED[slot].start.store(0, Ordering::Release);
            }
        }
    }

    /// Installs the handler; gives what was there before, which is what Rust's runtime wants of SIGBUS.
    fn install() -> libc::sigaction {
        let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: all zeros are a valid `sigaction`. The handler has the signature that SA_SIGINFO asks for and
        // does only what is allowed in one. Both pointers are to live values of the right type.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = on_bus_error as *const () as usize;
            // On the stack that Rust's runtime keeps for handlers, where there is one.
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &action, previous.as_mut_ptr());
            previous.assume_init()
        }
    }

    /// Ends the process where the address is in a watched mapping; otherwise steps aside.
    extern "C" fn on_bus_error(
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        _context: *mut libc::c_void,
    ) {
        // SAFETY: the kernel passes a valid `siginfo_t`, which for SIGBUS holds an address.
        let (address, code) = unsafe { ((*info).si_addr() as usize, (*info).si_code) };
        let sent_by_kernel = code > 0;
        for slot in &WATCHED {
            let end = slot.end.load(Ordering::Acquire);
            if sent_by_kernel && address < end && address >= slot.start.load(Ordering::Relaxed) {
                let message = slot.message.load(Ordering::Relaxed).cast();
                let len = slot.message_len.load(Ordering::Relaxed);
                // SAFETY: `write` and `_exit` may be called in a handler. The message lives as long as its
                // slot is taken, and it is taken as long as somebody can read the mapping.
                unsafe {
                    libc::write(libc::STDERR_FILENO, message, len);
                    libc::_exit(1);
                }
            }
        }
        if let Some(previous) = PREVIOUS.get() {
            // SAFETY: `previous` is what `sigaction` gave; `sigaction` and `raise` may be called in a handler.
            // An instruction that faulted faults again when we return, and then meets the previous handler;
            // a signal that a process sent has to be sent again.
            unsafe {
                libc::sigaction(signal, previous, ptr::null_mut());
                if !sent_by_kernel {
                    libc::raise(signal);
                }
            }
        }
    }
}
