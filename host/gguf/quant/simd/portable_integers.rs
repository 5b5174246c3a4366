//! Groups as arrays: the definition that the instruction sets are held to.

use std::array;

use super::super::half::f16_to_f32;
use super::LANES;
use super::integers::{GROUP, GROUPS, Integers};
use super::portable::Portable;

impl Integers for Portable {
    type Group = [u8; GROUP];
    type Eight = [i32; GROUPS];
    type EightFloats = [f32; GROUPS];
    type Sums = [i32; LANES];

    const SUMS_HELD: usize = 1;

    #[inline(always)]
    fn load_group(self, bytes: &[u8; GROUP]) -> [u8; GROUP] {
        *bytes
    }

    #[inline(always)]
    fn store_group(self, group: [u8; GROUP], to: &mut [u8; GROUP]) {
        *to = group;
    }

    #[inline(always)]
    fn nibbles(self, bytes: &[u8; LANES]) -> [u8; GROUP] {
        array::from_fn(|i| bytes[i % LANES] >> (4 * (i / LANES)) & 0xf)
    }

    #[inline(always)]
    fn group_field(self, group: [u8; GROUP], shift: usize, mask: u8) -> [u8; GROUP] {
        group.map(|byte| (byte >> shift) & mask)
    }

    #[inline(always)]
    fn group_joined(self, low: [u8; GROUP], high: [u8; GROUP], shift: usize) -> [u8; GROUP] {
        array::from_fn(|i| low[i] | high[i] << shift)
    }

    #[inline(always)]
    fn group_bits(self, bits: u32, byte: u8) -> [u8; GROUP] {
        array::from_fn(|i| if bits & (1 << i) != 0 { byte } else { 0 })
    }

    #[inline(always)]
    fn group_lookup(self, table: &[i8; LANES], group: [u8; GROUP]) -> [u8; GROUP] {
        group.map(|byte| table[usize::from(byte) % LANES] as u8)
    }

    #[inline(always)]
    fn dot_unsigned(self, weights: [u8; GROUP], x: &[i8; GROUP]) -> [i32; GROUPS] {
        self.dot_signed(weights, x)
    }

    #[inline(always)]
    fn dot_signed(self, weights: [u8; GROUP], x: &[i8; GROUP]) -> [i32; GROUPS] {
        array::from_fn(|lane| {
            let product = |i: usize| i32::from(weights[i] as i8) * i32::from(x[i]);
            let i = 4 * lane;
            product(i) + product(i + 1) + product(i + 2) + product(i + 3)
        })
    }

    #[inline(always)]
    fn sum_halves(self, vectors: [[i32; GROUPS]; GROUPS]) -> [[i32; GROUPS]; 2] {
        array::from_fn(|half| array::from_fn(|v| vectors[v][4 * half..][..4].iter().sum()))
    }

    #[inline(always)]
    fn load_eight(self, values: &[i32; GROUPS]) -> [i32; GROUPS] {
        *values
    }

    #[inline(always)]
    fn store_eight(self, values: [i32; GROUPS], to: &mut [i32; GROUPS]) {
        *to = values;
    }

    #[inline(always)]
    fn eight_bytes(self, bytes: &[i8; GROUPS]) -> [i32; GROUPS] {
        bytes.map(i32::from)
    }

    #[inline(always)]
    fn eight_pairs(self, bytes: &[i8; 2 * GROUPS]) -> [[i32; GROUPS]; 2] {
        array::from_fn(|odd| array::from_fn(|i| i32::from(bytes[2 * i + odd])))
    }

    #[inline(always)]
    fn add_eight(self, a: [i32; GROUPS], b: [i32; GROUPS]) -> [i32; GROUPS] {
        array::from_fn(|i| a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    fn sub_eight(self, a: [i32; GROUPS], b: [i32; GROUPS]) -> [i32; GROUPS] {
        array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }

    #[inline(always)]
    fn mul_eight(self, a: [i32; GROUPS], b: [i32; GROUPS]) -> [i32; GROUPS] {
        array::from_fn(|i| a[i].wrapping_mul(b[i]))
    }

    #[inline(always)]
    fn shift_eight(self, values: [i32; GROUPS], shift: u32) -> [i32; GROUPS] {
        values.map(|value| value << shift)
    }

    #[inline(always)]
    fn splat_eight(self, value: f32) -> [f32; GROUPS] {
        [value; GROUPS]
    }

    #[inline(always)]
    fn load_eight_floats(self, values: &[f32; GROUPS]) -> [f32; GROUPS] {
        *values
    }

    #[inline(always)]
    fn store_eight_floats(self, values: [f32; GROUPS], to: &mut [f32; GROUPS]) {
        *to = values;
    }

    #[inline(always)]
    fn eight_halves(self, bits: &[u16; GROUPS]) -> [f32; GROUPS] {
        bits.map(f16_to_f32)
    }

    #[inline(always)]
    fn eight_to_floats(self, values: [i32; GROUPS]) -> [f32; GROUPS] {
        values.map(|value| value as f32)
    }

    #[inline(always)]
    fn mul_eight_floats(self, a: [f32; GROUPS], b: [f32; GROUPS]) -> [f32; GROUPS] {
        array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn fused_eight(self, a: [f32; GROUPS], b: [f32; GROUPS], c: [f32; GROUPS]) -> [f32; GROUPS] {
        array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn no_sums(self) -> [i32; LANES] {
        [0; LANES]
    }

    #[inline(always)]
    fn add_pairs(self, sums: [i32; LANES], weights: &[i16; 2 * LANES], x: i32) -> [i32; LANES] {
        let (low, high) = (i32::from(x as i16), x >> 16);
        array::from_fn(|lane| {
            let [a, b] = [weights[2 * lane], weights[2 * lane + 1]].map(i32::from);
            sums[lane].wrapping_add(a * low).wrapping_add(b * high)
        })
    }
}
