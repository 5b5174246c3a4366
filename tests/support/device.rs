//! The device that tests of a GPU's engine run on.

use std::env;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use hyperion::backend::Draw;
use hyperion::device::sim::SimDevice;
use hyperion::device::{Device, choice};
use hyperion::ptx;

/// What HYPERION_TEST_DEVICE names; without it a simulator with the kernels that an H100 runs.
pub fn device() -> Arc<dyn Device> {
    static DEVICE: LazyLock<Arc<dyn Device>> = LazyLock::new(|| {
        let Ok(name) = env::var("HYPERION_TEST_DEVICE") else {
            let device = SimDevice::of_capability(&ptx::embedded(), (9, 0));
            return Arc::new(device.expect("a simulator"));
        };
        let choice = name.parse().expect("a device");
        let opened = choice::open(choice, &ptx::embedded()).expect("the device opens");
        opened.device.expect("a device other than the CPU")
    });
    DEVICE.clone()
}

/// Held by every test: no work may be sent to a device while another thread records a graph.
pub fn device_lock() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The command line's own way to draw.
pub const DRAW: Draw = Draw {
    temperature: 0.8,
    top_k: 40,
    top_p: 0.95,
    min_p: 0.05,
    typical_p: 1.0,
    seed: 1,
};
