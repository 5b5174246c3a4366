//! The GPU kernels of hyperion. Compiled for `nvptx64-nvidia-cuda` it is a PTX module; compiled for
//! the host it is a plain library through which the engine shares the kernels' parameter structs,
//! tile constants and block layouts.
//!
//! - [`abi`]: what the host and the kernels agree on.
//! - [`ops`]: the kernels, one operation a file.
//! - [`prim`]: the GPU instructions that `cuda_std` has no name for; all inline PTX is there.
//! - [`quant`]: the layouts of quantized blocks.
#![no_std]
#![cfg_attr(target_arch = "nvptx64", feature(abi_ptx, asm_experimental_arch))]

pub mod abi;
pub mod ops;
pub mod prim;
pub mod quant;

#[cfg(target_arch = "nvptx64")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    cuda_std::misc::trap()
}
