//! One allocation: its bytes, which of them were written, and who wrote them last.
//!
//! Blocks run on several threads and kernels may be wrong, so every word is atomic; relaxed
//! accesses compile to plain moves. Narrow stores merge into the word by compare and swap, which
//! keeps neighbouring bytes of different threads apart.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::memory::stamps::Stamps;

pub(crate) struct Allocation {
    pub label: String,
    pub bytes: usize,
    words: Box<[AtomicU32]>,
    /// Four bits a word: which bytes were written.
    written: Box<[AtomicU8]>,
    /// Whether all bytes were written; spares the look into `written`.
    complete: AtomicBool,
    /// Accesses of the current launch, per granule of 4, 2 or 1 bytes.
    records: [OnceLock<Records>; 3],
    /// The last launch that wrote here.
    last_written: AtomicU64,
    /// Kept where launches may overlap.
    stamps: OnceLock<Box<Stamps>>,
    /// Makes 64-bit atomics whole.
    wide: Mutex<()>,
}

/// Last write and last read of each granule.
pub(crate) struct Records {
    pub writes: Box<[AtomicU64]>,
    pub reads: Box<[AtomicU64]>,
}

impl std::fmt::Debug for Allocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Allocation")
            .field("label", &self.label)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

fn zeroed64(count: usize) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

impl Allocation {
    pub fn new(bytes: usize, label: &str) -> Allocation {
        let words = bytes.div_ceil(4);
        Allocation {
            label: label.to_owned(),
            bytes,
            words: (0..words).map(|_| AtomicU32::new(0)).collect(),
            written: (0..words).map(|_| AtomicU8::new(0)).collect(),
            complete: AtomicBool::new(false),
            records: [OnceLock::new(), OnceLock::new(), OnceLock::new()],
            last_written: AtomicU64::new(0),
            stamps: OnceLock::new(),
            wide: Mutex::new(()),
        }
    }

    /// Loads 1, 2, 4 or 8 aligned bytes inside the allocation.
    #[inline]
    pub fn load(&self, offset: usize, bytes: u32) -> u64 {
        let word = u64::from(self.words[offset / 4].load(Relaxed));
        match bytes {
            8 => word | u64::from(self.words[offset / 4 + 1].load(Relaxed)) << 32,
            4 => word,
            _ => word >> (8 * (offset % 4)) & ((1 << (8 * bytes)) - 1),
        }
    }

    /// Stores 1, 2, 4 or 8 aligned bytes inside the allocation.
    #[inline]
    pub fn store(&self, offset: usize, bytes: u32, value: u64) {
        let word = &self.words[offset / 4];
        match bytes {
            8 => {
                word.store(value as u32, Relaxed);
                self.words[offset / 4 + 1].store((value >> 32) as u32, Relaxed);
                self.mark(offset / 4, 15);
                self.mark(offset / 4 + 1, 15);
            }
            4 => {
                word.store(value as u32, Relaxed);
                self.mark(offset / 4, 15);
            }
            _ => {
                let shift = 8 * (offset % 4);
                let mask = ((1u32 << (8 * bytes)) - 1) << shift;
                let value = (value as u32) << shift & mask;
                let merged = word.fetch_update(Relaxed, Relaxed, |old| Some(old & !mask | value));
                debug_assert!(merged.is_ok());
                self.mark(offset / 4, ((1 << bytes) - 1) << (offset % 4));
            }
        }
    }

    #[inline]
    fn mark(&self, word: usize, bits: u8) {
        let written = &self.written[word];
        if written.load(Relaxed) & bits != bits {
            written.fetch_or(bits, Relaxed);
        }
    }

    /// Whether 1, 2, 4, 8 or more aligned bytes were written.
    #[inline]
    pub fn is_written(&self, offset: usize, bytes: u32) -> bool {
        if self.complete.load(Relaxed) {
            return true;
        }
        if bytes < 4 {
            let bits = ((1 << bytes) - 1) << (offset % 4);
            return self.written[offset / 4].load(Relaxed) & bits == bits;
        }
        let words = &self.written[offset / 4..(offset + bytes as usize) / 4];
        words.iter().all(|word| word.load(Relaxed) == 15)
    }

