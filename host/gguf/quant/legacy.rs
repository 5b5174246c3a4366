//! Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.

use std::array;

use kernels_gpu::quant::{BlockQ40, BlockQ41, BlockQ50, BlockQ51, BlockQ80};

use super::block::Block;
use super::half::f16_to_f32;

/// The 32 nibbles of 16 bytes: all low ones, then all high ones.
#[inline(always)]
pub(super) fn nibbles(bytes: &[u8; 16]) -> [u8; 32] {
    array::from_fn(|i| {
        if i < 16 {
            bytes[i] & 0xf
        } else {
            bytes[i - 16] >> 4
        }
    })
}

/// Nibbles with the bits of `high` as fifth bits.
#[inline(always)]
fn five_bits(low: &[u8; 16], high: [u8; 4]) -> [u8; 32] {
    let low = nibbles(low);
    let high = u32::from_le_bytes(high);
    array::from_fn(|i| low[i] | (((high >> i) & 1) << 4) as u8)
}

impl Block for BlockQ40 {
    const GROUPS: usize = 1;

    #[inline(always)]
    fn group(&self, _: usize) -> [f32; 32] {
        let d = f16_to_f32(self.d);
        nibbles(&self.qs).map(|q| d * f32::from(q as i8 - 8))
    }
}

impl Block for BlockQ41 {
    const GROUPS: usize = 1;

    #[inline(always)]
    fn group(&self, _: usize) -> [f32; 32] {
        let (d, m) = (f16_to_f32(self.d), f16_to_f32(self.m));
        nibbles(&self.qs).map(|q| d * f32::from(q) + m)
    }
}

impl Block for BlockQ50 {
    const GROUPS: usize = 1;

    #[inline(always)]
    fn group(&self, _: usize) -> [f32; 32] {
        let d = f16_to_f32(self.d);
        five_bits(&self.qs, self.qh).map(|q| d * f32::from(q as i8 - 16))
    }
}

impl Block for BlockQ51 {
    const GROUPS: usize = 1;

    #[inline(always)]
    fn group(&self, _: usize) -> [f32; 32] {
        let (d, m) = (f16_to_f32(self.d), f16_to_f32(self.m));
        five_bits(&self.qs, self.qh).map(|q| d * f32::from(q) + m)
    }
}

impl Block for BlockQ80 {
    const GROUPS: usize = 1;

    #[inline(always)]
    fn group(&self, _: usize) -> [f32; 32] {
        let d = f16_to_f32(self.d);
        self.qs.map(|q| d * f32::from(q))
    }
}
