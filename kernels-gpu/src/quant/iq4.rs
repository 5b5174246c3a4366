//! The 4-bit types with a non-linear code book of 16 signed levels.

use bytemuck::{Pod, Zeroable};

/// IQ4_NL: `d * level[q]`, nibbles as in [`super::BlockQ40`]; 4.5 bits per weight.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct BlockIq4Nl {
    /// Scale, f16 bits.
    pub d: u16,
    /// Nibbles.
    pub qs: [u8; 16],
}

/// IQ4_XS: super-blocks of 256 elements in groups of 32, `d * (scale - 32) * level[q]`; 4.25 bits
/// per weight.
///
/// Group `g` has its nibbles in `qs[16 g ..][.. 16]`, low ones first as in [`BlockIq4Nl`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct BlockIq4Xs {
    /// Scale of the scales, f16 bits.
    pub d: u16,
    /// Two high bits of each group's scale: bits `2 g ..`.
    pub scales_h: u16,
    /// Four low bits of each group's scale: nibble `g % 2` of byte `g / 2`.
    pub scales_l: [u8; 4],
    /// Nibbles.
    pub qs: [u8; 128],
}

const _: () = {
    assert!(size_of::<BlockIq4Nl>() == 18);
    assert!(size_of::<BlockIq4Xs>() == 136);
};
