//! What can be wrong with a file.

use std::io;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

use crate::escape::escape;

use super::ValueType;

/// A problem with a GGUF file. Its display is one line that begins with the file's path.
#[derive(Debug, Error)]
#[error("{}: {}", path.display(), escape(&problem.to_string()))]
pub struct GgufError {
    path: Arc<Path>,
    problem: Box<Problem>,
}

impl GgufError {
    pub(super) fn new(path: &Arc<Path>, problem: Problem) -> GgufError {
        GgufError {
            path: path.clone(),
            problem: Box::new(problem),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

/// What is wrong with a GGUF file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Problem {
    /// It cannot be opened, or not be mapped.
    #[error("cannot be read: {0}")]
    Io(io::Error),
    /// The path leads to a directory, a device or a pipe.
    #[error("is {0}, not a file; give the path of a GGUF file")]
    NotAFile(&'static str),
    /// It has no content.
    #[error("the file is empty")]
    Empty,
    /// It is something else.
    #[error("not a GGUF file: it begins with {0:02x?}, not with \"GGUF\"")]
    Magic(Vec<u8>),
    /// It is something else that is known.
    #[error("not a GGUF file but {0}")]
    Other(&'static str),
    /// Its numbers are big-endian.
    #[error("a big-endian GGUF file; convert it to little-endian")]
    BigEndian,
    /// Its version is not one that can be read.
    #[error("GGUF version {0}; versions 2 and 3 can be read")]
    Version(u32),
    /// It ends too early.
    #[error(
        "cut off: {field} at offset {offset} takes {needed} bytes, {left} are left; fetch the \
         file again"
    )]
    CutOff {
        /// What is being read.
        field: String,
        /// Where it begins in the file.
        offset: u64,
        /// Bytes it takes.
        needed: u64,
        /// Bytes from `offset` to the file's end.
        left: u64,
    },
    /// A field holds what it may not hold.
    #[error("{field} at offset {offset}: {reason}")]
    Field {
        /// The field.
        field: String,
        /// Where it begins in the file.
        offset: u64,
        /// What was found, and what was expected.
        reason: String,
    },
    /// Two entries bear one name.
    #[error("{0} occurs twice")]
    Duplicate(String),
    /// The metadata lacks a key.
    #[error("metadata has no {0}")]
    MissingKey(String),
    /// A metadata value is not what it is needed as.
    #[error("metadata {key} is {found}, where {expected} is needed")]
    WrongType {
        /// The key.
        key: String,
        /// What is needed.
        expected: &'static str,
        /// Type, and for a number the value, in the file.
        found: String,
    },
    /// The file lacks a tensor.
    #[error("has no tensor {0}")]
    MissingTensor(String),
    /// A part of a model in several files does not fit the others.
    #[error("{0}")]
    Part(String),
    /// Another part of a model in several files is not there.
    #[error("is a part of a model in {count} files, of which {missing} is missing")]
    MissingPart {
        /// The file that is missing.
        missing: String,
        /// Parts of the model.
        count: u32,
    },
    /// A tensor's data cannot be seen as the blocks of another type.
    #[error("tensor {tensor} of {found} at offset {offset} cannot be viewed as {expected}")]
    View {
        /// The tensor.
        tensor: String,
        /// Its type.
        found: super::GgmlType,
        /// Where its data begins in the file.
        offset: u64,
        /// The type asked for.
        expected: &'static str,
    },
}

impl Problem {
    pub(super) fn wrong_type(key: &str, expected: &'static str, found: ValueType) -> Problem {
        Problem::WrongType {
            key: key.to_owned(),
            expected,
            found: found.to_string(),
        }
    }
}
