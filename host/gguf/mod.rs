//! GGUF files: a mapped, validated reader.
//!
//! A file is untrusted input. Everything that a length, count, offset, dimension or type could do
//! wrong is checked when the file is opened; afterwards views of it cannot fail. Opening allocates
//! at most [`MAX_EXPANSION`] bytes for each byte of the file's header (metadata and tensor table),
//! plus [`FIXED_ALLOWANCE`]; tensor data is never copied.

mod cursor;
mod damage;
mod error;
mod header;
mod index;
mod kind;
mod metadata;
mod parts;
pub mod quant;
mod storage;
mod tensor;
mod truncation;
mod ty;
mod value;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::{GgufError, Problem};
pub use metadata::{FromValue, Metadata};
pub use tensor::{Tensor, UnreadTensor};
pub use ty::GgmlType;
pub use value::{Array, Element, StringArray, Value, ValueType};

use header::Header;
use index::NameIndex;
use storage::Storage;

/// Bytes of memory that a byte of a file's header can cost at most.
pub const MAX_EXPANSION: usize = 24;

/// Bytes of memory that opening a file can cost beyond [`MAX_EXPANSION`].
pub const FIXED_ALLOWANCE: usize = 64 << 10;

/// A GGUF file that has been found valid, or a model in several of them.
#[derive(Debug)]
pub struct Gguf {
    path: Arc<Path>,
    parts: Vec<PathBuf>,
    version: u32,
    alignment: u64,
    metadata: Metadata,
    tensors: Vec<Tensor>,
    by_name: NameIndex,
    unread: Vec<UnreadTensor>,
    unread_by_name: NameIndex,
}

impl Gguf {
    /// Maps and validates the file at `path`, and the others where it is a part of a model in several
    /// files. They must not be changed while they are in use: should one be cut off, the process ends with
    /// a message and exit code 1 as soon as the missing data is needed.
    ///
    /// # Errors
    /// Where it cannot be opened, is not a GGUF file of version 2 or 3, is cut off, contradicts
    /// itself, or another part is missing. The error names the file, and the field, tensor and offset.
    pub fn open(path: &Path) -> Result<Gguf, GgufError> {
        let first = Part::open(path)?;
        let others = parts::others(path, &first.header)
            .map_err(|problem| GgufError::new(&first.path, problem))?;
        let Some(others) = others else {
            return Gguf::assemble(vec![first]);
        };
        let mut all = Vec::with_capacity(others.len());
        let mut first = Some(first);
        for other in &others {
            all.push(match first.take_if(|first| *first.path == **other) {
                Some(first) => first,
                None => Part::open(other)?,
            });
        }
        for (index, part) in all.iter().enumerate() {
            parts::check(&part.header, index, all.len())
                .map_err(|problem| GgufError::new(&part.path, problem))?;
        }
        let n_tensors = all.iter().map(|part| part.header.n_tensors()).sum();
        parts::check_total(&all[0].header, n_tensors)
            .map_err(|problem| GgufError::new(&all[0].path, problem))?;
        Gguf::assemble(all)
    }

    /// Validates a file that is in memory; its `path` is `<memory>`.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Gguf, GgufError> {
        let storage = Storage::copy(&bytes);
        Gguf::assemble(vec![Part::read(Path::new("<memory>").into(), storage)?])
    }

    /// One model of its parts, of which the first has the metadata.
    fn assemble(parts: Vec<Part>) -> Result<Gguf, GgufError> {
        let path = parts[0].path.clone();
        let (mut tensors, mut unread) = (Vec::new(), Vec::new());
        let mut first = None;
        let paths = parts.iter().map(|part| part.path.to_path_buf()).collect();
        for Part {
            path,
            storage,
            header,
        } in parts
        {
            let views = header.tensors.into_iter();
            tensors.extend(views.map(|info| Tensor::new(info, path.clone(), storage.clone())));
            unread.extend(header.unread);
            first.get_or_insert_with(|| {
                let metadata = Metadata::new(path, header.metadata, header.keys, header.damaged);
                (header.version, header.alignment, metadata)
            });
        }
        let (version, alignment, metadata) = first.expect("a model has one part at least");
        let twice =
            |name: &str| GgufError::new(&path, Problem::Duplicate(format!("tensor {name}")));
        let by_name = NameIndex::new(tensors.len(), |i| tensors[i].name())
            .map_err(|i| twice(tensors[i].name()))?;
        let unread_by_name = NameIndex::new(unread.len(), |i: usize| unread[i].name.as_str())
            .map_err(|i| twice(&unread[i].name))?;
        let both = unread
            .iter()
            .find(|unread| by_name.find(&unread.name, |i| tensors[i].name()).is_some());
        if let Some(both) = both {
            return Err(twice(&both.name));
        }
        Ok(Gguf {
            path,
            parts: paths,
            version,
            alignment,
            metadata,
            tensors,
            by_name,
            unread,
            unread_by_name,
        })
    }

    /// Where the file lies; of several, the first.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All files of the model in their order, one unless it is split.
    pub fn parts(&self) -> &[PathBuf] {
        &self.parts
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

    /// The tensors in the file's order, without those of types that are not read.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.by_name
            .find(name, |i| self.tensors[i].name())
            .map(|i| &self.tensors[i])
    }

    /// The tensors of types that are not read.
    pub fn unread_tensors(&self) -> &[UnreadTensor] {
        &self.unread
    }

    /// The number of all tensors, whether they can be read or not.
    pub fn n_tensors(&self) -> usize {
        self.tensors.len() + self.unread.len()
    }

    /// The tensor called `name`, or an error that names it, and its type where that is not read.
    pub fn require(&self, name: &str) -> Result<&Tensor, GgufError> {
        self.tensor(name).ok_or_else(|| {
            let unread = self
                .unread_by_name
                .find(name, |i| self.unread[i].name.as_str());
            let problem = match unread {
                Some(place) => self.unread[place].problem(),
                None => Problem::MissingTensor(name.to_owned()),
            };
            GgufError::new(&self.path, problem)
        })
    }
}

/// A file whose header has been read.
struct Part {
    path: Arc<Path>,
    storage: Arc<Storage>,
    header: Header,
}

impl Part {
    fn open(path: &Path) -> Result<Part, GgufError> {
        let storage =
            Storage::map(path).map_err(|problem| GgufError::new(&path.into(), problem))?;
        Part::read(path.into(), storage)
    }

    fn read(path: Arc<Path>, storage: Storage) -> Result<Part, GgufError> {
        let header =
            header::read(storage.bytes()).map_err(|problem| GgufError::new(&path, problem))?;
        Ok(Part {
            path,
            storage: Arc::new(storage),
            header,
        })
    }
}
