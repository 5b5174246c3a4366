//! What a device is: the [`Device`] trait and what implements it.
//!
//! A [`Device`] allocates, copies, launches kernels, multiplies matrices and records graphs; nothing
//! else in the crate knows CUDA. Everything sent to one device runs in the order it was sent.
//!
//! - [`cuda`]: `cust` for contexts, devices and memory, the driver's own entry points for what
//!   `cust` lacks, cuBLAS, and CUPTI for profiling, all found at run time (`driver`). Linux on x86-64 and aarch64.
//! - [`sim`]: `ptx_sim` and a plain matrix product, everywhere.
//! - [`codes`]: what every driver and cuBLAS status means, and what to do about it.

mod bandwidth;
mod buffer;
pub mod choice;
pub mod codes;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub mod cuda;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod driver;
mod entries;
mod error;
mod gemm;
mod gemm_call;
pub mod plan;
mod process_end;
pub mod sim;
mod traits;
pub mod upload;

pub use bandwidth::copy_bandwidth;
pub use buffer::{Allocator, Buffer, BufferSlice};
pub use entries::{Entry, KernelTable};
pub use error::{DeviceError, Result};
pub use gemm::{Gemm, GemmType, Matrix};
pub use gemm_call::{GemmCall, Op, gemm_reference};
pub use process_end::end_process;
pub use traits::{
    Device, DeviceInfo, Graph, KernelId, KernelRun, Launch, Mailbox, MemoryInfo, Profiler, Staging,
    Timer,
};
