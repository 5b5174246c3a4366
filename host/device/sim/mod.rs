//! The simulated device: `ptx_sim` runs the kernels on the CPU, and a plain product stands for cuBLAS.
//!
//! The whole GPU engine runs on it where there is no GPU, and every access of a kernel is checked. It
//! can also be given little memory, or an allocation that fails, to test what happens then.

mod driver_memory;
mod objects;
mod run;
mod state;

pub use driver_memory::{DriverCosts, DriverMemory};

use super::buffer::{Buffer, BufferSlice};
use super::entries::KernelTable;
use super::error::{DeviceError, Result};
use super::gemm_call::GemmCall;
use super::traits::{
    Device, DeviceInfo, Graph, KernelId, Launch, Mailbox, MemoryInfo, Profiler, Staging, Timer,
};
use crate::ptx::{PtxImage, select};
use objects::{SimGraph, SimMailbox, SimProfiler, SimStaging, SimTimer};
use ptx_sim::{Config, Memory, Module, Simulator};
use state::{Recording, Shared, Work};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

/// What the simulator passes for: an A100's limits, with as much memory as a small test machine has.
const CAPABILITY: (u32, u32) = (8, 0);
/// From here on a GPU lets launches begin before their predecessors have ended.
const DEPENDENT_LAUNCHES: (u32, u32) = (9, 0);
const MAX_SHARED_PER_BLOCK: u32 = 163 << 10;
const DEFAULT_MEMORY: u64 = 16 << 30;

/// A device that runs PTX on the CPU.
pub struct SimDevice {
    info: DeviceInfo,
    shared: Arc<Shared>,
}

impl SimDevice {
    /// A simulator for the image that suits compute capability 8.0.
    ///
    /// # Errors
    /// PTX that the simulator cannot read.
    pub fn open(images: &[PtxImage]) -> Result<Self> {
        Self::with(images, DEFAULT_MEMORY, Config::default())
    }

    /// As [`SimDevice::open`], with `total` bytes of memory and other checks than the default ones.
    pub fn with(images: &[PtxImage], total: u64, config: Config) -> Result<Self> {
        Self::build(images, CAPABILITY, total, config)
    }

    /// A simulator that passes for a GPU of another compute capability, and so takes its image. From 9.0 on
    /// dependent launches are checked: what kernels do before they wait.
    ///
    /// # Errors
    /// As [`SimDevice::open`].
    pub fn of_capability(images: &[PtxImage], capability: (u32, u32)) -> Result<Self> {
        Self::build(images, capability, DEFAULT_MEMORY, Config::default())
    }

    fn build(
        images: &[PtxImage],
        capability: (u32, u32),
        total: u64,
        config: Config,
    ) -> Result<Self> {
        let ptx = select(images, capability)?.text.get();
        let module = Module::parse(ptx).map_err(|error| DeviceError::Ptx(error.to_string()))?;
        let mut table = KernelTable::parse(ptx)?;
        for entry in table.entries_mut() {
            if let Some(kernel) = module.kernel(&entry.name) {
                entry.static_shared = kernel.static_shared_bytes();
            }
        }
        let info = DeviceInfo {
            name: "PTX simulator".into(),
            compute_capability: capability,
            multiprocessors: rayon::current_num_threads() as u32,
            l2_bytes: 40 << 20,
            total_memory: total,
            driver_version: (12, 0),
            max_threads_per_block: 1024,
            is_simulated: true,
            max_shared_per_block: MAX_SHARED_PER_BLOCK,
        };
        let shared = Arc::new(Shared {
            simulator: Simulator::new(config),
            memory: RwLock::new(Memory::new()),
            module,
            table,
            total,
            driver: Mutex::default(),
            allocations_left: AtomicU64::new(u64::MAX),
            recording: Mutex::new(None),
            profiled: Mutex::new(None),
            opened: Instant::now(),
        });
        Ok(SimDevice { info, shared })
    }

    /// From now on the driver takes memory as `memory` says, which must be before anything is allocated.
    pub fn set_driver_memory(&self, memory: DriverMemory) {
        *self.shared.driver() = memory;
    }

    /// Lets the next `count` allocations succeed and all later ones fail.
    pub fn fail_allocations_after(&self, count: u64) {
        self.shared.allocations_left.store(count, Ordering::Relaxed);
    }

    fn check(&self, range: BufferSlice<'_>, len: usize, what: &str) -> Result<()> {
        range.check(Arc::as_ptr(&self.shared).cast(), len, what)
    }
}

