//! What can go wrong when the embedded PTX is read, or handed to NVIDIA's tools.

use thiserror::Error;

/// Result of a question about PTX.
pub type Result<T, E = PtxError> = std::result::Result<T, E>;

/// An error of the embedded PTX or of the tools that read it.
#[derive(Debug, Error)]
pub enum PtxError {
    /// The PTX has no such kernel.
    #[error("there is no kernel `{name}` in the embedded PTX ({count} kernels)")]
    NoKernel {
        /// The name asked for.
        name: String,
        /// How many kernels the module has.
        count: usize,
    },
    /// PTX that cannot be read, or none for an architecture.
    #[error("kernel code: {0}")]
    Unreadable(String),
    /// A tool of the CUDA toolkit is needed.
    #[error(
        "there is no `{name}` on this machine: in hyperion's source folder, `cargo xtask setup` fetches it for \
         Linux on x86-64 and aarch64; or install the CUDA toolkit, and set CUDA_HOME where it is not on PATH"
    )]
    NoTool {
        /// The tool.
        name: &'static str,
    },
    /// A tool of the CUDA toolkit failed.
    #[error("`{name}` failed: {reason}")]
    Tool {
        /// The tool.
        name: &'static str,
        /// What it said.
        reason: String,
    },
}
