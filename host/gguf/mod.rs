//! GGUF files: a mapped, validated reader.
//!
//! A file is untrusted input. Everything that a length, count, offset, dimension or type could do
//! wrong is checked when the file is opened; afterwards views of it cannot fail. Opening allocates
//! at most [`MAX_EXPANSION`] bytes for each byte of the file's header (metadata and tensor table),
//! plus [`FIXED_ALLOWANCE`]; tensor data is never copied.

mod cursor;
mod error;
mod header;
mod index;
mod metadata;
pub mod quant;
mod storage;
mod tensor;
mod ty;
mod value;

use std::path::Path;
use std::sync::Arc;

pub use error::{GgufError, Problem};
pub use metadata::{FromValue, Metadata};
pub use tensor::Tensor;
pub use ty::GgmlType;
pub use value::{Array, Element, StringArray, Value, ValueType};

use index::NameIndex;
use storage::Storage;

/// Bytes of memory that a byte of a file's header can cost at most.
pub const MAX_EXPANSION: usize = 24;

/// Bytes of memory that opening a file can cost beyond [`MAX_EXPANSION`].
pub const FIXED_ALLOWANCE: usize = 64 << 10;

/// A GGUF file that has been found valid.
#[derive(Debug)]
pub struct Gguf {
    path: Arc<Path>,
    version: u32,
    alignment: u64,
    metadata: Metadata,
    tensors: Vec<Tensor>,
    by_name: NameIndex,
}

impl Gguf {
    /// Maps and validates the file at `path`. It must not be changed while it is in use.
    ///
    /// # Errors
    /// Where it cannot be opened, is not a GGUF file of version 2 or 3, is cut off, or contradicts
    /// itself. The error names the file, and the field, tensor and offset.
    pub fn open(path: &Path) -> Result<Gguf, GgufError> {
        let path: Arc<Path> = path.into();
        Storage::map(&path)
            .and_then(|storage| Gguf::read(path.clone(), storage))
            .map_err(|problem| GgufError::new(&path, problem))
    }

    /// Validates a file that is in memory; its `path` is `<memory>`.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Gguf, GgufError> {
        let path: Arc<Path> = Path::new("<memory>").into();
        Gguf::read(path.clone(), Storage::copy(&bytes))
            .map_err(|problem| GgufError::new(&path, problem))
    }

    fn read(path: Arc<Path>, storage: Storage) -> Result<Gguf, Problem> {
        let storage = Arc::new(storage);
        let header = header::read(storage.bytes())?;
        let tensors: Vec<Tensor> = header
            .tensors
            .into_iter()
            .map(|info| Tensor::new(info, path.clone(), storage.clone()))
            .collect();
        Ok(Gguf {
            metadata: Metadata::new(path.clone(), header.metadata, header.keys),
            path,
            version: header.version,
            alignment: header.alignment,
            tensors,
            by_name: header.tensor_names,
        })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format's version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Tensor data begins at multiples of this many bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors in the file's order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.by_name
            .find(name, |i| self.tensors[i].name())
            .map(|i| &self.tensors[i])
    }

    /// The tensor called `name`, or an error that names it.
    pub fn require(&self, name: &str) -> Result<&Tensor, GgufError> {
        self.tensor(name)
            .ok_or_else(|| GgufError::new(&self.path, Problem::MissingTensor(name.to_owned())))
    }
}
