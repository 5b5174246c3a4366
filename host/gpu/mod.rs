//! The GPU: its kernels' PTX.

pub mod ptx;
