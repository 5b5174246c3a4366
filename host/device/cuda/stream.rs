//! The stream and its events. Not `cust`'s: its streams always take part in the implicit ordering with
//! the default stream, and anything that cuBLAS does there while such a stream is captured, such as
//! loading a kernel on first use, fails the capture.

use super::super::codes::CallError;
use super::api::{Api, Handle};

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;
/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: u32 = 2;

/// A queue of work on the GPU. The owner makes the context current before dropping it.
pub(super) struct Stream {
    api: &'static Api,
    handle: Handle,
}

// SAFETY: streams may be used from any thread that has their context current; the handle never
// changes.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    /// A stream of the current context.
    pub fn new(api: &'static Api) -> Result<Self, CallError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: a valid place for the answer.
        unsafe { api.cuStreamCreate(&mut handle, NON_BLOCKING)? };
        Ok(Stream { api, handle })
    }

    /// The driver's handle.
    pub fn raw(&self) -> Handle {
        self.handle
    }

    /// Waits for all work.
    pub fn wait(&self) -> Result<(), CallError> {
        // SAFETY: the stream is alive.
        unsafe { self.api.cuStreamSynchronize(self.handle) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: destroyed once.
        let _ = unsafe { self.api.cuStreamDestroy_v2(self.handle) };
    }
}

/// A mark in a stream. The owner makes the context current before dropping it.
pub(super) struct Event {
    api: &'static Api,
    handle: Handle,
}

// SAFETY: as for `Stream`.
unsafe impl Send for Event {}
// SAFETY: as for `Stream`.
unsafe impl Sync for Event {}

impl Event {
    /// An event of the current context, with or without a time stamp.
    pub fn new(api: &'static Api, timing: bool) -> Result<Self, CallError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: a valid place for the answer.
        unsafe { api.cuEventCreate(&mut handle, if timing { 0 } else { DISABLE_TIMING })? };
        Ok(Event { api, handle })
    }

    /// Puts the mark after the work sent so far.
    pub fn record(&self, stream: &Stream) -> Result<(), CallError> {
        // SAFETY: both are alive.
        unsafe { self.api.cuEventRecord(self.handle, stream.handle) }
    }

    /// Waits until the work before the mark has finished; at once if the mark was never put.
    pub fn wait(&self) -> Result<(), CallError> {
        // SAFETY: the event is alive.
        unsafe { self.api.cuEventSynchronize(self.handle) }
    }

    /// Milliseconds from `start` to this event, both passed.
    pub fn ms_since(&self, start: &Event) -> Result<f32, CallError> {
        let mut ms = 0.0;
        // SAFETY: both are alive, and a valid place for the answer.
        unsafe {
            self.api
                .cuEventElapsedTime(&mut ms, start.handle, self.handle)?
        };
        Ok(ms)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: destroyed once.
        let _ = unsafe { self.api.cuEventDestroy_v2(self.handle) };
    }
}
