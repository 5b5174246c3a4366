//! # Device standard library
//!
//! Thread and block indices, barriers, warp operations, shared memory, atomics and math for kernels
//! that rustc's own `nvptx64-nvidia-cuda` backend compiles. Names and signatures follow Rust-CUDA's
//! `cuda_std`, so that a kernel can move to that backend; [`static_shared!`], [`shared::Shared`] and
//! the warp shuffles and votes go beyond its last published release (0.2.2).
//!
//! In a `no_std` crate with
//! `#![cfg_attr(target_arch = "nvptx64", feature(abi_ptx, asm_experimental_arch))]`:
//!
//! ```
//! use cuda_std::prelude::*;
//!
//! /// `y[i] += a * x[i]`
//! #[kernel(max_threads = 256)]
//! pub unsafe fn axpy(a: f32, x: *const f32, y: *mut f32, n: u32) {
//!     let i = thread::index_1d();
//!     if i < n {
//!         let i = i as usize;
//!         // SAFETY: the launch passes arrays of n elements.
//!         unsafe { *y.add(i) = a.mul_add(*x.add(i), *y.add(i)) };
//!     }
//! }
//! ```
//!
//! On other targets everything type-checks and panics when called.
//!
//! Everything is inline PTX: the intrinsics behind it are unstable in `core`, and only the features
//! `abi_ptx` and `asm_experimental_arch` are wanted. LLVM takes inline PTX for ordinary code that it
//! may duplicate into both sides of a branch, which a barrier or a shuffle must not be;
//! `cuda_builder` therefore turns the passes that do so off.
#![no_std]
#![cfg_attr(target_arch = "nvptx64", feature(asm_experimental_arch))]

// The macros name this crate by its name.
extern crate self as cuda_std;

pub use cuda_std_macros::{gpu_only, kernel, shared_array, static_shared};

pub mod atomic;
pub mod float;
pub mod mem;
pub mod misc;
pub mod shared;
pub mod thread;
pub mod warp;

pub use float::GpuFloat;

/// What most kernels use.
pub mod prelude {
    pub use crate::{GpuFloat, kernel, thread, warp};
}
