//! What a CUDA device hands out: graphs, timers, page-locked memory.

use super::super::buffer::BufferSlice;
use super::super::codes::CallError;
use super::super::error::{DeviceError, Result};
use super::super::traits::{Graph, KernelId, Mailbox, Staging, Timer};
use super::Products;
use super::api::Handle;
use super::context::{Shared, cust_call};
use super::module::Module;
use super::quiet::PageLocked;
use super::stream::Event;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// An instantiated graph; keeps the kernels that it launches loaded.
pub(super) struct CudaGraph {
    exec: Handle,
    /// Both before `shared`: unloading needs the context.
    _module: Arc<Module>,
    _products: Arc<Products>,
    shared: Arc<Shared>,
}

// SAFETY: graphs may be launched from any thread; launches take turns in the driver.
unsafe impl Send for CudaGraph {}
// SAFETY: as above; the handle never changes.
unsafe impl Sync for CudaGraph {}

impl CudaGraph {
    /// Instantiates a captured graph and destroys its description.
    ///
    /// # Safety
    /// `graph` came from a finished capture, and its kernels are of `module` and of cuBLAS in `products`.
    pub unsafe fn new(
        shared: &Arc<Shared>,
        module: &Arc<Module>,
        products: &Arc<Products>,
        graph: Handle,
    ) -> Result<Self> {
        let mut exec = std::ptr::null_mut();
        // SAFETY: `graph` is whole, and used for the last time.
        let made = unsafe {
            let made = shared.api.cuGraphInstantiateWithFlags(&mut exec, graph, 0);
            let _ = shared.api.cuGraphDestroy(graph);
            made
        };
        made?;
        Ok(CudaGraph {
            exec,
            shared: shared.clone(),
            _module: module.clone(),
            _products: products.clone(),
        })
    }
}

impl Graph for CudaGraph {
    unsafe fn replay(&self) -> Result<()> {
        self.shared.enter_outside_capture("replaying a graph")?;
        // SAFETY: the graph is alive; its buffers are the caller's promise.
        Ok(unsafe {
            self.shared
                .api
                .cuGraphLaunch(self.exec, self.shared.raw_stream())
        }?)
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        let _ = self.shared.enter();
        // SAFETY: destroyed once; the driver waits with that for launches under way.
        let _ = unsafe { self.shared.api.cuGraphExecDestroy(self.exec) };
    }
}

/// Two events on the stream.
pub(super) struct CudaTimer {
    start: Event,
    stop: Event,
    shared: Arc<Shared>,
}

impl CudaTimer {
    /// A timer that has measured nothing yet.
    pub fn new(shared: &Arc<Shared>) -> Result<Self> {
        shared.enter()?;
        let event = || Event::new(shared.api, true);
        Ok(CudaTimer {
            start: event()?,
            stop: event()?,
            shared: shared.clone(),
        })
    }
}

impl Timer for CudaTimer {
    fn start(&mut self) -> Result<()> {
        self.shared.enter_outside_capture("a timer")?;
        Ok(self.start.record(&self.shared.stream)?)
    }

    fn stop(&mut self) -> Result<()> {
        self.shared.enter_outside_capture("a timer")?;
        Ok(self.stop.record(&self.shared.stream)?)
    }

    fn elapsed(&self) -> Result<Duration> {
        self.shared.enter()?;
        self.stop.wait()?;
        let ms = self.stop.ms_since(&self.start)?;
        Ok(Duration::from_secs_f64(f64::from(ms) * 1e-3))
    }
}

impl Drop for CudaTimer {
    fn drop(&mut self) {
        // The events' destructors need the context.
        let _ = self.shared.enter();
    }
}

/// Which kernel was sent last, for the errors of calls that wait.
pub(super) struct Sent {
    module: Arc<Module>,
    last_kernel: AtomicU32,
}

impl Sent {
    /// Nothing yet.
    pub fn new(module: Arc<Module>) -> Self {
        Sent {
            module,
            last_kernel: AtomicU32::new(u32::MAX),
        }
    }

    /// Notes a launch.
    pub fn note(&self, kernel: KernelId) {
        self.last_kernel.store(kernel.0, Ordering::Relaxed);
    }