    /// An indivisible update; gives the old value.
    pub fn update(&self, offset: usize, bytes: u32, f: impl Fn(u64) -> u64) -> u64 {
        let word = &self.words[offset / 4];
        let old = match bytes {
            8 => {
                let guard = self.wide.lock().unwrap_or_else(PoisonError::into_inner);
                let old = self.load(offset, 8);
                self.store(offset, 8, f(old));
                drop(guard);
                old
            }
            4 => {
                let updated =
                    word.fetch_update(Relaxed, Relaxed, |old| Some(f(u64::from(old)) as u32));
                u64::from(updated.unwrap_or_default())
            }
            _ => {
                let shift = 8 * (offset % 4);
                let mask = ((1u32 << (8 * bytes)) - 1) << shift;
                let updated = word.fetch_update(Relaxed, Relaxed, |old| {
                    let part = u64::from((old & mask) >> shift);
                    Some(old & !mask | (f(part) as u32) << shift & mask)
                });
                u64::from((updated.unwrap_or_default() & mask) >> shift)
            }
        };
        if bytes < 4 {
            self.mark(offset / 4, ((1 << bytes) - 1) << (offset % 4));
        } else {
            self.mark(offset / 4, 15);
        }
        old
    }

    /// Host copy into the allocation.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !at.is_multiple_of(4) && !rest.is_empty() {
            self.store(at, 1, u64::from(rest[0]));
            rest = &rest[1..];
            at += 1;
        }
        let (words, tail) = rest.as_chunks::<4>();
        for (index, word) in words.iter().enumerate() {
            self.words[at / 4 + index].store(u32::from_le_bytes(*word), Relaxed);
            self.written[at / 4 + index].store(15, Relaxed);
        }
        at += words.len() * 4;
        for (index, byte) in tail.iter().enumerate() {
            self.store(at + index, 1, u64::from(*byte));
        }
        if offset == 0 && bytes.len() == self.bytes {
            self.complete.store(true, Relaxed);
        }
    }

    /// Host copy out of the allocation.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !at.is_multiple_of(4) && !rest.is_empty() {
            rest[0] = self.load(at, 1) as u8;
            rest = &mut rest[1..];
            at += 1;
        }
        let (words, tail) = rest.as_chunks_mut::<4>();
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.words[at / 4 + index].load(Relaxed).to_le_bytes();
        }
        at += words.len() * 4;
        for (index, byte) in tail.iter_mut().enumerate() {
            *byte = self.load(at + index, 1) as u8;
        }
    }

    pub fn first_uninitialised(&self, offset: usize, bytes: usize) -> Option<usize> {
        if self.complete.load(Relaxed) {
            return None;
        }
        (offset..offset + bytes).find(|at| !self.is_written(*at, 1))
    }

    /// Notes that a launch writes here.
    pub fn note_write(&self, launch: u64) {
        if self.last_written.load(Relaxed) != launch {
            self.last_written.store(launch, Relaxed);
        }
    }

    pub fn is_written_in(&self, launch: u64) -> bool {
        self.last_written.load(Relaxed) == launch
    }

    /// Which launches used each word last.
    pub fn stamps(&self) -> &Stamps {
        self.stamps
            .get_or_init(|| Box::new(Stamps::new(self.words.len())))
    }

    /// The access records at a granularity of `1 << shift` bytes.
    pub fn records(&self, shift: u32) -> &Records {
        self.records[shift as usize].get_or_init(|| {
            let count = self.bytes.div_ceil(1 << shift);
            Records {
                writes: zeroed64(count),
                reads: zeroed64(count),
            }
        })
    }

    pub fn forget_records(&mut self) {
        self.records = [OnceLock::new(), OnceLock::new(), OnceLock::new()];
    }
}

/// Who accessed a granule last, in one word: launch, block, thread, time, and whether atomically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub launch: u64,
    pub block: u64,
    pub thread: u32,
    pub clock: u32,
    pub atomic: bool,
}

impl Record {
    /// Launches after which the numbers in the records repeat.
    pub const LAUNCHES: u64 = 1 << 10;
    const CLOCK_BITS: u32 = 19;
    const BLOCK_BITS: u32 = 24;
    /// Times from here on are not told apart.
    pub const LAST_CLOCK: u32 = (1 << Self::CLOCK_BITS) - 1;

    pub fn pack(self) -> u64 {
        let block = self.block & ((1 << Self::BLOCK_BITS) - 1);
        (self.launch % Self::LAUNCHES) << 54
            | block << 30
            | u64::from(self.thread) << 20
            | u64::from(self.clock.min(Self::LAST_CLOCK)) << 1
            | u64::from(self.atomic)
    }

    pub fn unpack(bits: u64) -> Record {
        Record {
            launch: bits >> 54,
            block: bits >> 30 & ((1 << Self::BLOCK_BITS) - 1),
            thread: (bits >> 20) as u32 & 1023,
            clock: (bits >> 1) as u32 & Self::LAST_CLOCK,
            atomic: bits & 1 == 1,
        }
    }

    /// Whether the record is of the same launch.
    pub fn is_of(self, launch: u64) -> bool {
        self.launch == launch % Self::LAUNCHES && self.launch != 0
    }

    /// Whether the record is of the same block.
    pub fn is_in(self, block: u64) -> bool {
        self.block == block & ((1 << Self::BLOCK_BITS) - 1)
    }
}
