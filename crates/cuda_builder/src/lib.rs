//! Compiles a crate of Rust kernels to PTX from a build script.
//!
//! ```no_run
//! use cuda_builder::{CudaBuilder, NvvmArch};
//!
//! let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").unwrap());
//! CudaBuilder::new("kernels")
//!     .arch(NvvmArch::Compute80)
//!     .copy_to(out.join("kernels.ptx"))
//!     .build()
//!     .unwrap_or_else(|error| panic!("{error}"));
//! ```
//!
//! The names are Rust-CUDA's; the compiler is rustc's own `nvptx64-nvidia-cuda` backend. It works
//! with any rustc that has that target's `core`, prebuilt or as source: see [`Toolchain::find`].
//! Two things that rustc cannot say are put into the PTX afterwards: see [`ptx`].

use std::path::{Path, PathBuf};
use std::{env, fs, io};

mod arch;
mod compile;
pub mod ptx;
mod toolchain;

pub use arch::NvvmArch;
pub use toolchain::{CoreLibrary, Toolchain};

/// Why there is no PTX.
#[derive(Debug, thiserror::Error)]
pub enum CudaBuilderError {
    /// No rustc here can compile for the GPU; the message says how to get one.
    #[error("{0}")]
    NoToolchain(String),
    /// The crate does not compile; the compiler has said why on standard error.
    #[error("compiling {} for {arch} failed ({status}); the compiler's messages are above", .crate_path.display())]
    BuildFailed {
        /// The crate.
        crate_path: PathBuf,
        /// The architecture.
        arch: NvvmArch,
        /// How cargo ended.
        status: std::process::ExitStatus,
    },
    /// The compiler's PTX is not in the form that the finishing pass understands.
    #[error("the PTX of {}: {source}", .crate_path.display())]
    Ptx {
        /// The crate.
        crate_path: PathBuf,
        /// What is wrong with it.
        source: ptx::PtxError,
    },
    /// A file or a process.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's error.
        source: io::Error,
    },
}

impl CudaBuilderError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// A build of one crate for one architecture; call it once for each architecture.
#[derive(Clone, Debug)]
pub struct CudaBuilder {
    path_to_crate: PathBuf,
    copy_to: Option<PathBuf>,
    arch: NvvmArch,
    generate_line_info: bool,
}

impl CudaBuilder {
    /// Builds the crate in this folder, relative to the build script's package.
    pub fn new(path_to_crate: impl AsRef<Path>) -> Self {
        Self {
            path_to_crate: path_to_crate.as_ref().to_owned(),
            copy_to: None,
            arch: NvvmArch::default(),
            generate_line_info: false,
        }
    }

    /// The lowest architecture that the PTX runs on.
    pub fn arch(mut self, arch: NvvmArch) -> Self {
        self.arch = arch;
        self
    }

    /// Where the PTX goes; otherwise it stays in `OUT_DIR`.
    pub fn copy_to(mut self, path: impl AsRef<Path>) -> Self {
        self.copy_to = Some(path.as_ref().to_owned());
        self
    }

    /// Whether profilers can map instructions to source lines.
    pub fn generate_line_info(mut self, generate_line_info: bool) -> Self {
        self.generate_line_info = generate_line_info;
        self
    }

    /// Compiles the crate, tells cargo when to do it again, and gives the PTX file's path.
    ///
    /// Builds of several profiles share the folder `device/ARCH` of cargo's target folder. Each architecture has its
    /// own, because cargo locks it: so they can be built side by side. The PTX file is rewritten only where it
    /// changes.
    pub fn build(&self) -> Result<PathBuf, CudaBuilderError> {
        for variable in toolchain::OVERRIDES {
            println!("cargo::rerun-if-env-changed={variable}");
        }
        let out_dir = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_else(|| "target".into()));
        let toolchain = Toolchain::find()?;
        let compiled = compile::compile(&compile::Job {
            toolchain: &toolchain,
            crate_path: &self.path_to_crate,
            arch: self.arch,
            line_info: self.generate_line_info,
            target_dir: &device_target_dir(&out_dir).join(self.arch.to_string()),
        })?;
        for source in &compiled.sources {
            println!("cargo::rerun-if-changed={}", source.display());
        }
        let finished = ptx::finish(&compiled.ptx).map_err(|source| CudaBuilderError::Ptx {
            crate_path: self.path_to_crate.clone(),
            source,
        })?;
        let path = self
            .copy_to
            .clone()
            .unwrap_or_else(|| out_dir.join(format!("kernels_{}.ptx", self.arch)));
        if fs::read_to_string(&path).ok().as_deref() != Some(&finished) {
            fs::write(&path, finished)
                .map_err(CudaBuilderError::io(format!("writing {}", path.display())))?;
        }
        Ok(path)
    }
}

/// `device` in cargo's target folder, which is four folders above
/// `target/PROFILE/build/PACKAGE-HASH/out`; below `out_dir` where that is no such place. `OUT_DIR`
/// itself changes with every dependency of the build script, and `core` would be compiled anew.
fn device_target_dir(out_dir: &Path) -> PathBuf {
    let build = out_dir.ancestors().nth(2);
    let in_cargo = build.is_some_and(|build| build.ends_with("build"));
    let target = out_dir.ancestors().nth(4).filter(|_| in_cargo);
    target.unwrap_or(out_dir).join("device")
}
