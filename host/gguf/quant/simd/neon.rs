//! NEON: groups in registers of 128 bits. Floats stay arrays, which the compiler turns into vectors by itself.

use std::arch::aarch64::*;
use std::array;
use std::mem::transmute;

use super::super::half::f16_to_f32;
use super::integers::{GROUP, GROUPS, Integers};
use super::portable::Portable;
use super::{DOUBLES, Kernel, LANES, Simd, operations};

/// NEON, which every 64-bit ARM has.
#[derive(Clone, Copy)]
pub(super) struct Neon(());

/// NEON with the dot products of ARMv8.2.
#[derive(Clone, Copy)]
pub(super) struct NeonDot(());

impl Neon {
    #[inline]
    pub(super) fn detect() -> Neon {
        Neon(())
    }

    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
}

impl NeonDot {
    #[inline]
    pub(super) fn detect() -> Option<NeonDot> {
        std::arch::is_aarch64_feature_detected!("dotprod").then_some(NeonDot(()))
    }

    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,dotprod")]
        fn compiled<K: Kernel>(simd: NeonDot, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `detect` made `self`, so the CPU has these features.
        unsafe { compiled(self, kernel) }
    }
}

/// Sums of four neighbouring products of signed bytes.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn dot(a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the caller's.
    unsafe {
        // One product of at most 128 * 127 fits in 16 bits, sums do not.
        let low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
        let high = vpaddlq_s16(vmull_high_s8(a, b));
        vpaddq_s32(low, high)
    }
}

