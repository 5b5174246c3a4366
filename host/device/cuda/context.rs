//! One GPU's context and stream, shared by everything that lives on the device.

use super::super::buffer::Allocator;
use super::super::codes::{CallError, Library, OUT_OF_MEMORY};
use super::super::error::{DeviceError, Result};
use super::api::{Api, Handle};
use super::quiet::{PageLocked, outside_captures, refuse_in_capture};
use super::stream::Stream;
use cust::context::Context;
use cust::error::{CudaError, CudaResult};
use cust::memory::{DevicePointer, cuda_free, cuda_malloc, mem_get_info};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Page-locked memory for small copies.
const RING_BYTES: usize = 256 << 10;
/// Copies up to this size go through the ring.
const SMALL_COPY: usize = 64 << 10;

/// A context, its one stream, and page-locked memory for small copies.
pub(super) struct Shared {
    pub api: &'static Api,
    ring: Mutex<Ring>,
    pub stream: Stream,
    pub context: Context,
}

struct Ring {
    memory: PageLocked,
    used: usize,
}

impl Shared {
    /// Makes the device's primary context current and a stream in it.
    pub fn new(api: &'static Api, device: cust::device::Device) -> Result<Self> {
        let context = cust_call("cuDevicePrimaryCtxRetain", Context::new(device))?;
        let stream = Stream::new(api)?;
        let memory = cust_call("cuMemAllocHost_v2", PageLocked::new(RING_BYTES))?;
        let ring = Mutex::new(Ring { memory, used: 0 });
        Ok(Shared {
            api,
            ring,
            stream,
            context,
        })
    }

    /// Makes the context current on this thread; every entry into the driver begins with it.
    pub fn enter(&self) -> Result<(), CallError> {
        // SAFETY: the context is alive as long as `self`.
        unsafe { self.api.cuCtxSetCurrent(self.context.as_raw().cast()) }
    }

    /// As [`Shared::enter`], for operations that cannot be captured.
    pub fn enter_outside_capture(&self, operation: &'static str) -> Result<()> {
        refuse_in_capture(operation)?;
        Ok(self.enter()?)
    }

    /// The stream's handle.
    pub fn raw_stream(&self) -> Handle {
        self.stream.raw()
    }

    /// Allocates device memory; the context is current.
    pub fn alloc(&self, bytes: usize, label: &str) -> Result<u64> {
        let _quiet = outside_captures();
        // SAFETY: the caller owns the memory and frees it through `Allocator`.
        match unsafe { cuda_malloc::<u8>(bytes.max(1)) } {
            Ok(pointer) => Ok(pointer.as_raw()),
            Err(error) if error as u32 == OUT_OF_MEMORY => {
                let (free, total) = mem_get_info().unwrap_or_default();
                Err(DeviceError::OutOfMemory {
                    label: label.to_owned(),
                    bytes: bytes as u64,
                    free: free as u64,
                    total: total as u64,
                })
            }
            Err(error) => Err(call_error("cuMemAlloc_v2", error)
                .doing(format!("allocating {bytes} bytes for {label}"))
                .into()),
        }
    }

    /// Copies `src` to device memory; `src` can be reused on return.
    ///
    /// # Safety
    /// `dst` is live device memory of `src.len()` bytes.
    pub unsafe fn upload(&self, dst: u64, src: &[u8]) -> Result<(), CallError> {
        let stream = self.raw_stream();
        if src.len() > SMALL_COPY {
            // SAFETY: `src` is alive until the wait returns.
            unsafe {
                self.api
                    .cuMemcpyHtoDAsync_v2(dst, src.as_ptr().cast(), src.len(), stream)?
            };
            return self.stream.wait();
        }
        let mut ring = self.ring();
        let at = ring.take(src.len(), || self.stream.wait())?;
        ring.memory[at..at + src.len()].copy_from_slice(src);
        // SAFETY: this part of the ring is not written again before the stream has been waited for.
        unsafe {
            let from = ring.memory.as_ptr().add(at);
            self.api
                .cuMemcpyHtoDAsync_v2(dst, from.cast(), src.len(), stream)
        }
    }

    /// Waits for the stream and copies device memory to `dst`.
    ///
    /// # Safety
    /// `src` is live device memory of `dst.len()` bytes.
    pub unsafe fn download(&self, dst: &mut [u8], src: u64) -> Result<(), CallError> {
        let stream = self.raw_stream();
        if dst.len() > SMALL_COPY {
            // SAFETY: `dst` is borrowed until the wait returns.
            unsafe {
                self.api
                    .cuMemcpyDtoHAsync_v2(dst.as_mut_ptr().cast(), src, dst.len(), stream)?
            };
            return self.stream.wait();
        }
        let mut ring = self.ring();
        let at = ring.take(dst.len(), || self.stream.wait())?;
        // SAFETY: this part of the ring serves this copy alone until the wait returns.
        unsafe {
            let to = ring.memory.as_mut_ptr().add(at);
            self.api
                .cuMemcpyDtoHAsync_v2(to.cast(), src, dst.len(), stream)?;
        }
        self.stream.wait()?;
        dst.copy_from_slice(&ring.memory[at..at + dst.len()]);
        ring.used = 0;
        Ok(())
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// A part of `len` bytes that no copy under way uses; waits for the copies when none is left.
    fn take(
        &mut self,
        len: usize,
        wait: impl Fn() -> Result<(), CallError>,
    ) -> Result<usize, CallError> {
        if self.used + len > self.memory.len() {
            wait()?;
            self.used = 0;
        }
        let at = self.used;
        // 64-byte parts: no two copies share a cache line.
        self.used = (at + len).next_multiple_of(64);
        Ok(at)
    }
}

impl Allocator for Shared {
    unsafe fn free(&self, addr: u64, _len: usize) {
        // A lost context has freed its memory already, so failures are nothing to act on.
        if self.enter().is_ok() {
            let _quiet = outside_captures();
            // SAFETY: the caller's promise. `cuMemFree` waits for work that uses the memory.
            let _ = unsafe { cuda_free(DevicePointer::<u8>::from_raw(addr)) };
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The fields' destructors need the context, and no copy from the ring under way.
        let _ = self.enter();
        let _ = self.stream.wait();
    }
}

/// The error of a call that `cust` made.
pub(super) fn call_error(call: &'static str, error: CudaError) -> CallError {
    CallError::new(Library::Driver, call, error as u32)
}

/// Names the driver call behind a result of `cust`.
pub(super) fn cust_call<T>(call: &'static str, result: CudaResult<T>) -> Result<T, CallError> {
    result.map_err(|error| call_error(call, error))
}
