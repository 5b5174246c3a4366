//! The memory bandwidth that a device reaches.

use super::error::Result;
use super::traits::Device;

/// Size of the copied memory, far over every L2 cache.
const COPY_BYTES: usize = 512 << 20;
/// Copies of a run, to outweigh its start.
const COPIES: usize = 8;
/// Runs, of which the fastest counts: nothing makes a copy faster than it is.
const RUNS: usize = 5;

/// Bytes per second that a plain copy reads and writes together.
///
/// # Errors
/// Too little free memory, or a failed call.
pub fn copy_bandwidth(device: &dyn Device) -> Result<f64> {
    let from = device.alloc(COPY_BYTES, "copied memory")?;
    let to = device.alloc(COPY_BYTES, "the copy")?;
    device.fill(from.all(), 1)?;
    let mut timer = device.timer()?;
    let mut best = 0f64;
    for _ in 0..RUNS {
        timer.start()?;
        for _ in 0..COPIES {
            device.copy(to.all(), from.all())?;
        }
        timer.stop()?;
        let seconds = timer.elapsed()?.as_secs_f64();
        best = best.max((2 * COPIES * COPY_BYTES) as f64 / seconds);
    }
    Ok(best)
}
