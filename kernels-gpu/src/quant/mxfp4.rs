//! The OCP microscaling type MXFP4.

use bytemuck::{Pod, Zeroable};

/// MXFP4: `2^(e - 127) * value`, values in the 4-bit float format E2M1 (sign, two exponent bits, a
/// mantissa bit); nibbles as in [`super::BlockQ40`]; 4.25 bits per weight.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct BlockMxfp4 {
    /// Shared exponent (E8M0).
    pub e: u8,
    /// Nibbles.
    pub qs: [u8; 16],
}

const _: () = assert!(size_of::<BlockMxfp4>() == 17);
