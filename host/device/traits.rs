//! The [`Device`] trait: everything that the engine asks of a GPU.

use super::buffer::{Buffer, BufferSlice};
use super::error::Result;
use super::gemm_call::GemmCall;
use std::fmt;
use std::time::Duration;

/// Facts about a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Marketing name.
    pub name: String,
    /// Compute capability, major and minor.
    pub compute_capability: (u32, u32),
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// Size of the L2 cache in bytes.
    pub l2_bytes: u64,
    /// Memory of the device in bytes.
    pub total_memory: u64,
    /// The CUDA version that the driver supports, major and minor.
    pub driver_version: (u32, u32),
    /// Most threads in a block.
    pub max_threads_per_block: u32,
    /// Whether it is the simulator, whose speed says nothing.
    pub is_simulated: bool,
    /// Most shared memory a block can ask for, static and dynamic together, in bytes.
    pub max_shared_per_block: u32,
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.compute_capability;
        let (cuda_major, cuda_minor) = self.driver_version;
        let memory = super::plan::Bytes(self.total_memory);
        write!(
            f,
            "{} (compute capability {major}.{minor}, {} multiprocessors, {memory}, CUDA \
             {cuda_major}.{cuda_minor})",
            self.name, self.multiprocessors
        )
    }
}

/// Memory of a device at one moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Not in use by anyone.
    pub free: u64,
    /// In all.
    pub total: u64,
}

/// A kernel of one device's module, resolved once by [`Device::kernel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KernelId(pub(super) u32);

/// One kernel launch.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The kernel, of the device it is launched on.
    pub kernel: KernelId,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
    /// The bytes of the kernel's parameters, laid out as the PTX declares them: those of its one
    /// `#[repr(C)]` parameter struct.
    pub params: &'a [u8],
    /// Whether the kernel may start before its predecessor has ended (programmatic dependent
    /// launch); it then waits itself, by `griddepcontrol.wait`. Devices without it ignore this.
    pub dependent: bool,
}

/// A recorded sequence of launches, products, copies and fills.
pub trait Graph: Send + Sync {
    /// Runs the recorded work again, after everything sent to the device before.
    ///
    /// # Safety
    /// Every buffer that the recorded work uses is still alive and meets the recorded launches'
    /// requirements.
    unsafe fn replay(&self) -> Result<()>;
}

/// Measures the device time between two points of its work.
pub trait Timer: Send {
    /// Marks the beginning.
    fn start(&mut self) -> Result<()>;
    /// Marks the end.
    fn stop(&mut self) -> Result<()>;
    /// Waits for the end mark and gives the time between both.
    fn elapsed(&self) -> Result<Duration>;
}

/// One run of a kernel, by the device's own clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRun {
    /// The kernel's name.
    pub name: String,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// When it began, in nanoseconds.
    pub start: u64,
    /// When its last block ended, in nanoseconds.
    pub end: u64,
}

/// Records the kernels that a device runs, those of replayed graphs too, until it is dropped.
pub trait Profiler: Send {
    /// Waits for the device, and gives the kernels that ran since the last call in the order in which
    /// they began.
    ///
    /// # Errors
    /// A fault on the device, or records that are lost.
    fn take(&mut self) -> Result<Vec<KernelRun>>;
}

/// Page-locked host memory, from which a device copies while the host goes on.
pub trait Staging: Send {
    /// The memory, once the copies submitted from it have finished.
    fn bytes_mut(&mut self) -> Result<&mut [u8]>;
    /// Starts copying the first `dst.len()` bytes to `dst`.
    ///
    /// # Errors
    /// `dst` is longer than this memory, or is another device's.
    fn submit(&mut self, dst: BufferSlice<'_>) -> Result<()>;
}

/// Page-locked host memory that kernels write, for the host to read while later work runs: a copy between two graphs
/// would take longer than the gap that is there without it.
pub trait Mailbox: Send {
    /// Its address for kernels.
    fn addr(&self) -> u64;
    /// Puts mark `mark`, of two, behind the work sent so far.
    ///
    /// # Errors
    /// The driver's.
    fn mark(&mut self, mark: usize) -> Result<()>;
    /// Waits for the work before mark `mark`, and for none behind it.
    ///
    /// # Errors
    /// A fault in that work.
    fn wait(&self, mark: usize) -> Result<()>;
    /// Word `index`, which a kernel wrote that has been waited for.
    ///
    /// # Errors
    /// The memory ends before it.
    fn word(&self, index: usize) -> Result<u32>;
}

/// A GPU, real or simulated. Work runs in the order in which it is sent.
pub trait Device: Send + Sync {
    /// Facts about the device.
    fn info(&self) -> &DeviceInfo;

    /// Free and total memory now.
    fn memory(&self) -> Result<MemoryInfo>;

    /// Allocates `bytes` bytes, at least 256-byte aligned and not initialized; `label` names them in
    /// errors.
    fn alloc(&self, bytes: usize, label: &str) -> Result<Buffer>;

    /// Allocates page-locked host memory for large uploads.
    fn staging(&self, bytes: usize) -> Result<Box<dyn Staging>>;

    /// Allocates page-locked host memory of `words` words for kernels to write.
    fn mailbox(&self, words: usize) -> Result<Box<dyn Mailbox>>;

    /// Copies `src` to `dst`, of the same length. `src` can be reused on return.
    fn upload(&self, dst: BufferSlice<'_>, src: &[u8]) -> Result<()>;

    /// Waits for the device and copies `src` to `dst`, of the same length.
    fn download(&self, dst: &mut [u8], src: BufferSlice<'_>) -> Result<()>;

    /// Copies between two ranges of the same length that do not overlap.
    fn copy(&self, dst: BufferSlice<'_>, src: BufferSlice<'_>) -> Result<()>;

    /// Sets every byte of `dst`.
    fn fill(&self, dst: BufferSlice<'_>, byte: u8) -> Result<()>;

    /// Resolves a kernel; done once, when an engine is built.
    fn kernel(&self, name: &str) -> Result<KernelId>;

    /// Launches a kernel.
    ///
    /// # Errors
    /// The launch is outside the kernel's or the device's limits, or the parameters have the wrong
    /// size. A fault inside the kernel is reported by a later call that waits.
    ///
    /// # Safety
    /// Device addresses in `params` belong to live buffers of this device, which cover what the
    /// kernel accesses for this grid and these parameters; they stay alive until the kernel ends
    /// (freeing a buffer waits for that) and, under [`Device::capture`], until the last replay.
    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()>;

    /// Multiplies matrices.
    ///
    /// # Safety
    /// As for [`Device::launch`]: `call`'s operands are live and cover [`GemmCall::extents`].
    unsafe fn gemm(&self, call: &GemmCall) -> Result<()>;

    /// Waits until all work has finished, and reports its faults.
    fn synchronize(&self) -> Result<()>;

    /// Records the work that `record` sends, without running it. Launches, products, fills and
    /// copies on the device can be recorded; anything that waits cannot. No other thread may send
    /// work to the device meanwhile.
    fn capture(&self, record: &mut dyn FnMut() -> Result<()>) -> Result<Box<dyn Graph>>;

    /// A timer for this device's work.
    fn timer(&self) -> Result<Box<dyn Timer>>;

    /// Begins to record the kernels that run from now on. Graphs that were captured before may miss.
    ///
    /// # Errors
    /// What records kernels is not installed or refuses, or a profiler of this device is in use.
    fn profiler(&self) -> Result<Box<dyn Profiler>>;
}
