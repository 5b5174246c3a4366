//! Parameters of the normalizations.

use super::{DevicePtr, kernel_params};

kernel_params! {
    /// RMSNorm of `rows` rows of `width` elements. Row `r` of `x` (and of `residual`) begins at
    /// element `r / heads * x_stride + r % heads * width`, and the same with `y_stride` in `y`:
    /// `heads` rows lie side by side in each token's vector.
    pub struct RmsNormParams [72] {
        /// Input, f32.
        pub x: DevicePtr<f32>,
        /// f32 vector that is added to the input first, the sum being written back to `x`; or null.
        pub residual: DevicePtr<f32>,
        /// `width` factors.
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
        /// Elements from token to token in `x` and `residual`.
        pub x_stride: u32,
        /// Elements from token to token in `y`.
        pub y_stride: u32,
        /// Added to the mean square.
        pub epsilon: f32,
        /// Factor on the output: a power of two that keeps it in f16's range.
        pub factor: f32,
    }
}
