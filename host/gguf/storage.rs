//! The bytes of a file: mapped, or in memory.

use std::fs::{self, File};
use std::path::Path;

use memmap2::Mmap;

use super::Problem;
use super::truncation::Watch;

/// The bytes of a file.
#[derive(Debug)]
pub(super) enum Storage {
    Mapped {
        /// Before the map, so that it is dropped first.
        _watch: Watch,
        map: Mmap,
    },
    /// Words, so that blocks which are aligned in the file are aligned in memory.
    Copied { words: Vec<u64>, len: usize },
}

impl Storage {
    /// Maps the file at `path`.
    pub(super) fn map(path: &Path) -> Result<Storage, Problem> {
        // Asked before opening it: opening a pipe would wait for a writer.
        let file_type = fs::metadata(path).map_err(Problem::Io)?;
        if file_type.is_dir() {
            return Err(Problem::NotAFile("a directory"));
        }
        if !file_type.is_file() {
            return Err(Problem::NotAFile("a device or a pipe"));
        }
        if file_type.len() == 0 {
            return Err(Problem::Empty);
        }
        let file = File::open(path).map_err(Problem::Io)?;
        // SAFETY: the mapping is private and read-only. Should another process change the file, the
        // bytes change under us; they are only ever read as plain numbers, for which every bit
        // pattern is valid, and strings are checked after they have been copied. Should it shorten
        // the file, the kernel sends us a signal, on which `Watch` ends the process.
        let map = unsafe { Mmap::map(&file) }.map_err(Problem::Io)?;
        Ok(Storage::Mapped {
            _watch: Watch::over(&map, path),
            map,
        })
    }

    /// Copies `bytes`.
    pub(super) fn copy(bytes: &[u8]) -> Storage {
        let mut words = vec![0; bytes.len().div_ceil(size_of::<u64>())];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Storage::Copied {
            words,
            len: bytes.len(),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Storage::Mapped { map, .. } => map,
            Storage::Copied { words, len } => &bytemuck::cast_slice(words)[..*len],
        }
    }
}
