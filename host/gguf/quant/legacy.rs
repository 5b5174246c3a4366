//! Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.

use kernels_gpu::quant::{BlockQ40, BlockQ41, BlockQ50, BlockQ51, BlockQ80};

use super::block::Block;
use super::chunk::{Chunk, Each, Levels, Scales};
use super::half::f16_to_f32;
use super::simd::integers::eight;
use super::simd::{Simd, halves};

/// The 32 nibbles of 16 bytes: all low ones, then all high ones.
#[inline(always)]
pub(super) fn nibbles<S: Simd>(simd: S, bytes: &[u8; 16]) -> [S::Bytes; 2] {
    let bytes = simd.load_bytes(bytes);
    [simd.field(bytes, 0, 0xf), simd.field(bytes, 4, 0xf)]
}

/// Nibbles with the bits of `high` as fifth bits.
#[inline(always)]
fn five_bits<S: Simd>(simd: S, low: &[u8; 16], high: [u8; 4]) -> [S::Bytes; 2] {
    let [low_0, low_1] = nibbles(simd, low);
    let high_0 = simd.select_bits(u16::from_le_bytes([high[0], high[1]]), 1 << 4);
    let high_1 = simd.select_bits(u16::from_le_bytes([high[2], high[3]]), 1 << 4);
    [simd.or(low_0, high_0), simd.or(low_1, high_1)]
}

/// `d * (q - zero)`.
#[inline(always)]
fn scaled<S: Simd>(simd: S, q: [S::Bytes; 2], d: u16, zero: u8) -> [S::Floats; 2] {
    let (d, zero) = (simd.splat(f16_to_f32(d)), simd.splat_byte(zero));
    halves!(|h| simd.mul(d, simd.to_floats(simd.sub_bytes(q[h], zero))))
}

/// `d * q + m`.
#[inline(always)]
fn affine<S: Simd>(simd: S, q: [S::Bytes; 2], d: u16, m: u16) -> [S::Floats; 2] {
    let (d, m) = (simd.splat(f16_to_f32(d)), simd.splat(f16_to_f32(m)));
    halves!(|h| simd.add(simd.mul(d, simd.to_floats(q[h])), m))
}

impl Block for BlockQ40 {
    const GROUPS: usize = 1;

    #[inline(always)]
    fn group<S: Simd>(&self, simd: S, _: usize) -> [S::Floats; 2] {
        scaled(simd, nibbles(simd, &self.qs), self.d, 8)
    }
}

impl Block for BlockQ41 {
    const GROUPS: usize = 1;

    #[inline(always)]
    fn group<S: Simd>(&self, simd: S, _: usize) -> [S::Floats; 2] {
        affine(simd, nibbles(simd, &self.qs), self.d, self.m)
    }
}

impl Block for BlockQ50 {
    const GROUPS: usize = 1;

    #[inline(always)]
    fn group<S: Simd>(&self, simd: S, _: usize) -> [S::Floats; 2] {
        scaled(simd, five_bits(simd, &self.qs, self.qh), self.d, 16)
    }
}

impl Block for BlockQ51 {
    const GROUPS: usize = 1;

    #[inline(always)]
    fn group<S: Simd>(&self, simd: S, _: usize) -> [S::Floats; 2] {
        affine(simd, five_bits(simd, &self.qs, self.qh), self.d, self.m)
    }
}

impl Block for BlockQ80 {
    const GROUPS: usize = 1;

    #[inline(always)]
    fn group<S: Simd>(&self, simd: S, _: usize) -> [S::Floats; 2] {
        let d = simd.splat(f16_to_f32(self.d));
        let qs: &[[u8; 16]; 2] = bytemuck::cast_ref(&self.qs);
        halves!(|h| simd.mul(d, simd.to_floats(simd.load_bytes(&qs[h]))))
    }
}

/// A type with a scale alone.
macro_rules! scaled_chunk {
    ($block:ident, $levels:expr, |$simd:ident, $of:ident| $group:expr) => {
        impl Chunk for [$block; 8] {
            const LEVELS: Levels = $levels;
            const FACTORS: Each = Each::None;
            const OFFSETS: Each = Each::None;

            #[inline(always)]
            fn levels<S: Simd>(&self, $simd: S, group: usize) -> S::Group {
                let $of = &self[group];
                $group
            }

            #[inline(always)]
            fn scales<S: Simd>(&self, simd: S) -> Scales<S> {
                Scales::of(simd, simd.eight_halves(&eight!(|g| self[g].d)))
            }
        }
    };
}
pub(super) use scaled_chunk;

/// A type with a scale and a minimum.
macro_rules! affine_chunk {
    ($block:ident, |$simd:ident, $of:ident| $group:expr) => {
        impl Chunk for [$block; 8] {
            const LEVELS: Levels = Levels::Unsigned;
            const FACTORS: Each = Each::None;
            const OFFSETS: Each = Each::Group;

            #[inline(always)]
            fn levels<S: Simd>(&self, $simd: S, group: usize) -> S::Group {
                let $of = &self[group];
                $group
            }

            #[inline(always)]
            fn scales<S: Simd>(&self, simd: S) -> Scales<S> {
                Scales {
                    offsets: [simd.eight_halves(&eight!(|g| self[g].m)); 2],
                    ..Scales::of(simd, simd.eight_halves(&eight!(|g| self[g].d)))
                }
            }
        }
    };
}

/// Levels of four bits with the bits of `high` as fifth ones.
#[inline(always)]
fn group_of_five<S: Simd>(simd: S, low: &[u8; 16], high: [u8; 4]) -> S::Group {
    let high = simd.group_bits(u32::from_le_bytes(high), 1 << 4);
    simd.group_joined(simd.nibbles(low), high, 0)
}

scaled_chunk!(BlockQ40, Levels::Centered(3), |simd, block| simd
    .nibbles(&block.qs));
scaled_chunk!(BlockQ50, Levels::Centered(4), |simd, block| group_of_five(
    simd, &block.qs, block.qh
));
scaled_chunk!(BlockQ80, Levels::Signed, |simd, block| simd
    .load_group(bytemuck::cast_ref(&block.qs)));
affine_chunk!(BlockQ41, |simd, block| simd.nibbles(&block.qs));
affine_chunk!(BlockQ51, |simd, block| group_of_five(
    simd, &block.qs, block.qh
));
