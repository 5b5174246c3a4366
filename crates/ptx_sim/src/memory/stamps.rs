//! Which launch used each word of an allocation last.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Numbers of launches, of which up to 2^32 are told apart.
pub(crate) struct Stamps {
    writes: Box<[AtomicU32]>,
    reads: Box<[AtomicU32]>,
}

impl Stamps {
    pub fn new(words: usize) -> Stamps {
        let none = || (0..words).map(|_| AtomicU32::new(0)).collect();
        Stamps {
            writes: none(),
            reads: none(),
        }
    }

    pub fn write(&self, launch: u64, offset: usize, bytes: u32) {
        stamp(&self.writes[words(offset, bytes)], launch);
    }

    pub fn read(&self, launch: u64, offset: usize, bytes: u32) {
        stamp(&self.reads[words(offset, bytes)], launch);
    }

    /// Whether one of these launches wrote there last.
    pub fn is_written_by(&self, launches: &Range<u64>, offset: usize, bytes: u32) -> bool {
        is_of(&self.writes[words(offset, bytes)], launches)
    }

    /// Whether one of these launches read or wrote there last.
    pub fn is_used_by(&self, launches: &Range<u64>, offset: usize, bytes: u32) -> bool {
        self.is_written_by(launches, offset, bytes)
            || is_of(&self.reads[words(offset, bytes)], launches)
    }
}

/// The words in which so many bytes lie.
fn words(offset: usize, bytes: u32) -> Range<usize> {
    offset / 4..(offset + bytes as usize).div_ceil(4)
}

fn stamp(stamps: &[AtomicU32], launch: u64) {
    for stamp in stamps {
        stamp.store(launch as u32, Relaxed);
    }
}

fn is_of(stamps: &[AtomicU32], launches: &Range<u64>) -> bool {
    let launches = launches.start as u32..launches.end as u32;
    stamps
        .iter()
        .any(|stamp| launches.contains(&stamp.load(Relaxed)))
}
