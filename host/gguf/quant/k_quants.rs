//! Q2_K, Q3_K, Q4_K, Q5_K, Q6_K. The layouts are described at the block types.

use std::array;

use kernels_gpu::quant::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K};

use super::block::Block;
use super::half::f16_to_f32;

/// The 2-bit values of 32 elements of Q2_K, and the low bits of Q3_K.
#[inline(always)]
fn bit_pairs(qs: &[u8; 64], group: usize) -> [u8; 32] {
    let (half, shift) = (group / 4, 2 * (group % 4));
    array::from_fn(|l| (qs[32 * half + l] >> shift) & 3)
}

/// The nibbles of 32 elements of Q4_K, and the low bits of Q5_K.
#[inline(always)]
fn group_nibbles(qs: &[u8; 128], group: usize) -> [u8; 32] {
    let (pair, shift) = (group / 2, 4 * (group % 2));
    array::from_fn(|l| (qs[32 * pair + l] >> shift) & 0xf)
}

/// Scale and minimum of a group of Q4_K and Q5_K, six bits each.
#[inline(always)]
fn scale_and_min(scales: &[u8; 12], group: usize) -> (u8, u8) {
    if group < 4 {
        (scales[group] & 63, scales[group + 4] & 63)
    } else {
        (
            (scales[group + 4] & 0xf) | ((scales[group - 4] >> 6) << 4),
            (scales[group + 4] >> 4) | ((scales[group] >> 6) << 4),
        )
    }
}

/// The scale of a group of 16 of Q3_K.
#[inline(always)]
fn q3_scale(scales: &[u8; 12], group: usize) -> i8 {
    let low = (scales[group % 8] >> (4 * (group / 8))) & 0xf;
    let high = (scales[8 + group % 4] >> (2 * (group / 4))) & 3;
    (low | (high << 4)) as i8 - 32
}

impl Block for BlockQ2K {
    const GROUPS: usize = 8;

    #[inline(always)]
    fn group(&self, group: usize) -> [f32; 32] {
        let (d, dmin) = (f16_to_f32(self.d), f16_to_f32(self.dmin));
        let scales = [self.scales[2 * group], self.scales[2 * group + 1]];
        let scale = scales.map(|s| d * f32::from(s & 0xf));
        let min = scales.map(|s| dmin * f32::from(s >> 4));
        let q = bit_pairs(&self.qs, group);
        array::from_fn(|l| scale[l / 16] * f32::from(q[l]) - min[l / 16])
    }
}

impl Block for BlockQ3K {
    const GROUPS: usize = 8;

    #[inline(always)]
    fn group(&self, group: usize) -> [f32; 32] {
        let d = f16_to_f32(self.d);
        let scale: [f32; 2] =
            array::from_fn(|i| d * f32::from(q3_scale(&self.scales, 2 * group + i)));
        let low = bit_pairs(&self.qs, group);
        array::from_fn(|l| {
            let q = low[l] | (((self.hmask[l] >> group) & 1) << 2);
            scale[l / 16] * f32::from(q as i8 - 4)
        })
    }
}

impl Block for BlockQ4K {
    const GROUPS: usize = 8;

    #[inline(always)]
    fn group(&self, group: usize) -> [f32; 32] {
        let (scale, min) = scale_and_min(&self.scales, group);
        let scale = f16_to_f32(self.d) * f32::from(scale);
        let min = f16_to_f32(self.dmin) * f32::from(min);
        group_nibbles(&self.qs, group).map(|q| scale * f32::from(q) - min)
    }
}

impl Block for BlockQ5K {
    const GROUPS: usize = 8;

    #[inline(always)]
    fn group(&self, group: usize) -> [f32; 32] {
        let (scale, min) = scale_and_min(&self.scales, group);
        let scale = f16_to_f32(self.d) * f32::from(scale);
        let min = f16_to_f32(self.dmin) * f32::from(min);
        let low = group_nibbles(&self.qs, group);
        array::from_fn(|l| {
            let q = low[l] | (((self.qh[l] >> group) & 1) << 4);
            scale * f32::from(q) - min
        })
    }
}

impl Block for BlockQ6K {
    const GROUPS: usize = 8;

    #[inline(always)]
    fn group(&self, group: usize) -> [f32; 32] {
        let (half, quarter) = (group / 4, group % 4);
        let d = f16_to_f32(self.d);
        let scale: [f32; 2] = array::from_fn(|i| d * f32::from(self.scales[2 * group + i]));
        array::from_fn(|l| {
            let low = (self.ql[64 * half + 32 * (quarter % 2) + l] >> (4 * (quarter / 2))) & 0xf;
            let high = (self.qh[32 * half + l] >> (2 * quarter)) & 3;
            scale[l / 16] * f32::from((low | (high << 4)) as i8 - 32)
        })
    }
}