impl Device for SimDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn memory(&self) -> Result<MemoryInfo> {
        Ok(self.shared.memory_info())
    }

    fn alloc(&self, bytes: usize, label: &str) -> Result<Buffer> {
        let out_of_memory = || self.shared.out_of_memory(label, bytes as u64);
        let left = |left: u64| left.checked_sub(1);
        let allowed = self
            .shared
            .allocations_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left)
            .is_ok();
        if !allowed {
            return Err(out_of_memory());
        }
        self.shared
            .take(label, |driver| driver.needed(bytes as u64), |_| ())?;
        let mut memory = self
            .shared
            .memory
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let addr = memory
            .alloc(bytes.max(1), label)
            .map_err(|_| out_of_memory())?;
        self.shared.driver().allocate(addr, bytes as u64);
        // SAFETY: just allocated, owned by nobody else.
        Ok(unsafe { Buffer::from_raw(self.shared.clone(), addr, bytes, label) })
    }

    fn staging(&self, bytes: usize) -> Result<Box<dyn Staging>> {
        Ok(Box::new(SimStaging {
            memory: vec![0; bytes],
            shared: self.shared.clone(),
        }))
    }

    fn mailbox(&self, words: usize) -> Result<Box<dyn Mailbox>> {
        let buffer = self.alloc(4 * words, "mailbox")?;
        let shared = self.shared.clone();
        Ok(Box::new(SimMailbox { buffer, shared }))
    }

    fn upload(&self, dst: BufferSlice<'_>, src: &[u8]) -> Result<()> {
        self.check(dst, src.len(), "an upload")?;
        self.shared.refuse_in_capture("an upload")?;
        self.shared.write(dst.addr(), src)
    }

    fn download(&self, dst: &mut [u8], src: BufferSlice<'_>) -> Result<()> {
        self.check(src, dst.len(), "a download")?;
        self.shared.refuse_in_capture("a download")?;
        self.shared.read(src.addr(), dst)
    }

    fn copy(&self, dst: BufferSlice<'_>, src: BufferSlice<'_>) -> Result<()> {
        self.check(src, src.len(), "a copy")?;
        self.check(dst, src.len(), "a copy")?;
        self.shared.send(Work::Copy {
            dst: dst.addr(),
            src: src.addr(),
            len: src.len(),
        })
    }

    fn fill(&self, dst: BufferSlice<'_>, byte: u8) -> Result<()> {
        self.check(dst, dst.len(), "a fill")?;
        self.shared.send(Work::Fill {
            dst: dst.addr(),
            len: dst.len(),
            byte,
        })
    }

    fn kernel(&self, name: &str) -> Result<KernelId> {
        let id = self.shared.table.find(name)?;
        self.shared.take(
            name,
            |driver| driver.kernel_needs(id.0),
            |driver| driver.load(id.0),
        )?;
        Ok(id)
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        let entry = self.shared.table.get(launch.kernel)?;
        entry.check(launch, &self.info)?;
        self.shared.send(Work::Launch {
            kernel: launch.kernel,
            grid: launch.grid,
            block: launch.block,
            shared: launch.shared_bytes,
            params: launch.params[..entry.param_bytes].to_vec(),
            dependent: launch.dependent && self.info.compute_capability >= DEPENDENT_LAUNCHES,
        })
    }

    unsafe fn gemm(&self, call: &GemmCall) -> Result<()> {
        self.shared.take(
            "cuBLAS",
            DriverMemory::product_needs,
            DriverMemory::multiply,
        )?;
        self.shared.send(Work::Gemm(*call))
    }

    fn synchronize(&self) -> Result<()> {
        self.shared.refuse_in_capture("waiting")
    }

    fn capture(&self, record: &mut dyn FnMut() -> Result<()>) -> Result<Box<dyn Graph>> {
        self.shared.refuse_in_capture("another graph")?;
        let recording = Recording::begin(&self.shared);
        record()?;
        let work = recording.take();
        self.shared
            .take("a graph", DriverMemory::graph_needs, DriverMemory::record)?;
        Ok(Box::new(SimGraph {
            work,
            shared: self.shared.clone(),
        }))
    }

    fn timer(&self) -> Result<Box<dyn Timer>> {
        let now = Instant::now();
        Ok(Box::new(SimTimer {
            start: now,
            stop: now,
        }))
    }

    fn profiler(&self) -> Result<Box<dyn Profiler>> {
        let mut profiled = self.shared.profiled();
        if profiled.is_some() {
            return Err(DeviceError::Profile("another profiler is at work".into()));
        }
        *profiled = Some(Vec::new());
        Ok(Box::new(SimProfiler {
            shared: self.shared.clone(),
        }))
    }
}
