//! A device around another one, of whose calls one fails, or all from one on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyperion::device::codes::{CallError, Library};
use hyperion::device::{
    Buffer, BufferSlice, Device, DeviceError, DeviceInfo, GemmCall, Graph, KernelId, Launch,
    Mailbox, MemoryInfo, Profiler, Result, Staging, Timer,
};

/// CUDA's code for memory that ran out.
const OUT_OF_MEMORY: u32 = 2;
/// CUDA's code for a launch that failed.
const LAUNCH_FAILED: u32 = 719;

/// Calls that may find no memory.
pub const TAKE_MEMORY: [&str; 7] = [
    "alloc", "staging", "mailbox", "kernel", "gemm", "capture", "replay",
];

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Once, for want of memory; calls that take none go on.
    OutOfMemory,
    /// Once, for another reason.
    Once,
    /// That one and all later ones: the device is lost.
    Lost,
}

/// The calls of a device.
#[derive(Clone, Default)]
pub struct Calls(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    made: Vec<&'static str>,
    /// The call that fails, and how.
    fails: Option<(usize, Failure)>,
    /// What the call that failed first was for.
    failed: Option<&'static str>,
}

impl Calls {
    /// Counts from 0 again; call `number` will fail.
    pub fn fail(&self, number: usize, failure: Failure) {
        let fails = Some((number, failure));
        *self.state() = State {
            fails,
            ..State::default()
        };
    }

    /// Counts from 0 again; no call fails.
    pub fn heal(&self) {
        *self.state() = State::default();
    }

    /// What the call was for that failed first.
    pub fn failed(&self) -> Option<&'static str> {
        self.state().failed
    }

    /// What the calls were for.
    pub fn made(&self) -> Vec<&'static str> {
        self.state().made.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a call pass or fail.
    fn pass(&self, what: &'static str) -> Result<()> {
        let mut state = self.state();
        let number = state.made.len();
        let takes_memory = TAKE_MEMORY.contains(&what);
        state.made.push(what);
        let code = match state.fails {
            Some((at, Failure::OutOfMemory)) if at == number && takes_memory => OUT_OF_MEMORY,
            Some((at, Failure::Once)) if at == number => LAUNCH_FAILED,
            Some((at, Failure::Lost)) if at <= number => LAUNCH_FAILED,
            _ => return Ok(()),
        };
        state.failed.get_or_insert(what);
        let error = CallError::new(Library::Driver, what, code);
        Err(DeviceError::Call(error))
    }
}

/// `inner`, whose calls fail as `calls` says.
pub struct FailingDevice<D> {
    pub inner: Arc<D>,
    pub calls: Calls,
}

impl<D: Device> Device for FailingDevice<D> {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }

    fn memory(&self) -> Result<MemoryInfo> {
        self.calls.pass("memory")?;
        self.inner.memory()
    }

    fn alloc(&self, bytes: usize, label: &str) -> Result<Buffer> {
        self.calls.pass("alloc")?;
        self.inner.alloc(bytes, label)
    }

    fn staging(&self, bytes: usize) -> Result<Box<dyn Staging>> {
        self.calls.pass("staging")?;
        self.inner.staging(bytes)
    }

    fn mailbox(&self, words: usize) -> Result<Box<dyn Mailbox>> {
        self.calls.pass("mailbox")?;
        let (inner, calls) = (self.inner.mailbox(words)?, self.calls.clone());
        Ok(Box::new(FailingMailbox { inner, calls }))
    }

    fn upload(&self, dst: BufferSlice<'_>, src: &[u8]) -> Result<()> {
        self.calls.pass("upload")?;
        self.inner.upload(dst, src)
    }

    fn download(&self, dst: &mut [u8], src: BufferSlice<'_>) -> Result<()> {
        self.calls.pass("download")?;
        self.inner.download(dst, src)
    }

    fn copy(&self, dst: BufferSlice<'_>, src: BufferSlice<'_>) -> Result<()> {
        self.calls.pass("copy")?;
        self.inner.copy(dst, src)
    }

    fn fill(&self, dst: BufferSlice<'_>, byte: u8) -> Result<()> {
        self.calls.pass("fill")?;
        self.inner.fill(dst, byte)
    }

    fn kernel(&self, name: &str) -> Result<KernelId> {
        self.calls.pass("kernel")?;
        self.inner.kernel(name)
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        self.calls.pass("launch")?;
        // SAFETY: the caller's.
        unsafe { self.inner.launch(launch) }
    }

    unsafe fn gemm(&self, call: &GemmCall) -> Result<()> {
        self.calls.pass("gemm")?;
        // SAFETY: the caller's.
        unsafe { self.inner.gemm(call) }
    }

    fn synchronize(&self) -> Result<()> {
        self.calls.pass("synchronize")?;
        self.inner.synchronize()
    }

    fn capture(&self, record: &mut dyn FnMut() -> Result<()>) -> Result<Box<dyn Graph>> {
        let graph = self.inner.capture(record)?;
        // A graph is refused when it is made of what was recorded.
        self.calls.pass("capture")?;
        let calls = self.calls.clone();
        Ok(Box::new(FailingGraph { graph, calls }))
    }

    fn timer(&self) -> Result<Box<dyn Timer>> {
        self.inner.timer()
    }

    fn profiler(&self) -> Result<Box<dyn Profiler>> {
        self.inner.profiler()
    }
}

struct FailingGraph {
    graph: Box<dyn Graph>,
    calls: Calls,
}

impl Graph for FailingGraph {
    unsafe fn replay(&self) -> Result<()> {
        self.calls.pass("replay")?;
        // SAFETY: the caller's.
        unsafe { self.graph.replay() }
    }
}

struct FailingMailbox {
    inner: Box<dyn Mailbox>,
    calls: Calls,
}

impl Mailbox for FailingMailbox {
    fn addr(&self) -> u64 {
        self.inner.addr()
    }

    fn mark(&mut self, mark: usize) -> Result<()> {
        self.calls.pass("mark")?;
        self.inner.mark(mark)
    }

    fn wait(&self, mark: usize) -> Result<()> {
        self.calls.pass("wait")?;
        self.inner.wait(mark)
    }

    /// Reads the host's own memory, which does not fail.
    fn word(&self, index: usize) -> Result<u32> {
        self.inner.word(index)
    }
}
