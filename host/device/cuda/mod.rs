//! The CUDA device: `cust` for contexts, devices and memory, our own declarations for what it lacks,
//! cuBLAS for matrix products, CUPTI for profiles.

mod api;
mod context;
mod cublas;
mod cupti;
mod module;
mod objects;
mod probe;
mod quiet;
mod search;
mod stream;

pub use cublas::WORKSPACE_BYTES;

use super::buffer::{Buffer, BufferSlice};
use super::entries::ptx_version;
use super::error::{DeviceError, Result};
use super::gemm_call::GemmCall;
use super::traits::{
    Device, DeviceInfo, Graph, KernelId, Launch, Mailbox, MemoryInfo, Profiler, Staging, Timer,
};
use crate::ptx::{PtxImage, select};
use api::{Handle, LaunchAttribute, LaunchConfig};
use context::{Shared, cust_call};
use cublas::Cublas;
use cupti::CuptiProfiler;
use module::Module;
use objects::{CudaGraph, CudaMailbox, CudaStaging, CudaTimer, Sent};
use quiet::outside_captures;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A GPU with loaded kernels and cuBLAS. All work goes to one stream.
pub struct CudaDevice {
    info: DeviceInfo,
    products: Arc<Products>,
    module: Arc<Module>,
    ptx: &'static str,
    /// Named when a wait reports a fault, which CUDA does not attribute.
    sent: Arc<Sent>,
    shared: Arc<Shared>,
}

/// cuBLAS and the memory that it works in.
struct Products {
    cublas: Mutex<Cublas>,
    /// Dropped after cuBLAS.
    _workspace: Buffer,
}

impl CudaDevice {
    /// Opens GPU `ordinal`, loads the PTX image that suits it, and starts cuBLAS.
    ///
    /// # Errors
    /// No driver, an old one, no such GPU, a GPU that is too old, PTX that the driver refuses, no
    /// cuBLAS; each says what to do.
    pub fn open(ordinal: usize, images: &[PtxImage]) -> Result<Self> {
        let (api, device, info) = probe::probe(ordinal)?;
        let ptx = select(images, info.compute_capability)?.text.get();

        let shared = Arc::new(Shared::new(api, device)?);
        let module = Arc::new(Module::new(api, ptx, &info)?);
        let workspace = alloc(&shared, WORKSPACE_BYTES, "cuBLAS workspace")?;
        // SAFETY: the context is current since `Shared::new`; the workspace is kept beside.
        let cublas = unsafe { Cublas::open(shared.raw_stream(), workspace.addr()) }?;
        Ok(CudaDevice {
            info,
            products: Arc::new(Products {
                cublas: Mutex::new(cublas),
                _workspace: workspace,
            }),
            sent: Arc::new(Sent::new(module.clone())),
            module,
            ptx,
            shared,
        })
    }

    /// Version and place of the cuBLAS in use.
    pub fn cublas(&self) -> String {
        self.lock_cublas().describe()
    }

    fn lock_cublas(&self) -> MutexGuard<'_, Cublas> {
        let cublas = self.products.cublas.lock();
        cublas.unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, range: BufferSlice<'_>, len: usize, what: &str) -> Result<()> {
        range.check(Arc::as_ptr(&self.shared).cast(), len, what)
    }
}

