//! The user's folder of GGUF models.
//!
//! A model is named by path or by a short name: one of [`KNOWN_MODELS`], or the stem of a file in
//! the cache. The folder is `$HYPERION_CACHE`, else `$XDG_CACHE_HOME/hyperion`, else
//! `~/.cache/hyperion`; models lie in its `models/`, and whatever is still on its way in its
//! `staging/`, so that a file under its final name is always whole and verified. NVIDIA's tools for looking
//! into kernels, [`known_tools`], come the same way and lie in `tools/`; Python packages
//! that tests run lie in `python/`.
//!
//! This is a crate of its own because both the `hyperion` command and `xtask` need it, and `xtask`
//! must build before the toolchain that `hyperion`'s build script wants is installed.

mod cache;
mod error;
mod fetch;
mod known;
mod pip;
mod progress;
mod python;
mod split;
mod tools;
mod verify;

pub use cache::{Cache, CachedModel, resolve};
pub use error::Error;
pub use fetch::StagingLock;
pub use known::{KNOWN_MODELS, KnownModel, Piece, known_model};
pub use pip::Pip;
pub use progress::byte_bar;
pub use split::SplitName;
pub use tools::{KnownTool, known_tools};
pub use verify::{HashingWriter, verify_file};
