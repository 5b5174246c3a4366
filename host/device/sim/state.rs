//! What a simulated device consists of: its memory, its kernels, and what is being recorded or profiled.

use super::super::buffer::Allocator;
use super::super::entries::KernelTable;
use super::super::error::{DeviceError, Result};
use super::super::gemm_call::GemmCall;
use super::super::traits::{KernelId, KernelRun, MemoryInfo};
use super::driver_memory::DriverMemory;
use ptx_sim::{Memory, Module, Simulator};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

/// What buffers and graphs keep alive.
pub(super) struct Shared {
    pub(super) simulator: Simulator,
    pub(super) memory: RwLock<Memory>,
    pub(super) module: Module,
    pub(super) table: KernelTable,
    pub(super) total: u64,
    /// What of it is taken.
    pub(super) driver: Mutex<DriverMemory>,
    /// Allocations that still succeed.
    pub(super) allocations_left: AtomicU64,
    /// The graph being recorded.
    pub(super) recording: Mutex<Option<Vec<Work>>>,
    /// The kernels run since a profiler last asked, while there is one.
    pub(super) profiled: Mutex<Option<Vec<KernelRun>>>,
    pub(super) opened: Instant,
}

/// What can be sent to the device, and recorded.
pub(super) enum Work {
    Launch {
        kernel: KernelId,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        params: Vec<u8>,
        dependent: bool,
    },
    Gemm(GemmCall),
    Copy {
        dst: u64,
        src: u64,
        len: usize,
    },
    Fill {
        dst: u64,
        len: usize,
        byte: u8,
    },
}

impl Shared {
    pub(super) fn memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn driver(&self) -> MutexGuard<'_, DriverMemory> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn memory_info(&self) -> MemoryInfo {
        MemoryInfo {
            free: self.total.saturating_sub(self.driver().taken()),
            total: self.total,
        }
    }

    pub(super) fn out_of_memory(&self, label: &str, bytes: u64) -> DeviceError {
        let MemoryInfo { free, total } = self.memory_info();
        DeviceError::OutOfMemory {
            label: label.into(),
            bytes,
            free,
            total,
        }
    }

    /// Lets the driver take the memory that something needs, if it is there.
    pub(super) fn take(
        &self,
        label: &str,
        needed: impl Fn(&DriverMemory) -> u64,
        take: impl Fn(&mut DriverMemory),
    ) -> Result<()> {
        let bytes = needed(&self.driver());
        if bytes > self.memory_info().free {
            return Err(self.out_of_memory(label, bytes));
        }
        take(&mut self.driver());
        Ok(())
    }

    pub(super) fn recording(&self) -> MutexGuard<'_, Option<Vec<Work>>> {
        self.recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn profiled(&self) -> MutexGuard<'_, Option<Vec<KernelRun>>> {
        self.profiled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a kernel, and records it for the profiler if there is one.
    pub(super) fn profile(
        &self,
        name: &str,
        (grid, block): ([u32; 3], [u32; 3]),
        run: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let now = || self.opened.elapsed().as_nanos() as u64;
        let start = now();
        run()?;
        if let Some(runs) = &mut *self.profiled() {
            runs.push(KernelRun {
                name: name.to_owned(),
                grid,
                block,
                start,
                end: now(),
            });
        }
        Ok(())
    }

    pub(super) fn refuse_in_capture(&self, operation: &'static str) -> Result<()> {
        match self.recording().is_some() {
            true => Err(DeviceError::Capturing(operation)),
            false => Ok(()),
        }
    }

    pub(super) fn read(&self, addr: u64, dst: &mut [u8]) -> Result<()> {
        if dst.is_empty() {
            return Ok(());
        }
        self.memory()
            .read(addr, dst)
            .map_err(|error| fault("a read", error))
    }

    pub(super) fn write(&self, addr: u64, src: &[u8]) -> Result<()> {
        if src.is_empty() {
            return Ok(());
        }
        self.memory()
            .write(addr, src)
            .map_err(|error| fault("a write", error))
    }
}

/// A device that is recording, until this is dropped: also when what is recorded fails or panics.
pub(super) struct Recording<'a>(&'a Shared);

impl<'a> Recording<'a> {
    /// Begins to record.
    pub(super) fn begin(shared: &'a Shared) -> Recording<'a> {
        *shared.recording() = Some(Vec::new());
        Recording(shared)
    }

    /// What was recorded.
    pub(super) fn take(&self) -> Vec<Work> {
        self.0.recording().take().unwrap_or_default()
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        self.take();
    }
}

impl Allocator for Shared {
    unsafe fn free(&self, addr: u64, len: usize) {
        self.driver().free(addr, len as u64);
        let mut memory = self.memory.write().unwrap_or_else(PoisonError::into_inner);
        // Fails only for what was not allocated.
        let _ = memory.free(addr);
    }
}

/// The error of a kernel or an access.
pub(super) fn fault(kernel: &str, error: impl std::fmt::Display) -> DeviceError {
    DeviceError::Simulator {
        kernel: kernel.to_owned(),
        reason: error.to_string(),
    }
}
