//! Q2_K, Q3_K, Q4_K, Q5_K, Q6_K. The layouts are described at the block types.

use kernels_gpu::quant::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K};

use super::block::Block;
use super::half::f16_to_f32;
use super::simd::{Simd, halves};

/// The bits `shift ..` under `mask` of 32 of the bytes, beginning at `32 * part`.
#[inline(always)]
fn fields<S: Simd>(simd: S, bytes: &[u8], part: usize, shift: usize, mask: u8) -> [S::Bytes; 2] {
    let chunks = bytes.as_chunks().0;
    halves!(|h| simd.field(simd.load_bytes(&chunks[2 * part + h]), shift, mask))
}

/// `low | high << shift`.
#[inline(always)]
fn joined<S: Simd>(
    simd: S,
    low: [S::Bytes; 2],
    high: [S::Bytes; 2],
    shift: usize,
) -> [S::Bytes; 2] {
    halves!(|h| simd.or(low[h], simd.shift_up(high[h], shift)))
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

/// `d * scale * q - dmin * min` for a group of Q4_K and Q5_K.
#[inline(always)]
fn affine<S: Simd>(
    simd: S,
    q: [S::Bytes; 2],
    d: u16,
    dmin: u16,
    (scale, min): (u8, u8),
) -> [S::Floats; 2] {
    let scale = simd.splat(f16_to_f32(d) * f32::from(scale));
    let min = simd.splat(f16_to_f32(dmin) * f32::from(min));
    halves!(|h| simd.sub(simd.mul(scale, simd.to_floats(q[h])), min))
}

/// `d * scale * (q - zero)` for two groups of 16.
#[inline(always)]
fn scaled<S: Simd>(simd: S, q: [S::Bytes; 2], d: u16, scales: [i8; 2], zero: u8) -> [S::Floats; 2] {
    let (d, zero) = (f16_to_f32(d), simd.splat_byte(zero));
    halves!(|h| {
        let scale = simd.splat(d * f32::from(scales[h]));
        simd.mul(scale, simd.to_floats(simd.sub_bytes(q[h], zero)))
    })
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
    fn group<S: Simd>(&self, simd: S, group: usize) -> [S::Floats; 2] {
        let (d, dmin) = (f16_to_f32(self.d), f16_to_f32(self.dmin));
        let q = fields(simd, &self.qs, group / 4, 2 * (group % 4), 3);
        halves!(|h| {
            let packed = self.scales[2 * group + h];
            let scale = simd.splat(d * f32::from(packed & 0xf));
            let min = simd.splat(dmin * f32::from(packed >> 4));
            simd.sub(simd.mul(scale, simd.to_floats(q[h])), min)
        })
    }
}

impl Block for BlockQ3K {
    const GROUPS: usize = 8;

    #[inline(always)]
    fn group<S: Simd>(&self, simd: S, group: usize) -> [S::Floats; 2] {
        let low = fields(simd, &self.qs, group / 4, 2 * (group % 4), 3);
        let high = fields(simd, &self.hmask, 0, group, 1);
        let scales = halves!(|h| q3_scale(&self.scales, 2 * group + h));
        scaled(simd, joined(simd, low, high, 2), self.d, scales, 4)
    }
}

impl Block for BlockQ4K {
    const GROUPS: usize = 8;

    #[inline(always)]
    fn group<S: Simd>(&self, simd: S, group: usize) -> [S::Floats; 2] {
        let q = fields(simd, &self.qs, group / 2, 4 * (group % 2), 0xf);
        affine(
            simd,
            q,
            self.d,
            self.dmin,
            scale_and_min(&self.scales, group),
        )
    }
}

impl Block for BlockQ5K {
    const GROUPS: usize = 8;

    #[inline(always)]
    fn group<S: Simd>(&self, simd: S, group: usize) -> [S::Floats; 2] {
        let low = fields(simd, &self.qs, group / 2, 4 * (group % 2), 0xf);
        let high = fields(simd, &self.qh, 0, group, 1);
        let q = joined(simd, low, high, 4);
        affine(
            simd,
            q,
            self.d,
            self.dmin,
            scale_and_min(&self.scales, group),
        )
    }
}

impl Block for BlockQ6K {
    const GROUPS: usize = 8;

    #[inline(always)]
    fn group<S: Simd>(&self, simd: S, group: usize) -> [S::Floats; 2] {
        let (half, quarter) = (group / 4, group % 4);
        let low = fields(
            simd,
            &self.ql,
            2 * half + quarter % 2,
            4 * (quarter / 2),
            0xf,
        );
        let high = fields(simd, &self.qh, half, 2 * quarter, 3);
        let scales = halves!(|h| self.scales[2 * group + h]);
        scaled(simd, joined(simd, low, high, 4), self.d, scales, 32)
    }
}
