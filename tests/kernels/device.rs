//! The device of the cases: the one that `HYPERION_TEST_DEVICE` names (`sim:90` is the simulator with the
//! kernels for compute capability 9.0); or, in [`report_on`], the simulator with other PTX than what ships.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use hyperion::device::Device;
use hyperion::device::choice::{self, DeviceChoice};
use hyperion::device::sim::SimDevice;
use hyperion::ptx::{self, PtxImage};

/// Keeps the data aligned as an allocation is.
const GUARD_BYTES: usize = 1024;

/// What cases run on.
pub struct TestDevice {
    pub device: Arc<dyn Device>,
    /// Length of the bands around a buffer.
    pub guard_bytes: usize,
}

/// The device of `HYPERION_TEST_DEVICE`, opened once; or what [`report_on`] put in its place.
pub fn test_device() -> Arc<TestDevice> {
    static DEVICE: OnceLock<Arc<TestDevice>> = OnceLock::new();
    let shipped = || {
        let name = std::env::var("HYPERION_TEST_DEVICE").unwrap_or_else(|_| "sim".into());
        open(&name).unwrap_or_else(|error| panic!("HYPERION_TEST_DEVICE={name}: {error}"))
    };
    REPLACED
        .with_borrow(Clone::clone)
        .unwrap_or_else(|| DEVICE.get_or_init(|| Arc::new(shipped())).clone())
}

/// What names the simulator with the kernels that an H100 runs.
pub const SIM_90: &str = "sim:90";

fn open(name: &str) -> Result<TestDevice, String> {
    if name == SIM_90 {
        let device = SimDevice::of_capability(&ptx::embedded(), (9, 0));
        return Ok(TestDevice {
            device: Arc::new(device.map_err(|error| error.to_string())?),
            guard_bytes: 0,
        });
    }
    let choice: DeviceChoice = name.parse()?;
    let opened = choice::open(choice, &ptx::embedded()).map_err(|error| error.to_string())?;
    Ok(TestDevice {
        device: opened.device.ok_or("kernels need a GPU or the simulator")?,
        guard_bytes: if choice == DeviceChoice::Sim {
            0
        } else {
            GUARD_BYTES
        },
    })
}

thread_local! {
    /// The device of this thread's cases, where it is not the usual one.
    static REPLACED: RefCell<Option<Arc<TestDevice>>> = const { RefCell::new(None) };
}

/// Runs a case on the simulator with the kernels of an image; gives what the case fails with.
pub fn report_on(image: PtxImage, case: impl FnOnce()) -> Result<(), String> {
    let capability = (image.arch / 10, image.arch % 10);
    let device = SimDevice::of_capability(&[image], capability).expect("the simulator reads it");
    REPLACED.set(Some(Arc::new(TestDevice {
        device: Arc::new(device),
        guard_bytes: 0,
    })));
    // The case is dropped inside, and the device is not used again.
    let result = catch_unwind(AssertUnwindSafe(case));
    REPLACED.set(None);
    result.map_err(|panic| *panic.downcast::<String>().expect("a formatted message"))
}

/// The environment variable that names the file to which each launch is appended: the kernel, a tab, the
/// case.
pub const RECORD: &str = "HYPERION_TEST_RECORD";

/// Appends a launch to that file, if there is one.
pub fn record(kernel: &str, case: &str) {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    let open = || {
        let path = std::env::var_os(RECORD)?;
        let file = File::options().create(true).append(true).open(path);
        Some(file.expect("a file to record launches in"))
    };
    if let Some(mut file) = FILE.get_or_init(open).as_ref() {
        // One write a line: those of other threads do not mix with it.
        let line = format!("{kernel}\t{case}\n");
        file.write_all(line.as_bytes())
            .expect("room for the record");
    }
}
