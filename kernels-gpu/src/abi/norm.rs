//! Parameters of the normalizations.

use super::{DevicePtr, kernel_params};

kernel_params! {
    /// RMSNorm of `rows` rows of `width` elements. Row `r` of `x` (and of `residual`) begins at
    /// element `r / heads * x_stride + r % heads * width`, and the same with `y_stride` in `y`:
    /// `heads` rows lie side by side in each token's vector.
    pub struct RmsNormParams [56] {
        /// Input, f32.
        pub x: DevicePtr<f32>,
        /// f32 vector that is added to the input first, the sum being written back to `x`; or null.
        pub residual: DevicePtr<f32>,
        /// `width` factors.
        pub weight: DevicePtr<f32>,
        /// Output, in the type that the kernel's name says.
        pub y: DevicePtr<()>,
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
        /// Zero.
        pub reserved: u32,
    }
}
