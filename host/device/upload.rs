//! Large uploads: from a file mapping through two page-locked buffers.
//!
//! While the device copies one buffer, several threads fill the other from the mapping (whose pages
//! may still have to come from disk), so that reading and copying overlap.

use super::buffer::BufferSlice;
use super::error::{DeviceError, Result};
use super::traits::{Device, Staging};
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// Size of each of the two buffers: long enough to hide a copy's start, short enough for a progress
/// bar that moves and for a prompt end on Ctrl-C.
pub const STAGING_BYTES: usize = 16 << 20;

/// Piece that one thread copies at a time.
const PIECE_BYTES: usize = 512 << 10;

/// Uploads slices one after another; see the module's text.
pub struct Uploader<'a> {
    device: &'a dyn Device,
    staging: [Box<dyn Staging>; 2],
    next: usize,
    done: u64,
    cancel: &'a AtomicBool,
    progress: &'a mut dyn FnMut(u64),
}

impl<'a> Uploader<'a> {
    /// An uploader that calls `progress` with the bytes uploaded so far, and stops soon after
    /// `cancel` becomes true.
    pub fn new(
        device: &'a dyn Device,
        cancel: &'a AtomicBool,
        progress: &'a mut dyn FnMut(u64),
    ) -> Result<Self> {
        let staging = [
            device.staging(STAGING_BYTES)?,
            device.staging(STAGING_BYTES)?,
        ];
        Ok(Uploader {
            device,
            staging,
            next: 0,
            done: 0,
            cancel,
            progress,
        })
    }

    /// Copies `src` to `dst`, of the same length. `src` can be unmapped on return; the device may
    /// still be copying from the staging buffers.
    ///
    /// # Errors
    /// Different lengths, a failed copy, or [`DeviceError::Cancelled`].
    pub fn upload(&mut self, dst: BufferSlice<'_>, src: &[u8]) -> Result<()> {
        if dst.len() != src.len() {
            return Err(DeviceError::Range {
                label: dst.label().into(),
                len: dst.len(),
                what: format!("an upload of {} bytes", src.len()),
            });
        }
        for (i, part) in src.chunks(STAGING_BYTES).enumerate() {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(DeviceError::Cancelled);
            }
            let staging = &mut self.staging[self.next];
            self.next ^= 1;
            let memory = staging.bytes_mut()?;
            memory[..part.len()]
                .par_chunks_mut(PIECE_BYTES)
                .zip(part.par_chunks(PIECE_BYTES))
                .for_each(|(to, from)| to.copy_from_slice(from));
            staging.submit(dst.slice(i * STAGING_BYTES, part.len())?)?;
            self.done += part.len() as u64;
            (self.progress)(self.done);
        }
        Ok(())
    }

    /// Waits for the last copies.
    pub fn finish(self) -> Result<()> {
        self.device.synchronize()
    }
}
