//! The one-level types: 32 elements share a half-precision scale, and a minimum in the `_1` types.
//!
//! Four low bits of element `i` are the low nibble of `qs[i]`, those of element `i + 16` its high
//! nibble, for `i` in `0..16`. A fifth bit of element `j` is bit `j` of `qh`.

use bytemuck::{Pod, Zeroable};

/// Q4_0: `d * (q - 8)`, 4-bit `q`; 4.5 bits per weight.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct BlockQ40 {
    /// Scale, f16 bits.
    pub d: u16,
    /// Nibbles.
    pub qs: [u8; 16],
}

/// Q4_1: `d * q + m`, 4-bit `q`; 5 bits per weight.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct BlockQ41 {
    /// Scale, f16 bits.
    pub d: u16,
    /// Minimum, f16 bits.
    pub m: u16,
    /// Nibbles.
    pub qs: [u8; 16],
}

/// Q5_0: `d * (q - 16)`, 5-bit `q`; 5.5 bits per weight.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct BlockQ50 {
    /// Scale, f16 bits.
    pub d: u16,
    /// Fifth bits: a little-endian 32-bit word that a block's 22 bytes leave at an odd multiple of
    /// two.
    pub qh: [u8; 4],
    /// Nibbles.
    pub qs: [u8; 16],
}

/// Q5_1: `d * q + m`, 5-bit `q`; 6 bits per weight.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct BlockQ51 {
    /// Scale, f16 bits.
    pub d: u16,
    /// Minimum, f16 bits.
    pub m: u16,
    /// Fifth bits, a little-endian 32-bit word.
    pub qh: [u8; 4],
    /// Nibbles.
    pub qs: [u8; 16],
}

/// Q8_0: `d * q`; 8.5 bits per weight.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct BlockQ80 {
    /// Scale, f16 bits.
    pub d: u16,
    /// Elements in order.
    pub qs: [i8; 32],
}

const _: () = {
    assert!(size_of::<BlockQ40>() == 18);
    assert!(size_of::<BlockQ41>() == 20);
    assert!(size_of::<BlockQ50>() == 22);
    assert!(size_of::<BlockQ51>() == 24);
    assert!(size_of::<BlockQ80>() == 34);
};