/// The same in one instruction, whose intrinsic is not stable yet.
///
/// # Safety
/// The CPU has ARMv8.2's dot products.
#[inline(always)]
unsafe fn dot_in_one(a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the caller's; the instruction touches its registers alone.
    unsafe {
        let mut sums = vdupq_n_s32(0);
        std::arch::asm!(
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
        sums
    }
}

/// The integers of a set, with its dot product.
macro_rules! group_operations {
    ($set:ident, $dot:ident) => {
        impl Integers for $set {
            type Group = [int8x16_t; 2];
            type Eight = [int32x4_t; 2];
            type EightFloats = [float32x4_t; 2];
            type Sums = [int32x4_t; 4];

            const SUMS_HELD: usize = 4;

            operations! {
                fn load_group(bytes: &[u8; GROUP]) -> [int8x16_t; 2] { transmute(*bytes) }
                fn store_group(group: [int8x16_t; 2], to: &mut [u8; GROUP]) { *to = transmute(group) }
                fn nibbles(bytes: &[u8; LANES]) -> [int8x16_t; 2] {
                    let bytes: uint8x16_t = transmute(*bytes);
                    let halves = [vandq_u8(bytes, vdupq_n_u8(0xf)), vshrq_n_u8::<4>(bytes)];
                    transmute(halves)
                }
                fn group_field(group: [int8x16_t; 2], shift: usize, mask: u8) -> [int8x16_t; 2] {
                    let (down, mask) = (vdupq_n_s8(-(shift as i8)), vdupq_n_u8(mask));
                    let halves: [uint8x16_t; 2] = transmute(group);
                    transmute(halves.map(|half| vandq_u8(vshlq_u8(half, down), mask)))
                }
                fn group_joined(low: [int8x16_t; 2], high: [int8x16_t; 2], shift: usize) -> [int8x16_t; 2] {
                    let up = vdupq_n_s8(shift as i8);
                    [
                        vorrq_s8(low[0], vshlq_s8(high[0], up)),
                        vorrq_s8(low[1], vshlq_s8(high[1], up)),
                    ]
                }
                fn group_bits(bits: u32, byte: u8) -> [int8x16_t; 2] {
                    // Each lane sees the byte that holds its bit, then that bit alone.
                    let own: uint8x8_t = transmute([1u8, 2, 4, 8, 16, 32, 64, 128]);
                    let own = vcombine_u8(own, own);
                    let [a, b, c, d] = bits.to_le_bytes().map(|byte| vdup_n_u8(byte));
                    let spread = [vcombine_u8(a, b), vcombine_u8(c, d)];
                    let byte = vdupq_n_u8(byte);
                    transmute(spread.map(|bits| vandq_u8(vtstq_u8(bits, own), byte)))
                }
                fn group_lookup(table: &[i8; LANES], group: [int8x16_t; 2]) -> [int8x16_t; 2] {
                    let table: int8x16_t = transmute(*table);
                    let places: [uint8x16_t; 2] = transmute(group);
                    places.map(|places| vqtbl1q_s8(table, places))
                }
                fn dot_unsigned(weights: [int8x16_t; 2], x: &[i8; GROUP]) -> [int32x4_t; 2] {
                    // Below 64 they are the same signed.
                    let x: [int8x16_t; 2] = transmute(*x);
                    [$dot(weights[0], x[0]), $dot(weights[1], x[1])]
                }
                fn dot_signed(weights: [int8x16_t; 2], x: &[i8; GROUP]) -> [int32x4_t; 2] {
                    let x: [int8x16_t; 2] = transmute(*x);
                    [$dot(weights[0], x[0]), $dot(weights[1], x[1])]
                }
                fn sum_halves(vectors: [[int32x4_t; 2]; GROUPS]) -> [[int32x4_t; 2]; 2] {
                    let [a, b, c, d, e, f, g, h] = vectors;
                    let of = |half: usize| {
                        [
                            vpaddq_s32(vpaddq_s32(a[half], b[half]), vpaddq_s32(c[half], d[half])),
                            vpaddq_s32(vpaddq_s32(e[half], f[half]), vpaddq_s32(g[half], h[half])),
                        ]
                    };
                    [of(0), of(1)]
                }
                fn load_eight(values: &[i32; GROUPS]) -> [int32x4_t; 2] { transmute(*values) }
                fn store_eight(values: [int32x4_t; 2], to: &mut [i32; GROUPS]) { *to = transmute(values) }
                fn eight_bytes(bytes: &[i8; GROUPS]) -> [int32x4_t; 2] {
                    let wide = vmovl_s8(transmute(*bytes));
                    [vmovl_s16(vget_low_s16(wide)), vmovl_high_s16(wide)]
                }
                fn eight_pairs(bytes: &[i8; 2 * GROUPS]) -> [[int32x4_t; 2]; 2] {
                    let bytes: int8x16_t = transmute(*bytes);
                    [vuzp1q_s8(bytes, bytes), vuzp2q_s8(bytes, bytes)].map(|bytes| {
                        let wide = vmovl_s8(vget_low_s8(bytes));
                        [vmovl_s16(vget_low_s16(wide)), vmovl_high_s16(wide)]
                    })
                }
                fn add_eight(a: [int32x4_t; 2], b: [int32x4_t; 2]) -> [int32x4_t; 2] {
                    [vaddq_s32(a[0], b[0]), vaddq_s32(a[1], b[1])]
                }
                fn sub_eight(a: [int32x4_t; 2], b: [int32x4_t; 2]) -> [int32x4_t; 2] {
                    [vsubq_s32(a[0], b[0]), vsubq_s32(a[1], b[1])]
                }
                fn mul_eight(a: [int32x4_t; 2], b: [int32x4_t; 2]) -> [int32x4_t; 2] {
                    [vmulq_s32(a[0], b[0]), vmulq_s32(a[1], b[1])]
                }
                fn shift_eight(values: [int32x4_t; 2], shift: u32) -> [int32x4_t; 2] {
                    let shift = vdupq_n_s32(shift as i32);
                    [vshlq_s32(values[0], shift), vshlq_s32(values[1], shift)]
                }
                fn splat_eight(value: f32) -> [float32x4_t; 2] { [vdupq_n_f32(value); 2] }
                fn load_eight_floats(values: &[f32; GROUPS]) -> [float32x4_t; 2] { transmute(*values) }
                fn store_eight_floats(values: [float32x4_t; 2], to: &mut [f32; GROUPS]) {
                    *to = transmute(values)
                }
                fn eight_halves(bits: &[u16; GROUPS]) -> [float32x4_t; 2] {
                    transmute(bits.map(f16_to_f32))
                }
                fn eight_to_floats(values: [int32x4_t; 2]) -> [float32x4_t; 2] {
                    [vcvtq_f32_s32(values[0]), vcvtq_f32_s32(values[1])]
                }
                fn mul_eight_floats(a: [float32x4_t; 2], b: [float32x4_t; 2]) -> [float32x4_t; 2] {
                    [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])]
                }
                fn fused_eight(
                    a: [float32x4_t; 2],
                    b: [float32x4_t; 2],
                    c: [float32x4_t; 2]
                ) -> [float32x4_t; 2] {
                    [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])]
                }
                fn no_sums() -> [int32x4_t; 4] { [vdupq_n_s32(0); 4] }
                fn add_pairs(sums: [int32x4_t; 4], weights: &[i16; 2 * LANES], x: i32) -> [int32x4_t; 4] {
                    let x = vreinterpretq_s16_s32(vdupq_n_s32(x));
                    let weights: [int16x8_t; 4] = transmute(*weights);
                    array::from_fn(|i| {
                        let low = vmull_s16(vget_low_s16(weights[i]), vget_low_s16(x));
                        vaddq_s32(sums[i], vpaddq_s32(low, vmull_high_s16(weights[i], x)))
                    })
                }
            }
        }
    };
}

