//! The simulated device: `ptx_sim` runs the kernels on the CPU, and a plain product stands for cuBLAS.
//!
//! The whole GPU engine runs on it where there is no GPU, and every access of a kernel is checked. It
//! can also be given little memory, or an allocation that fails, to test what happens then.

mod driver_memory;
mod objects;

pub use driver_memory::{DriverCosts, DriverMemory};

use super::buffer::{Allocator, Buffer, BufferSlice};
use super::choice::{PtxImage, select_ptx};
use super::entries::KernelTable;
use super::error::{DeviceError, Result};
use super::gemm::GemmType;
use super::gemm_call::{GemmCall, Op, gemm_reference};
use super::traits::{
    Device, DeviceInfo, Graph, KernelId, KernelRun, Launch, Mailbox, MemoryInfo, Profiler, Staging,
    Timer,
};
use half::f16;
use objects::{SimGraph, SimMailbox, SimProfiler, SimStaging, SimTimer};
use ptx_sim::{Config, Memory, Module, Simulator};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
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

/// What buffers and graphs keep alive.
struct Shared {
    simulator: Simulator,
    memory: RwLock<Memory>,
    module: Module,
    table: KernelTable,
    total: u64,
    /// What of it is taken.
    driver: Mutex<DriverMemory>,
    /// Allocations that still succeed.
    allocations_left: AtomicU64,
    /// The graph being recorded.
    recording: Mutex<Option<Vec<Work>>>,
    /// The kernels run since a profiler last asked, while there is one.
    profiled: Mutex<Option<Vec<KernelRun>>>,
    opened: Instant,
}

/// What can be sent to the device, and recorded.
enum Work {
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
        let ptx = select_ptx(images, capability)?.text.get();
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
        *self.shared.recording() = Some(Vec::new());
        let recording = Recording(&self.shared);
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

/// A device that is recording, until this is dropped: also when what is recorded fails or panics.
struct Recording<'a>(&'a Shared);

impl Recording<'_> {
    fn take(&self) -> Vec<Work> {
        self.0.recording().take().unwrap_or_default()
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        self.take();
    }
}

impl Shared {
    fn memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn driver(&self) -> MutexGuard<'_, DriverMemory> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory_info(&self) -> MemoryInfo {
        MemoryInfo {
            free: self.total.saturating_sub(self.driver().taken()),
            total: self.total,
        }
    }

    fn out_of_memory(&self, label: &str, bytes: u64) -> DeviceError {
        let MemoryInfo { free, total } = self.memory_info();
        DeviceError::OutOfMemory {
            label: label.into(),
            bytes,
            free,
            total,
        }
    }

    /// Lets the driver take the memory that something needs, if it is there.
    fn take(
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

    fn recording(&self) -> MutexGuard<'_, Option<Vec<Work>>> {
        self.recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn profiled(&self) -> MutexGuard<'_, Option<Vec<KernelRun>>> {
        self.profiled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a kernel, and records it for the profiler if there is one.
    fn profile(
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

    fn refuse_in_capture(&self, operation: &'static str) -> Result<()> {
        match self.recording().is_some() {
            true => Err(DeviceError::Capturing(operation)),
            false => Ok(()),
        }
    }

    fn read(&self, addr: u64, dst: &mut [u8]) -> Result<()> {
        if dst.is_empty() {
            return Ok(());
        }
        self.memory()
            .read(addr, dst)
            .map_err(|error| fault("a read", error))
    }

    fn write(&self, addr: u64, src: &[u8]) -> Result<()> {
        if src.is_empty() {
            return Ok(());
        }
        self.memory()
            .write(addr, src)
            .map_err(|error| fault("a write", error))
    }

    /// Records the work if a graph is being captured, or runs it.
    fn send(&self, work: Work) -> Result<()> {
        if let Some(recorded) = &mut *self.recording() {
            recorded.push(work);
            return Ok(());
        }
        self.run(&work)
    }

    fn run(&self, work: &Work) -> Result<()> {
        match work {
            Work::Launch {
                kernel,
                grid,
                block,
                shared,
                params,
                dependent,
            } => {
                let name = &self.table.get(*kernel)?.name;
                let launch = ptx_sim::Launch {
                    grid: *grid,
                    block: *block,
                    dynamic_shared: *shared,
                    params,
                    dependent: *dependent,
                };
                self.profile(name, (*grid, *block), || {
                    let ran = self
                        .simulator
                        .launch(&self.memory(), &self.module, name, &launch);
                    ran.map(drop).map_err(|error| fault(name, error))
                })
            }
            Work::Gemm(call) => self.profile("gemm", ([1; 3], [1; 3]), || self.gemm(call)),
            Work::Copy { dst, src, len } => {
                let mut bytes = vec![0; *len];
                // Whoever copies a page of the cache copies the part not yet written too.
                if *len > 0 {
                    let read = self.memory().read_lossy(*src, &mut bytes);
                    read.map_err(|error| fault("a copy", error))?;
                }
                self.write(*dst, &bytes)
            }
            Work::Fill { dst, len, byte } => self.write(*dst, &vec![*byte; *len]),
        }
    }

    fn gemm(&self, call: &GemmCall) -> Result<()> {
        let (m, n, k) = (call.m as usize, call.n as usize, call.k as usize);
        let (a_rows, a_columns) = if call.op_a == Op::N { (m, k) } else { (k, m) };
        let (b_rows, b_columns) = if call.op_b == Op::N { (k, n) } else { (n, k) };
        let a = self.read_columns(call.a, GemmType::F16, call.lda, a_rows, a_columns)?;
        let b = self.read_columns(call.b, GemmType::F16, call.ldb, b_rows, b_columns)?;
        let mut c = match call.accumulate {
            true => self.read_columns(call.c, call.c_ty, call.ldc, m, n)?,
            false => vec![0.0; call.ldc as usize * n],
        };
        gemm_reference(call, &a, &b, &mut c);
        let mut columns = Vec::with_capacity(n);
        for (j, column) in c.chunks(call.ldc as usize).enumerate() {
            let bytes: Vec<u8> = match call.c_ty {
                GemmType::F16 => column[..m]
                    .iter()
                    .flat_map(|&v| f16::from_f64(v).to_le_bytes())
                    .collect(),
                GemmType::F32 => column[..m]
                    .iter()
                    .flat_map(|&v| (v as f32).to_le_bytes())
                    .collect(),
            };
            let offset = j * call.ldc as usize * call.c_ty.size();
            columns.push((call.c + offset as u64, bytes));
        }
        let written = self.memory().write_as_launch(&columns);
        written.map_err(|error| fault("a product", error))
    }

    /// Reads a column-major matrix, without the padding between its columns, which may hold nothing.
    fn read_columns(
        &self,
        addr: u64,
        ty: GemmType,
        ld: u32,
        rows: usize,
        columns: usize,
    ) -> Result<Vec<f64>> {
        let ld = ld as usize;
        let mut matrix = vec![0.0; ld * columns];
        let mut bytes = vec![0; rows * ty.size()];
        for (j, column) in matrix.chunks_mut(ld).enumerate() {
            self.read(addr + (j * ld * ty.size()) as u64, &mut bytes)?;
            for (out, bytes) in column.iter_mut().zip(bytes.chunks(ty.size())) {
                *out = match ty {
                    GemmType::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f64(),
                    GemmType::F32 => {
                        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).into()
                    }
                };
            }
        }
        Ok(matrix)
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

fn fault(kernel: &str, error: impl std::fmt::Display) -> DeviceError {
    DeviceError::Simulator {
        kernel: kernel.to_owned(),
        reason: error.to_string(),
    }
}
