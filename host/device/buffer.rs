//! Device memory that knows its name and its length.

use super::error::{DeviceError, Result};
use std::fmt;
use std::sync::Arc;

/// What frees a [`Buffer`]; each device implements it for its own memory.
pub trait Allocator: Send + Sync {
    /// Frees memory that this allocator gave out. Failures have nowhere to go and are ignored.
    ///
    /// # Safety
    /// `addr` is the address of an allocation of `len` bytes of this allocator, not freed before.
    unsafe fn free(&self, addr: u64, len: usize);
}

/// An allocation on a device; freed when dropped.
pub struct Buffer {
    allocator: Arc<dyn Allocator>,
    addr: u64,
    len: usize,
    label: Box<str>,
}

impl Buffer {
    /// Wraps an allocation.
    ///
    /// # Safety
    /// `addr` is an allocation of `len` bytes of `allocator` that nobody else frees.
    pub unsafe fn from_raw(
        allocator: Arc<dyn Allocator>,
        addr: u64,
        len: usize,
        label: &str,
    ) -> Self {
        Buffer {
            allocator,
            addr,
            len,
            label: label.into(),
        }
    }

    /// The device address of the first byte.
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the buffer is for.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The whole buffer.
    pub fn all(&self) -> BufferSlice<'_> {
        BufferSlice {
            buffer: self,
            addr: self.addr,
            len: self.len,
        }
    }

    /// `len` bytes from byte `offset` on.
    ///
    /// # Errors
    /// The range reaches outside the buffer.
    pub fn slice(&self, offset: usize, len: usize) -> Result<BufferSlice<'_>> {
        self.all().slice(offset, len)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: `from_raw`'s contract; `addr` is private and dropped once.
        unsafe { self.allocator.free(self.addr, self.len) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Buffer({} at {:#x}, {} bytes)",
            self.label, self.addr, self.len
        )
    }
}

/// A range of a live [`Buffer`]; its existence proves the range valid.
#[derive(Clone, Copy, Debug)]
pub struct BufferSlice<'a> {
    buffer: &'a Buffer,
    addr: u64,
    len: usize,
}

impl<'a> BufferSlice<'a> {
    /// The device address of the first byte.
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the range has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The buffer's label.
    pub fn label(&self) -> &'a str {
        &self.buffer.label
    }

    /// `len` bytes from byte `offset` of this range on.
    ///
    /// # Errors
    /// The range reaches outside this one.
    pub fn slice(&self, offset: usize, len: usize) -> Result<BufferSlice<'a>> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(BufferSlice {
                buffer: self.buffer,
                addr: self.addr + offset as u64,
                len,
            }),
            _ => Err(self.out_of_range(format!("{len} bytes at {offset} are outside"))),
        }
    }

    /// Checks that the range belongs to `allocator`'s device and has `len` bytes.
    pub(super) fn check(&self, allocator: *const (), len: usize, what: &str) -> Result<()> {
        if Arc::as_ptr(&self.buffer.allocator).cast::<()>() != allocator {
            return Err(self.out_of_range(format!("{what} on another device than the buffer's")));
        }
        if self.len != len {
            return Err(
                self.out_of_range(format!("{what} of {len} bytes and a range of {}", self.len))
            );
        }
        Ok(())
    }

    fn out_of_range(&self, what: String) -> DeviceError {
        DeviceError::Range {
            label: self.label().into(),
            len: self.buffer.len,
            what,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Allocator for Counting {
        unsafe fn free(&self, _addr: u64, len: usize) {
            self.0.fetch_add(len, Ordering::Relaxed);
        }
    }

    fn buffer(allocator: &Arc<Counting>, len: usize) -> Buffer {
        let allocator: Arc<dyn Allocator> = allocator.clone();
        // SAFETY: `Counting` only counts; the address is never used.
        unsafe { Buffer::from_raw(allocator, 0x1000, len, "test") }
    }

    #[test]
    fn slices_are_checked() {
        let allocator = Arc::new(Counting::default());
        let b = buffer(&allocator, 100);
        let inner = b.slice(10, 50).unwrap().slice(40, 10).unwrap();
        assert_eq!((inner.addr(), inner.len()), (0x1000 + 50, 10));
        assert!(b.slice(100, 0).is_ok());
        for (offset, len) in [(0, 101), (101, 0), (usize::MAX, 2), (1, usize::MAX)] {
            let error = b.slice(offset, len).unwrap_err().to_string();
            assert!(error.contains("`test` has 100 bytes"), "{error}");
        }
        assert!(b.slice(10, 50).unwrap().slice(45, 6).is_err());
    }

    #[test]
    fn length_and_owner_are_checked() {
        let (ours, theirs) = (Arc::new(Counting::default()), Arc::new(Counting::default()));
        let b = buffer(&ours, 8);
        let id = |a: &Arc<Counting>| Arc::as_ptr(a).cast::<()>();
        assert!(b.all().check(id(&ours), 8, "upload").is_ok());
        assert!(b.all().check(id(&ours), 7, "upload").is_err());
        assert!(b.all().check(id(&theirs), 8, "upload").is_err());
    }

    #[test]
    fn a_dropped_buffer_is_freed_once() {
        let allocator = Arc::new(Counting::default());
        drop(buffer(&allocator, 12));
        assert_eq!(allocator.0.load(Ordering::Relaxed), 12);
    }
}
