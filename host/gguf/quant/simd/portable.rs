//! Vectors as arrays, for every CPU.

use std::array;

use super::super::half::{bf16_to_f32, f16_to_f32};
use super::{DOUBLES, LANES, Simd};

/// Whether fusing is an instruction; elsewhere it is a library call for each lane.
const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// No instruction set in particular.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Simd for Portable {
    type Floats = [f32; LANES];
    type Bytes = [u8; LANES];
    type Doubles = [f64; DOUBLES];

    // With vectors of 128 bits, the narrowest of today's: 16 or 32 of them.
    const DOUBLES_HELD: usize = if cfg!(target_arch = "aarch64") { 8 } else { 4 };

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Floats {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Self::Floats {
        *values
    }

    #[inline(always)]
    fn store(self, values: Self::Floats, to: &mut [f32; LANES]) {
        *to = values;
    }

    #[inline(always)]
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        array::from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        if FUSED {
            array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        } else {
            array::from_fn(|i| a[i] * b[i] + c[i])
        }
    }

    #[inline(always)]
    fn fused(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn div(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        array::from_fn(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn min(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn power_of_two(self, n: Self::Floats) -> Self::Floats {
        n.map(|n| f32::from_bits(((n as i32).wrapping_add(127) as u32) << 23))
    }

    #[inline(always)]
    fn sums_to_floats(self, sums: [i32; LANES]) -> Self::Floats {
        sums.map(|sum| sum as f32)
    }

    #[inline(always)]
    fn load_f16(self, bits: &[u16; LANES]) -> Self::Floats {
        bits.map(f16_to_f32)
    }

    #[inline(always)]
    fn load_bf16(self, bits: &[u16; LANES]) -> Self::Floats {
        bits.map(bf16_to_f32)
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; LANES]) -> Self::Bytes {
        *bytes
    }

    #[inline(always)]
    fn splat_byte(self, byte: u8) -> Self::Bytes {
        [byte; LANES]
    }

    #[inline(always)]
    fn field(self, bytes: Self::Bytes, shift: usize, mask: u8) -> Self::Bytes {
        bytes.map(|byte| (byte >> shift) & mask)
    }

    #[inline(always)]
    fn shift_up(self, bytes: Self::Bytes, shift: usize) -> Self::Bytes {
        bytes.map(|byte| byte << shift)
    }

    #[inline(always)]
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        array::from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn sub_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }

    #[inline(always)]
    fn select_bits(self, bits: u16, byte: u8) -> Self::Bytes {
        array::from_fn(|i| if bits & (1 << i) != 0 { byte } else { 0 })
    }

    #[inline(always)]
    fn lookup(self, table: &[i8; LANES], bytes: Self::Bytes) -> Self::Bytes {
        bytes.map(|byte| table[usize::from(byte) % LANES] as u8)
    }

    #[inline(always)]
    fn to_floats(self, bytes: Self::Bytes) -> Self::Floats {
        bytes.map(|byte| f32::from(byte as i8))
    }

    #[inline(always)]
    fn splat_doubles(self, value: f64) -> Self::Doubles {
        [value; DOUBLES]
    }

    #[inline(always)]
    fn load_doubles(self, values: &[f64; DOUBLES]) -> Self::Doubles {
        *values
    }

    #[inline(always)]
    fn store_doubles(self, values: Self::Doubles, to: &mut [f64; DOUBLES]) {
        *to = values;
    }

    #[inline(always)]
    fn widen(self, values: &[f32; DOUBLES]) -> Self::Doubles {
        values.map(f64::from)
    }

    #[inline(always)]
    fn mul_add_doubles(
        self,
        a: Self::Doubles,
        b: Self::Doubles,
        c: Self::Doubles,
    ) -> Self::Doubles {
        if FUSED {
            array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        } else {
            array::from_fn(|i| a[i] * b[i] + c[i])
        }
    }
}