group_operations!(Neon, dot);
group_operations!(NeonDot, dot_in_one);

/// Methods that are those of plain arrays.
macro_rules! as_arrays {
    ($($name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)?;)*) => {
        $(#[inline(always)]
        fn $name(self, $($arg: $ty),*) $(-> $out)? {
            Portable.$name($($arg),*)
        })*
    };
}

/// The floats and the bytes of both sets.
macro_rules! float_operations {
    ($set:ident) => {
        impl Simd for $set {
            type Floats = [f32; LANES];
            type Bytes = [u8; LANES];
            type Doubles = [f64; DOUBLES];

            const DOUBLES_HELD: usize = Portable::DOUBLES_HELD;

            as_arrays! {
                splat(value: f32) -> [f32; LANES];
                load(values: &[f32; LANES]) -> [f32; LANES];
                store(values: [f32; LANES], to: &mut [f32; LANES]);
                add(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES];
                sub(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES];
                mul(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES];
                mul_add(a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES];
                fused(a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES];
                div(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES];
                max(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES];
                min(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES];
                power_of_two(n: [f32; LANES]) -> [f32; LANES];
                load_f16(bits: &[u16; LANES]) -> [f32; LANES];
                load_bf16(bits: &[u16; LANES]) -> [f32; LANES];
                load_bytes(bytes: &[u8; LANES]) -> [u8; LANES];
                splat_byte(byte: u8) -> [u8; LANES];
                field(bytes: [u8; LANES], shift: usize, mask: u8) -> [u8; LANES];
                shift_up(bytes: [u8; LANES], shift: usize) -> [u8; LANES];
                or(a: [u8; LANES], b: [u8; LANES]) -> [u8; LANES];
                sub_bytes(a: [u8; LANES], b: [u8; LANES]) -> [u8; LANES];
                select_bits(bits: u16, byte: u8) -> [u8; LANES];
                lookup(table: &[i8; LANES], bytes: [u8; LANES]) -> [u8; LANES];
                to_floats(bytes: [u8; LANES]) -> [f32; LANES];
                splat_doubles(value: f64) -> [f64; DOUBLES];
                load_doubles(values: &[f64; DOUBLES]) -> [f64; DOUBLES];
                store_doubles(values: [f64; DOUBLES], to: &mut [f64; DOUBLES]);
                widen(values: &[f32; DOUBLES]) -> [f64; DOUBLES];
                mul_add_doubles(
                    a: [f64; DOUBLES],
                    b: [f64; DOUBLES],
                    c: [f64; DOUBLES]
                ) -> [f64; DOUBLES];
            }

            operations! {
                fn sums_to_floats(sums: [int32x4_t; 4]) -> [f32; LANES] {
                    transmute(sums.map(|sums| vcvtq_f32_s32(sums)))
                }
            }
        }
    };
}

float_operations!(Neon);
float_operations!(NeonDot);
