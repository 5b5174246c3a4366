//! Errors of reading a model out of a file.

use crate::gguf::GgufError;

/// Why a GGUF file could not become a [`Model`](super::Model).
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file itself is damaged, or a key or tensor is missing or has the wrong type.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// `general.architecture` names something hyperion has no row for.
    #[error(
        "architecture {found:?} is not supported{}; hyperion runs {}",
        what.map(|what| format!(" ({what})")).unwrap_or_default(),
        known.join(", ")
    )]
    UnknownArchitecture {
        /// The value of `general.architecture`.
        found: String,
        /// What such a file is, where it is no language model.
        what: Option<&'static str>,
        /// The names in the architecture table.
        known: Vec<&'static str>,
    },
    /// The file is not a model: an adapter, a projector, calibration data.
    #[error("general.type is {0:?}: the file is no language model, but belongs to one")]
    NotAModel(String),
    /// A metadata value that cannot be right, or that asks for what there is not.
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
    /// A tensor that no formula of this architecture uses.
    #[error("tensor {name:?}: {what}")]
    UnusedTensor {
        /// The tensor's name.
        name: String,
        /// What it would need.
        what: String,
    },
}
