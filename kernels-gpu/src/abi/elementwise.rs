//! Parameters of the elementwise operations.

use super::{DevicePtr, kernel_params};

kernel_params! {
    /// `y = a + b` over `n` elements.
    pub struct AddParams [32] {
        /// First term.
        pub a: DevicePtr<()>,
        /// Second term.
        pub b: DevicePtr<()>,
        /// Sum; may be `a` or `b`.
        pub y: DevicePtr<()>,
        /// Elements.
        pub n: u32,
        /// Zero.
        pub reserved: u32,
    }

    /// `x[r][c] += bias[c]`, in place.
    pub struct BiasParams [24] {
        /// Rows, one behind the other.
        pub x: DevicePtr<()>,
        /// `width` terms.
        pub bias: DevicePtr<f32>,
        /// Elements of all rows.
        pub n: u32,
        /// Elements of a row.
        pub width: u32,
    }

    /// `y[r][c] = activation(gate[r][c]) * up[r][c]`; the matrices have their own strides, so that
    /// gate and up may lie side by side.
    pub struct GatedParams [48] {
        /// The activation's argument.
        pub gate: DevicePtr<()>,
        /// The other factor.
        pub up: DevicePtr<()>,
        /// Product.
        pub y: DevicePtr<()>,
        /// Elements of a row.
        pub width: u32,
        /// Rows.
        pub rows: u32,
        /// Elements from row to row in `gate`.
        pub gate_stride: u32,
        /// Elements from row to row in `up`.
        pub up_stride: u32,
        /// Elements from row to row in `y`.
        pub y_stride: u32,
        /// Zero.
        pub reserved: u32,
    }
}
