//! The K types: super-blocks of 256 elements in groups of 16 or 32, whose small integer scales are
//! themselves scaled by half-precision numbers.

use bytemuck::{Pod, Zeroable};

/// Q2_K: `d * scale * q - dmin * min`, 2-bit `q`, groups of 16; 2.625 bits per weight.
///
/// Element `128 h + 32 s + l` (`h < 2`, `s < 4`, `l < 32`) is bits `2 s ..` of `qs[32 h + l]`;
/// element `e` belongs to group `e / 16`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct BlockQ2K {
    /// A byte per group: 4-bit scale (low) and 4-bit minimum (high).
    pub scales: [u8; 16],
    /// 2-bit values.
    pub qs: [u8; 64],
    /// Scale of the scales, f16 bits.
    pub d: u16,
    /// Scale of the minimums, f16 bits.
    pub dmin: u16,
}

/// Q3_K: `d * (scale - 32) * (q - 4)`, 3-bit `q`, groups of 16; 3.4375 bits per weight.
///
/// The two low bits lie as in [`BlockQ2K`]. The high bit of element `32 g + l` is bit `g` of
/// `hmask[l]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct BlockQ3K {
    /// High bits.
    pub hmask: [u8; 32],
    /// Low bit pairs.
    pub qs: [u8; 64],
    /// Sixteen 6-bit scales: four low bits of scale `i` in `scales[i % 8]`, nibble `i / 8`; two
    /// high bits in `scales[8 + i % 4]`, bits `2 (i / 4) ..`.
    pub scales: [u8; 12],
    /// Scale of the scales, f16 bits.
    pub d: u16,
}

/// Q4_K: `d * scale * q - dmin * min`, 4-bit `q`, groups of 32; 4.5 bits per weight.
///
/// Element `64 p + l` (`p < 4`, `l < 32`) is the low nibble of `qs[32 p + l]`, element
/// `64 p + 32 + l` its high nibble.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct BlockQ4K {
    /// Scale of the scales, f16 bits.
    pub d: u16,
    /// Scale of the minimums, f16 bits.
    pub dmin: u16,
    /// Eight 6-bit scales and minimums. For group `i < 4`: the low six bits of `scales[i]` and of
    /// `scales[i + 4]`. For `i >= 4`: low four bits in the low (scale) and high (minimum) nibble of
    /// `scales[i + 4]`, two high bits at the top of `scales[i - 4]` and of `scales[i]`.
    pub scales: [u8; 12],
    /// Nibbles.
    pub qs: [u8; 128],
}

/// Q5_K: as [`BlockQ4K`] with 5-bit `q`; 5.5 bits per weight.
///
/// The fifth bit of element `32 g + l` is bit `g` of `qh[l]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct BlockQ5K {
    /// Scale of the scales, f16 bits.
    pub d: u16,
    /// Scale of the minimums, f16 bits.
    pub dmin: u16,
    /// Packed as in [`BlockQ4K`].
    pub scales: [u8; 12],
    /// Fifth bits.
    pub qh: [u8; 32],
    /// Nibbles.
    pub qs: [u8; 128],
}

/// Q6_K: `d * scale * (q - 32)`, 6-bit `q`, groups of 16; 6.5625 bits per weight.
///
/// For element `128 h + 32 s + l` (`h < 2`, `s < 4`, `l < 32`) the four low bits are the nibble
/// `s / 2` of `ql[64 h + 32 (s % 2) + l]`, the two high bits are bits `2 s ..` of `qh[32 h + l]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct BlockQ6K {
    /// Low nibbles.
    pub ql: [u8; 128],
    /// High bit pairs.
    pub qh: [u8; 64],
    /// A scale per group.
    pub scales: [i8; 16],
    /// Scale of the scales, f16 bits.
    pub d: u16,
}

const _: () = {
    assert!(size_of::<BlockQ2K>() == 84);
    assert!(size_of::<BlockQ3K>() == 110);
    assert!(size_of::<BlockQ4K>() == 144);
    assert!(size_of::<BlockQ5K>() == 176);
    assert!(size_of::<BlockQ6K>() == 210);
};