impl Device for CudaDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn memory(&self) -> Result<MemoryInfo> {
        self.shared.enter()?;
        let (free, total) = cust_call("cuMemGetInfo_v2", cust::memory::mem_get_info())?;
        Ok(MemoryInfo {
            free: free as u64,
            total: total as u64,
        })
    }

    fn alloc(&self, bytes: usize, label: &str) -> Result<Buffer> {
        alloc(&self.shared, bytes, label)
    }

    fn staging(&self, bytes: usize) -> Result<Box<dyn Staging>> {
        Ok(Box::new(CudaStaging::new(&self.shared, bytes)?))
    }

    fn mailbox(&self, words: usize) -> Result<Box<dyn Mailbox>> {
        let sent = self.sent.clone();
        Ok(Box::new(CudaMailbox::new(&self.shared, sent, words)?))
    }

    fn upload(&self, dst: BufferSlice<'_>, src: &[u8]) -> Result<()> {
        self.check(dst, src.len(), "an upload")?;
        self.shared.enter_outside_capture("an upload")?;
        // SAFETY: `dst` is live memory of this device and as long as `src`.
        let sent = unsafe { self.shared.upload(dst.addr(), src) };
        Ok(sent.map_err(|e| self.sent.explain(e))?)
    }

    fn download(&self, dst: &mut [u8], src: BufferSlice<'_>) -> Result<()> {
        self.check(src, dst.len(), "a download")?;
        self.shared.enter_outside_capture("a download")?;
        // SAFETY: `src` is live memory of this device and as long as `dst`.
        let received = unsafe { self.shared.download(dst, src.addr()) };
        Ok(received.map_err(|e| self.sent.explain(e))?)
    }

    fn copy(&self, dst: BufferSlice<'_>, src: BufferSlice<'_>) -> Result<()> {
        self.check(src, src.len(), "a copy")?;
        self.check(dst, src.len(), "a copy")?;
        if src.is_empty() {
            return Ok(());
        }
        self.shared.enter()?;
        let stream = self.shared.raw_stream();
        // SAFETY: both are live memory of this device, of one length.
        let sent = unsafe {
            self.shared
                .api
                .cuMemcpyDtoDAsync_v2(dst.addr(), src.addr(), src.len(), stream)
        };
        Ok(sent?)
    }

    fn fill(&self, dst: BufferSlice<'_>, byte: u8) -> Result<()> {
        self.check(dst, dst.len(), "a fill")?;
        if dst.is_empty() {
            return Ok(());
        }
        self.shared.enter()?;
        let stream = self.shared.raw_stream();
        // SAFETY: `dst` is live memory of this device.
        Ok(unsafe {
            self.shared
                .api
                .cuMemsetD8Async(dst.addr(), byte, dst.len(), stream)
        }?)
    }

    fn kernel(&self, name: &str) -> Result<KernelId> {
        self.shared.enter()?;
        let loaded = self.module.load(name);
        loaded.map_err(|error| name_the_ptx(error, self.ptx))
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        let kernel = self.module.kernel(launch.kernel)?;
        let entry = &kernel.entry;
        entry.check(launch, &self.info)?;
        self.shared.enter()?;
        let mut attribute = LaunchAttribute {
            id: api::PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: 0,
            value: [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        };
        let dependent = launch.dependent && self.info.compute_capability >= (9, 0);
        let config = LaunchConfig {
            grid: launch.grid,
            block: launch.block,
            shared_bytes: launch.shared_bytes,
            stream: self.shared.raw_stream(),
            attributes: &mut attribute,
            attribute_count: dependent.into(),
        };
        let mut size = entry.param_bytes;
        let mut extra: [Handle; 5] = [
            api::PARAM_BUFFER_POINTER,
            launch.params.as_ptr().cast_mut().cast(),
            api::PARAM_BUFFER_SIZE,
            (&raw mut size).cast(),
            api::PARAM_END,
        ];
        // SAFETY: `check` passed: size and limits are the kernel's. The driver reads the parameters
        // before it returns. What they point at is the caller's promise.
        let sent = unsafe {
            let no_params = std::ptr::null_mut();
            self.shared.api.cuLaunchKernelEx(
                &config,
                kernel.function,
                no_params,
                extra.as_mut_ptr(),
            )
        };
        sent.map_err(|e| e.doing(format!("launching `{}`", entry.name)))?;
        self.sent.note(launch.kernel);
        Ok(())
    }

    unsafe fn gemm(&self, call: &GemmCall) -> Result<()> {
        self.shared.enter()?;
        // cuBLAS loads a kernel when it first needs it.
        let _quiet = outside_captures();
        // SAFETY: the caller's promise.
        let sent = unsafe { self.lock_cublas().gemm(call) };
        Ok(sent.map_err(|e| e.doing(format!("multiplying with {call}")))?)
    }

    fn synchronize(&self) -> Result<()> {
        self.shared.enter_outside_capture("waiting")?;
        Ok(self
            .shared
            .stream
            .wait()
            .map_err(|e| self.sent.explain(e))?)
    }

    fn capture(&self, record: &mut dyn FnMut() -> Result<()>) -> Result<Box<dyn Graph>> {
        let shared = &self.shared;
        shared.enter()?;
        let capture = quiet::capture()?;
        let stream = shared.raw_stream();
        // SAFETY: the stream is alive.
        unsafe {
            shared
                .api
                .cuStreamBeginCapture_v2(stream, api::CAPTURE_RELAXED)?
        };
        let capturing = Capturing(shared);
        let recorded = record();
        let ended = capturing.end();
        drop(capture);
        let graph = match (recorded, ended) {
            (Ok(()), Ok(graph)) => graph,
            (Err(error), Ok(graph)) => {
                // SAFETY: the capture's graph, used by nobody.
                let _ = unsafe { shared.api.cuGraphDestroy(graph) };
                return Err(error);
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        // SAFETY: the capture has ended; only this device's module and its cuBLAS launch on its stream.
        Ok(Box::new(unsafe {
            CudaGraph::new(shared, &self.module, &self.products, graph)
        }?))
    }

    fn timer(&self) -> Result<Box<dyn Timer>> {
        Ok(Box::new(CudaTimer::new(&self.shared)?))
    }

    fn profiler(&self) -> Result<Box<dyn Profiler>> {
        Ok(Box::new(CuptiProfiler::new(&self.shared)?))
    }
}

/// A stream that is capturing, until this ends it: also when what is recorded panics.
struct Capturing<'a>(&'a Shared);

impl Capturing<'_> {
    /// Ends the capture and gives its graph.
    fn end(self) -> Result<api::Handle> {
        let graph = self.end_now();
        std::mem::forget(self);
        graph
    }

    fn end_now(&self) -> Result<api::Handle> {
        let mut graph = std::ptr::null_mut();
        // SAFETY: the stream is alive, and capturing since this guard was made.
        unsafe {
            self.0
                .api
                .cuStreamEndCapture(self.0.raw_stream(), &mut graph)?
        };
        Ok(graph)
    }
}

impl Drop for Capturing<'_> {
    fn drop(&mut self) {
        if let Ok(graph) = self.end_now() {
            // SAFETY: the capture's graph, used by nobody.
            let _ = unsafe { self.0.api.cuGraphDestroy(graph) };
        }
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        // The fields' destructors need the context, and no work under way.
        let _ = self.shared.enter();
        let _ = self.shared.stream.wait();
    }
}

fn alloc(shared: &Arc<Shared>, bytes: usize, label: &str) -> Result<Buffer> {
    shared.enter()?;
    let addr = shared.alloc(bytes, label)?;
    // SAFETY: just allocated, owned by nobody else.
    Ok(unsafe { Buffer::from_raw(shared.clone(), addr, bytes, label) })
}

/// Adds the PTX version to a refusal for that reason.
fn name_the_ptx(error: DeviceError, ptx: &str) -> DeviceError {
    match (error, ptx_version(ptx)) {
        (DeviceError::Compile { source, log }, Some((major, minor))) => {
            let source = source.doing(format!("compiling PTX {major}.{minor}"));
            DeviceError::Compile { source, log }
        }
        (error, _) => error,
    }
}
