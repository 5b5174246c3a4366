//! The end of a process in which another thread may still be using the device.

/// Ends the process at once with `code`. The handlers that an exit runs do not run: the driver and cuBLAS have such,
/// which free what the other thread is in the middle of using, and the process would end by a segmentation fault. The
/// system gives back what the process holds, its memory on the device too.
///
/// What is in buffers of the standard streams is lost: whoever wrote there flushes first.
pub fn end_process(code: u8) -> ! {
    #[cfg(unix)]
    // SAFETY: takes any number, and needs nothing of the process.
    unsafe {
        libc::_exit(code.into())
    }
    #[cfg(not(unix))]
    std::process::exit(code.into())
}

#[cfg(all(test, unix))]
mod tests {
    use std::env;
    use std::process::Command;

    use super::*;

    /// Set for the process that ends.
    const ENDS: &str = "HYPERION_TEST_ENDS";

    extern "C" fn on_exit() {
        std::process::abort();
    }

    #[test]
    fn no_handler_runs() {
        if env::var_os(ENDS).is_some() {
            // SAFETY: the handler takes nothing and touches nothing.
            unsafe { libc::atexit(on_exit) };
            end_process(7);
        }
        let test = "device::process_end::tests::no_handler_runs";
        let status = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", test])
            .env(ENDS, "1")
            .output()
            .expect("it starts again")
            .status;
        assert_eq!(status.code(), Some(7), "{status}");
    }
}
