//! Integer products of blocks of 32 elements, and the floats that they become.
//!
//! Sums of integers are exact, and what is done with floats here is rounded the same way everywhere, so every
//! instruction set gives the same bits.

use super::LANES;

/// Elements of a group, which share a scale.
pub const GROUP: usize = 2 * LANES;

/// Groups that are added up side by side.
pub const GROUPS: usize = 8;

/// What an instruction set does with groups of bytes; a part of [`Simd`](super::Simd).
#[allow(missing_docs)] // arithmetic needs no explanation
pub trait Integers: Copy {
    /// The bytes of a group.
    type Group: Copy;
    /// 8 integers of 32 bits.
    type Eight: Copy;
    /// 8 floats.
    type EightFloats: Copy;
    /// 16 integers of 32 bits.
    type Sums: Copy;

    /// How many [`Sums`](Self::Sums) the registers hold beside what is multiplied.
    const SUMS_HELD: usize;

    fn load_group(self, bytes: &[u8; GROUP]) -> Self::Group;
    fn store_group(self, group: Self::Group, to: &mut [u8; GROUP]);
    /// The low halves of 16 bytes, then the high ones.
    fn nibbles(self, bytes: &[u8; LANES]) -> Self::Group;
    /// `(bytes >> shift) & mask`; `mask` has no bits above `8 - shift`.
    fn group_field(self, group: Self::Group, shift: usize, mask: u8) -> Self::Group;
    /// `low | high << shift`; no byte overflows.
    fn group_joined(self, low: Self::Group, high: Self::Group, shift: usize) -> Self::Group;
    /// `byte` where the element's bit of `bits` is set, else 0.
    fn group_bits(self, bits: u32, byte: u8) -> Self::Group;
    /// The entries of `table` that the bytes, below 16, name.
    fn group_lookup(self, table: &[i8; LANES], group: Self::Group) -> Self::Group;

    /// The sums of four neighbouring products each, for weights below 64; no activation is -128.
    fn dot_unsigned(self, weights: Self::Group, x: &[i8; GROUP]) -> Self::Eight;
    /// The same for signed weights.
    fn dot_signed(self, weights: Self::Group, x: &[i8; GROUP]) -> Self::Eight;
    /// Of each vector the sum of its first four lanes, and of its last four.
    fn sum_halves(self, vectors: [Self::Eight; GROUPS]) -> [Self::Eight; 2];

    fn load_eight(self, values: &[i32; GROUPS]) -> Self::Eight;
    fn store_eight(self, values: Self::Eight, to: &mut [i32; GROUPS]);
    /// Signed bytes.
    fn eight_bytes(self, bytes: &[i8; GROUPS]) -> Self::Eight;
    /// Signed bytes at even places, and at odd ones.
    fn eight_pairs(self, bytes: &[i8; 2 * GROUPS]) -> [Self::Eight; 2];
    fn add_eight(self, a: Self::Eight, b: Self::Eight) -> Self::Eight;
    fn sub_eight(self, a: Self::Eight, b: Self::Eight) -> Self::Eight;
    fn mul_eight(self, a: Self::Eight, b: Self::Eight) -> Self::Eight;
    fn shift_eight(self, values: Self::Eight, shift: u32) -> Self::Eight;

    fn splat_eight(self, value: f32) -> Self::EightFloats;
    fn load_eight_floats(self, values: &[f32; GROUPS]) -> Self::EightFloats;
    fn store_eight_floats(self, values: Self::EightFloats, to: &mut [f32; GROUPS]);
    /// Half-precision numbers, given by their bits.
    fn eight_halves(self, bits: &[u16; GROUPS]) -> Self::EightFloats;
    /// Integers below 2^24 exactly, others rounded to the nearest.
    fn eight_to_floats(self, values: Self::Eight) -> Self::EightFloats;
    fn mul_eight_floats(self, a: Self::EightFloats, b: Self::EightFloats) -> Self::EightFloats;
    /// `a * b + c`, rounded once.
    fn fused_eight(
        self,
        a: Self::EightFloats,
        b: Self::EightFloats,
        c: Self::EightFloats,
    ) -> Self::EightFloats;

    fn no_sums(self) -> Self::Sums;
    /// Adds to each sum the products of its two weights with the two halves of `x`.
    fn add_pairs(self, sums: Self::Sums, weights: &[i16; 2 * LANES], x: i32) -> Self::Sums;
}

/// An array of the expression's values with `g` as 0 to 7.
///
/// A closure would do, but closures cannot be marked `#[inline(always)]`.
macro_rules! eight {
    (|$g:ident| $value:expr) => {
        eight!(@ $g, $value; 0 1 2 3 4 5 6 7)
    };
    (@ $g:ident, $value:expr; $($n:literal)*) => {
        [$({
            let $g: usize = $n;
            $value
        }),*]
    };
}
pub(crate) use eight;
