//! Compiles a crate of Rust kernels to PTX.
