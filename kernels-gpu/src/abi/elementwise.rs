//! Parameters of the elementwise operations.

use super::{DevicePtr, kernel_params};
use crate::prim::half::F16;

/// Threads of a block of the kernels of `ops/elementwise.rs`.
pub const ELEMENTWISE_THREADS: u32 = 256;

/// Most threads of a block of the kernels of `ops/gated_rows.rs`.
pub const GATED_ROWS_MAX_THREADS: u32 = 1024;

/// Threads of a block of gated rows whose maxima are known: an element each, so that several blocks share a row.
pub const BOUNDED_ROWS_THREADS: u32 = 256;

/// Blocks of a row of `width` elements, and their threads, for the kernels of `ops/gated_rows.rs`. `alone` says that the
/// step has so few rows that each has a multiprocessor to itself.
pub const fn gated_rows_geometry(width: u32, knows_maxima: bool, alone: bool) -> (u32, u32) {
    /// Most threads of a block that shares its multiprocessor with those of other rows.
    const BESIDE_OTHERS: u32 = 512;
    /// Elements of a thread of a block that has a row to itself.
    const QUAD: u32 = 4;
    if knows_maxima {
        return (width.div_ceil(BOUNDED_ROWS_THREADS), BOUNDED_ROWS_THREADS);
    }
    let most = if alone {
        GATED_ROWS_MAX_THREADS
    } else {
        BESIDE_OTHERS
    };
    let wanted = width.div_ceil(QUAD).next_multiple_of(32);
    (1, if wanted < most { wanted } else { most })
}

kernel_params! {
    /// `y = a + b` over `n` elements.
    pub struct AddParams [32] {
        /// First term.
        pub a: DevicePtr<f32>,
        /// Second term.
        pub b: DevicePtr<f32>,
        /// Sum; may be `a` or `b`.
        pub y: DevicePtr<f32>,
        /// Elements.
        pub n: u32,
        /// Zero.
        pub reserved: u32,
    }

    /// `x[r][c] += bias[c]`, in place.
    pub struct BiasParams [24] {
        /// Rows, one behind the other.
        pub x: DevicePtr<f32>,
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
        pub gate: DevicePtr<f32>,
        /// The other factor.
        pub up: DevicePtr<f32>,
        /// Product.
        pub y: DevicePtr<f32>,
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

    /// `y[r][c] = activation(gate[r][c]) * up[r][c] / scales[r]`, rows being dense.
    pub struct GatedRowsParams [64] {
        /// The activation's argument.
        pub gate: DevicePtr<f32>,
        /// The other factor.
        pub up: DevicePtr<f32>,
        /// Product.
        pub y: DevicePtr<F16>,
        /// What each row of `y` was divided by: powers of two.
        pub scales: DevicePtr<f32>,
        /// The bits of each row's largest `|gate|` or `|up|`, or 0 if that is at most
        /// [`FACTOR_MAX`](crate::prim::scale::FACTOR_MAX); null where they are not known.
        pub maxima: DevicePtr<u32>,
        /// Rows that the product of `y` with a matrix will be added to without regard to the scales: they are
        /// divided by them too. Or null.
        pub addend: DevicePtr<f32>,
        /// Elements of a row.
        pub width: u32,
        /// Elements of a row of `addend`.
        pub addend_width: u32,
        /// Zero.
        pub reserved: [u32; 2],
    }

    /// `x[r][c] *= scales[r]`, and then `scales[r] = 1`.
    pub struct RestoreParams [24] {
        /// Rows, dense.
        pub x: DevicePtr<f32>,
        /// Factors.
        pub scales: DevicePtr<f32>,
        /// Elements of a row.
        pub width: u32,
        /// Zero.
        pub reserved: u32,
    }
}
