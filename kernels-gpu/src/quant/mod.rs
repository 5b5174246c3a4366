//! Block layouts of the quantized tensor types, as ggml defines them and GGUF files store them.
//!
//! A row of a tensor is a whole number of blocks; element order within a block is stated at each
//! type. Half-precision scales are kept as their bits (`u16`). All multi-byte fields are
//! little-endian. Only layouts live here: each side unpacks by code of its own, so that host and
//! device cannot share a mistake.

mod iq4;
mod k;
mod legacy;
mod mxfp4;
mod table;

pub use iq4::*;
pub use k::*;
pub use legacy::*;
pub use mxfp4::*;

/// Elements in a block of the types without super-blocks.
pub const SMALL_BLOCK: usize = 32;

/// Elements in a super-block of the K and IQ4_XS types (ggml's `QK_K`).
pub const SUPER_BLOCK: usize = 256;
