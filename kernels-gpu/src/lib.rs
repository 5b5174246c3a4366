//! The GPU kernels of hyperion. Compiled for `nvptx64-nvidia-cuda` it is a PTX module; compiled for
//! the host it is a plain library through which the engine shares the kernels' parameter structs,
//! tile constants and block layouts.
#![no_std]

pub mod quant;
