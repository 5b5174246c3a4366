//! What the simulated device hands out: graphs, timers, profilers, host memory.

use super::super::buffer::{Buffer, BufferSlice};
use super::super::error::{DeviceError, Result};
use super::super::traits::{Graph, KernelRun, Mailbox, Profiler, Staging, Timer};
use super::state::{Shared, Work};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Recorded work.
pub(super) struct SimGraph {
    pub work: Vec<Work>,
    pub shared: Arc<Shared>,
}

impl Graph for SimGraph {
    unsafe fn replay(&self) -> Result<()> {
        self.shared.refuse_in_capture("replaying a graph")?;
        self.shared.memory().order();
        self.work.iter().try_for_each(|work| self.shared.run(work))
    }
}

impl Drop for SimGraph {
    fn drop(&mut self) {
        self.shared.driver().drop_graph();
    }
}

/// Wall-clock time: the simulator's work has ended when it returns.
pub(super) struct SimTimer {
    pub start: Instant,
    pub stop: Instant,
}

impl Timer for SimTimer {
    fn start(&mut self) -> Result<()> {
        self.start = Instant::now();
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        self.stop = Instant::now();
        Ok(())
    }

    fn elapsed(&self) -> Result<Duration> {
        Ok(self.stop.duration_since(self.start))
    }
}

/// Wall-clock times of the kernels, one after the other.
pub(super) struct SimProfiler {
    pub shared: Arc<Shared>,
}

impl Profiler for SimProfiler {
    fn take(&mut self) -> Result<Vec<KernelRun>> {
        let mut profiled = self.shared.profiled();
        Ok(profiled.as_mut().map(std::mem::take).unwrap_or_default())
    }
}

impl Drop for SimProfiler {
    fn drop(&mut self) {
        *self.shared.profiled() = None;
    }
}

/// Ordinary memory.
pub(super) struct SimStaging {
    pub memory: Vec<u8>,
    pub shared: Arc<Shared>,
}

impl Staging for SimStaging {
    fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        Ok(&mut self.memory)
    }

    fn submit(&mut self, dst: BufferSlice<'_>) -> Result<()> {
        dst.check(Arc::as_ptr(&self.shared).cast(), dst.len(), "an upload")?;
        self.shared.refuse_in_capture("an upload")?;
        match self.memory.get(..dst.len()) {
            Some(bytes) => self.shared.write(dst.addr(), bytes),
            None => Err(DeviceError::Range {
                label: dst.label().into(),
                len: dst.len(),
                what: format!("an upload through {} page-locked bytes", self.memory.len()),
            }),
        }
    }
}

/// Memory of the simulator, whose work is done when it was sent.
pub(super) struct SimMailbox {
    pub buffer: Buffer,
    pub shared: Arc<Shared>,
}

impl Mailbox for SimMailbox {
    fn addr(&self) -> u64 {
        self.buffer.addr()
    }

    fn mark(&mut self, _: usize) -> Result<()> {
        self.shared.refuse_in_capture("a mark")
    }

    fn wait(&self, _: usize) -> Result<()> {
        Ok(())
    }

    fn word(&self, index: usize) -> Result<u32> {
        let mut word = [0; 4];
        let from = self.buffer.slice(4 * index, 4)?;
        self.shared.read(from.addr(), &mut word)?;
        Ok(u32::from_ne_bytes(word))
    }
}
