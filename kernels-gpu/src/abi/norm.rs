//! Parameters of the normalizations.

use super::{DevicePtr, kernel_params};

/// Most threads of a block of a norm.
pub const NORM_MAX_THREADS: u32 = 1024;

/// Threads of a block for a row of `width` elements: four elements each.
pub const fn norm_threads(width: u32) -> u32 {
    let wanted = width.div_ceil(4).next_multiple_of(32);
    if wanted < NORM_MAX_THREADS {
        wanted
    } else {
        NORM_MAX_THREADS
    }
}

kernel_params! {
    /// RMSNorm of `rows` rows of `width` elements. Row `r` of `x` begins at
    /// element `r / heads * x_stride + r % heads * width`, and the same with `y_stride` in `y`:
    /// `heads` rows lie side by side in each token's vector.
    pub struct RmsNormParams [64] {
        /// Input, f32.
        pub x: DevicePtr<f32>,
        /// `width` factors; null for rows without a norm.
        pub weight: DevicePtr<f32>,
        /// Output, in the type that the kernel's name says.
        pub y: DevicePtr<()>,
        /// What each token's input is multiplied by first, the product being written back to `x`; or null for 1.
        pub x_scales: DevicePtr<f32>,
        /// A number of each token that becomes 0, or null.
        pub cleared: DevicePtr<u32>,
        /// Elements of a row.
        pub width: u32,
        /// Rows side by side in a token's vector: 1, or the heads of a per-head norm.
        pub heads: u32,
        /// Elements from token to token in `x`.
        pub x_stride: u32,
        /// Elements from token to token in `y`.
        pub y_stride: u32,
        /// Added to the mean square.
        pub epsilon: f32,
        /// Factor on the output: a power of two that keeps it in f16's range.
        pub factor: f32,
    }
}
