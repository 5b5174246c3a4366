//! Errors of reading a model out of a file.

use crate::gguf::GgufError;

/// Why a GGUF file could not become a [`Model`](super::Model).
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file itself is damaged, or a key or tensor is missing or has the wrong type.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// `general.architecture` names something hyperion has no row for.
    #[error("architecture {found:?} is not supported; hyperion runs {}", known.join(", "))]
    UnknownArchitecture {
        /// The value of `general.architecture`.
        found: String,
        /// The names in the architecture table.
        known: Vec<&'static str>,
    },
    /// A metadata value that cannot be right.
    #[error("metadata {key}: {what}")]
    Metadata {
        /// The key.
        key: String,
        /// What was found and what was expected.
        what: String,
    },
    /// A tensor whose shape does not follow from the metadata.
    #[error("tensor {name}: shape {found:?} (GGUF order), expected {expected:?}")]
    Shape {
        /// The tensor's name.
        name: String,
        /// Its dimensions, fastest first.
        found: Vec<usize>,
        /// What the metadata asks for.
        expected: Vec<usize>,
    },
}
