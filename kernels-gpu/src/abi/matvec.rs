//! Parameters of the products of a quantized matrix with a few vectors.

use super::{DevicePtr, kernel_params};

/// Elements of an activation vector that share a scale when it is quantized to 8 bits.
pub const Q8_GROUP: u32 = 32;

/// Elements of an activation vector whose sum is kept beside the 8-bit values: the smallest group of
/// weights that has a minimum of its own.
pub const Q8_SUM_GROUP: u32 = 16;

/// Warps of a matrix-vector block.
pub const MATVEC_WARPS: u32 = 4;

/// Dynamic shared memory of a matrix-vector kernel for `vectors` vectors (the number in its name) of
/// `n_in` elements: 8-bit values, scales and sums.
pub const fn matvec_shared_bytes(vectors: u32, n_in: u32) -> u32 {
    vectors * (n_in + n_in / Q8_GROUP * 4 + n_in / Q8_SUM_GROUP * 4)
}

kernel_params! {
    /// `y[t][o] = sum over i of weights[o][i] * x[t][i]`.
    pub struct MatvecParams [48] {
        /// Blocks of the matrix, row after row.
        pub weights: DevicePtr<u8>,
        /// Activations, f32; a vector begins at a multiple of 16 bytes.
        pub x: DevicePtr<f32>,
        /// Results, f32.
        pub y: DevicePtr<f32>,
        /// Elements of a row of the matrix: a multiple of the block's.
        pub n_in: u32,
        /// Rows of the matrix.
        pub n_out: u32,
        /// Vectors: at most the number in the kernel's name.
        pub vectors: u32,
        /// Elements from vector to vector in `x`.
        pub x_stride: u32,
        /// Elements from vector to vector in `y`.
        pub y_stride: u32,
        /// 1 to add to what is in `y`, 0 to overwrite it.
        pub accumulate: u32,
    }
}