    /// Adds the last kernel sent to an error of a call that waited.
    pub fn explain(&self, error: CallError) -> CallError {
        let last = KernelId(self.last_kernel.load(Ordering::Relaxed));
        match self.module.kernel(last) {
            Ok(kernel) => error.doing(format!(
                "waiting for the GPU; the last kernel sent: `{}`",
                kernel.entry.name
            )),
            Err(_) => error.doing("waiting for the GPU"),
        }
    }
}

/// Page-locked memory with the event that ends its last copy.
pub(super) struct CudaStaging {
    memory: PageLocked,
    copied: Event,
    shared: Arc<Shared>,
}

impl CudaStaging {
    /// Allocates `bytes` bytes.
    pub fn new(shared: &Arc<Shared>, bytes: usize) -> Result<Self> {
        shared.enter()?;
        let memory = cust_call("cuMemAllocHost_v2", PageLocked::new(bytes))
            .map_err(|e| e.doing(format!("page-locking {bytes} bytes of host memory")))?;
        let copied = Event::new(shared.api, false)?;

        Ok(CudaStaging {
            memory,
            copied,
            shared: shared.clone(),
        })
    }
}

impl Staging for CudaStaging {
    fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        self.shared.enter()?;
        self.copied.wait()?;

        Ok(&mut self.memory)
    }

    fn submit(&mut self, dst: BufferSlice<'_>) -> Result<()> {
        let shared = &self.shared;
        dst.check(Arc::as_ptr(shared).cast(), dst.len(), "an upload")?;
        if dst.len() > self.memory.len() {
            return Err(DeviceError::Range {
                label: dst.label().into(),
                len: dst.len(),
                what: format!("a staged upload of at most {} bytes", self.memory.len()),
            });
        }
        shared.enter_outside_capture("an upload")?;
        let (from, stream) = (self.memory.as_ptr(), shared.raw_stream());
        // SAFETY: both ranges have `dst.len()` bytes; ours is not touched before the event passes.
        unsafe {
            shared
                .api
                .cuMemcpyHtoDAsync_v2(dst.addr(), from.cast(), dst.len(), stream)?
        };
        Ok(self.copied.record(&shared.stream)?)
    }
}

impl Drop for CudaStaging {
    fn drop(&mut self) {
        // The memory must not go while a copy reads it.
        let _ = self.shared.enter();
        let _ = self.copied.wait();
    }
}

/// Page-locked memory that kernels write: in unified addressing they know it by its address here.
pub(super) struct CudaMailbox {
    memory: PageLocked,
    marks: [Event; 2],
    /// Before `shared`: unloading kernels needs the context.
    sent: Arc<Sent>,
    shared: Arc<Shared>,
}

impl CudaMailbox {
    /// Allocates `words` words.
    pub fn new(shared: &Arc<Shared>, sent: Arc<Sent>, words: usize) -> Result<Self> {
        shared.enter()?;
        let memory = cust_call("cuMemAllocHost_v2", PageLocked::new(4 * words))
            .map_err(|e| e.doing(format!("page-locking {words} words of host memory")))?;
        Ok(CudaMailbox {
            memory,
            marks: [
                Event::new(shared.api, false)?,
                Event::new(shared.api, false)?,
            ],
            sent,
            shared: shared.clone(),
        })
    }
}

impl Mailbox for CudaMailbox {
    fn addr(&self) -> u64 {
        self.memory.as_ptr() as u64
    }

    fn mark(&mut self, mark: usize) -> Result<()> {
        self.shared.enter_outside_capture("a mark")?;
        Ok(self.marks[mark].record(&self.shared.stream)?)
    }

    fn wait(&self, mark: usize) -> Result<()> {
        self.shared.enter()?;
        let waited = self.marks[mark].wait();
        Ok(waited.map_err(|e| self.sent.explain(e))?)
    }

    fn word(&self, index: usize) -> Result<u32> {
        if 4 * (index + 1) > self.memory.len() {
            return Err(DeviceError::Range {
                label: "mailbox".into(),
                len: self.memory.len(),
                what: format!("word {index}"),
            });
        }
        // SAFETY: inside, and page-aligned. Volatile, because kernels write it.
        Ok(unsafe {
            self.memory
                .as_ptr()
                .cast::<u32>()
                .add(index)
                .read_volatile()
        })
    }
}

impl Drop for CudaMailbox {
    fn drop(&mut self) {
        // The memory must not go while a kernel may write it.
        let _ = self.shared.enter();
        let _ = self.shared.stream.wait();
    }
}
