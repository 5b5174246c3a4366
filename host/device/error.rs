//! What can go wrong on a device, in words that say what to do.

use super::codes::{CallError, Library, OUT_OF_MEMORY};
use super::plan::{Bytes, PlanError};
use crate::ptx::NoImage;
use std::path::PathBuf;
use thiserror::Error;

/// Result of a device operation.
pub type Result<T, E = DeviceError> = std::result::Result<T, E>;

/// An error of the GPU layer.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// A call to the driver, cuBLAS or CUPTI returned a status other than success.
    #[error(transparent)]
    Call(#[from] CallError),
    /// `libcuda.so.1` could not be loaded.
    #[error(
        "no NVIDIA driver on this machine ({detail}). Install the NVIDIA driver, or start the container with GPU \
         access"
    )]
    NoDriver {
        /// What the loader said.
        detail: String,
    },
    /// The driver sees no GPU, or not the one asked for.
    #[error(
        "there is no GPU {ordinal}: the driver sees {count}. Check `nvidia-smi` and \
         CUDA_VISIBLE_DEVICES"
    )]
    NoDevice {
        /// The ordinal asked for.
        ordinal: usize,
        /// How many GPUs the driver reports.
        count: usize,
    },
    /// The build has no CUDA support.
    #[error(
        "this build has no CUDA support: hyperion drives GPUs on Linux (x86-64 and aarch64) only"
    )]
    NoCuda,
    /// The GPU is older than the kernels.
    #[error(
        "{name} has compute capability {}.{}; hyperion's kernels need 8.0 (Ampere) or later", .capability.0, .capability.1
    )]
    OldGpu {
        /// The GPU's name.
        name: String,
        /// Its compute capability.
        capability: (u32, u32),
    },
    /// The driver is older than hyperion needs.
    #[error(
        "the NVIDIA driver is too old: it supports CUDA {}.{}{missing}, hyperion needs CUDA {}.{} \
         or later. Update the driver", .found.0, .found.1, .needed.0, .needed.1
    )]
    OldDriver {
        /// The CUDA version that the driver supports.
        found: (u32, u32),
        /// The CUDA version needed.
        needed: (u32, u32),
        /// The entry point that is missing, as a clause, or nothing.
        missing: String,
    },
    /// The driver refused the PTX.
    #[error("the driver could not compile the kernels: {source}{}", log_section(.log))]
    Compile {
        /// The failed call.
        source: CallError,
        /// The compiler's log.
        log: String,
    },
    /// No embedded PTX suits the GPU.
    #[error(transparent)]
    NoPtx(#[from] NoImage),
    /// No usable cuBLAS.
    #[error("{}", no_cublas(.searched, .failures))]
    NoCublas {
        /// The places searched.
        searched: Vec<PathBuf>,
        /// Libraries that were found and could not be used, each with its reason.
        failures: Vec<String>,
    },
    /// No usable CUPTI.
    #[error("{}", no_cupti(.searched, .failures))]
    NoCupti {
        /// The places searched.
        searched: Vec<PathBuf>,
        /// Libraries that were found and could not be used, each with its reason.
        failures: Vec<String>,
    },
    /// What CUPTI recorded is not whole.
    #[error("the record of the kernels is not whole: {0}")]
    Profile(String),
    /// An allocation failed.
    #[error(
        "out of GPU memory: {label} needs {}, {} of {} are free. Close other programs on the GPU, \
         or lower the context size or the batch", Bytes(*.bytes), Bytes(*.free), Bytes(*.total)
    )]
    OutOfMemory {
        /// What the allocation was for.
        label: String,
        /// Its size.
        bytes: u64,
        /// Free memory at that moment.
        free: u64,
        /// The device's memory.
        total: u64,
    },
    /// The memory plan does not fit.
    #[error("{0}")]
    Plan(Box<PlanError>),
    /// A copy or a slice reaches outside its buffer.
    #[error("buffer `{label}` has {len} bytes: {what}")]
    Range {
        /// The buffer's label.
        label: String,
        /// The buffer's length.
        len: usize,
        /// What was asked for.
        what: String,
    },
    /// The PTX has no such kernel.
    #[error("there is no kernel `{name}` in the loaded PTX ({count} kernels)")]
    NoKernel {
        /// The name asked for.
        name: String,
        /// How many kernels the module has.
        count: usize,
    },
    /// A launch that the device would refuse.
    #[error("cannot launch `{kernel}`: {reason}")]
    Launch {
        /// The kernel's name.
        kernel: String,
        /// What is wrong.
        reason: String,
    },
    /// A model that the kernels cannot run.
    #[error("{0}")]
    Unsupported(String),
    /// A matrix product whose operands do not fit together.
    #[error("matrix product refused: {0}")]
    Gemm(String),
    /// PTX that cannot be read or run.
    #[error("kernel code: {0}")]
    Ptx(String),
    /// A kernel failed on the simulator.
    #[error("simulator: kernel `{kernel}`: {reason}")]
    Simulator {
        /// The kernel's name.
        kernel: String,
        /// What happened.
        reason: String,
    },
    /// The device is recording a graph, where this operation cannot take part.
    #[error("{0} cannot be part of a graph: do it before or after the capture")]
    Capturing(&'static str),
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

fn log_section(log: &str) -> String {
    match log.trim() {
        "" => String::new(),
        log => format!("\ncompiler log:\n{log}"),
    }
}

fn no_cublas(searched: &[PathBuf], failures: &[String]) -> String {
    let advice = "no usable cuBLAS (libcublas.so.13 or libcublas.so.12). Install the CUDA toolkit, or \
         `pip install nvidia-cublas`, or set CUDA_PATH or LD_LIBRARY_PATH.";
    with_places(advice, searched, failures)
}

fn no_cupti(searched: &[PathBuf], failures: &[String]) -> String {
    let advice = "profiling needs CUPTI (libcupti.so.13 or libcupti.so.12), and none is usable. Install \
         the CUDA toolkit, or `pip install nvidia-cuda-cupti` (nvidia-cuda-cupti-cu12 with a driver for \
         CUDA 12), or set CUDA_PATH or LD_LIBRARY_PATH.";
    with_places(advice, searched, failures)
}

fn with_places(advice: &str, searched: &[PathBuf], failures: &[String]) -> String {
    let mut text = advice.to_owned();
    for failure in failures {
        text += &format!("\n  found, not usable: {failure}");
    }
    text += "\n  searched: the loader's path";
    for place in searched {
        text += &format!("\n  searched: {}", place.display());
    }
    text
}

impl DeviceError {
    /// Whether the device has too little memory for what was asked.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            DeviceError::OutOfMemory { .. } => true,
            DeviceError::Call(error) => {
                error.library == Library::Driver && error.code == OUT_OF_MEMORY
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named_with_the_places() {
        let searched: Vec<PathBuf> = vec!["/usr/local/cuda/lib64".into(), "/opt/cuda/lib64".into()];
        let failures = vec!["/x/lib.so.12: wrong ELF class".to_owned()];
        let (places, reasons) = (searched.clone(), failures.clone());
        let cublas = DeviceError::NoCublas { searched, failures };
        let cupti = DeviceError::NoCupti {
            searched: places,
            failures: reasons,
        };
        for (error, package) in [(cublas, "nvidia-cublas"), (cupti, "nvidia-cuda-cupti")] {
            let text = error.to_string();
            for part in [
                package,
                "/usr/local/cuda/lib64",
                "/opt/cuda/lib64",
                "wrong ELF class",
                "CUDA_PATH",
            ] {
                assert!(text.contains(part), "{part} is missing in: {text}");
            }
        }
    }

    #[test]
    fn out_of_memory_says_how_much() {
        let error = DeviceError::OutOfMemory {
            label: "kv cache".into(),
            bytes: 3 << 30,
            free: 1 << 30,
            total: 80 << 30,
        };
        let text = error.to_string();
        assert!(
            text.contains("kv cache needs 3.00 GiB, 1.00 GiB of 80.00 GiB are free"),
            "{text}"
        );
    }
}
