//! Q2_K, Q3_K, Q4_K, Q5_K, Q6_K. The layouts are described at the block types.

use kernels_gpu::quant::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K};

use super::block::Block;
use super::chunk::{Chunk, Each, Levels, Scales};
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

/// The bits `shift ..` under `mask` of the bytes of group `part`.
#[inline(always)]
fn group_fields<S: Simd>(simd: S, bytes: &[u8], part: usize, shift: usize, mask: u8) -> S::Group {
    simd.group_field(simd.load_group(&bytes.as_chunks().0[part]), shift, mask)
}

/// Scales and minimums of the eight groups of Q4_K and Q5_K, four at a time.
#[inline(always)]
fn scales_and_mins(scales: &[u8; 12]) -> [[i8; 8]; 2] {
    const SIX_BITS: u32 = 0x3f3f_3f3f;
    const FOUR_BITS: u32 = 0x0f0f_0f0f;
    const TWO_HIGH_BITS: u32 = 0x3030_3030;
    let [a, b, c]: [u32; 3] = bytemuck::pod_read_unaligned(scales);
    let scales = [a & SIX_BITS, (c & FOUR_BITS) | ((a >> 2) & TWO_HIGH_BITS)];
    let mins = [
        b & SIX_BITS,
        ((c >> 4) & FOUR_BITS) | ((b >> 2) & TWO_HIGH_BITS),
    ];
    [bytemuck::cast(scales), bytemuck::cast(mins)]
}

/// [`Scales`] of Q4_K and Q5_K.
#[inline(always)]
fn affine_scales<S: Simd>(simd: S, d: u16, dmin: u16, packed: &[u8; 12]) -> Scales<S> {
    let [factors, mins] = scales_and_mins(packed);
    let mins = simd.eight_to_floats(simd.eight_bytes(&mins));
    let offsets = simd.mul_eight_floats(simd.splat_eight(-f16_to_f32(dmin)), mins);
    Scales {
        scale: simd.splat_eight(f16_to_f32(d)),
        factors: [simd.eight_bytes(&factors); 2],
        offsets: [offsets; 2],
    }
}

impl Chunk for BlockQ2K {
    const LEVELS: Levels = Levels::Unsigned;
    const FACTORS: Each = Each::Half;
    const OFFSETS: Each = Each::Half;

    #[inline(always)]
    fn levels<S: Simd>(&self, simd: S, group: usize) -> S::Group {
        group_fields(simd, &self.qs, group / 4, 2 * (group % 4), 3)
    }

    #[inline(always)]
    fn scales<S: Simd>(&self, simd: S) -> Scales<S> {
        let mut factors = [0; 16];
        let mut mins = [0; 16];
        for (i, packed) in self.scales.iter().enumerate() {
            (factors[i], mins[i]) = ((packed & 0xf) as i8, (packed >> 4) as i8);
        }
        let mins = simd.eight_pairs(&mins);
        let dmin = simd.splat_eight(-f16_to_f32(self.dmin));
        Scales {
            scale: simd.splat_eight(f16_to_f32(self.d)),
            factors: simd.eight_pairs(&factors),
            offsets: halves!(|h| simd.mul_eight_floats(dmin, simd.eight_to_floats(mins[h]))),
        }
    }
}

impl Chunk for BlockQ3K {
    const LEVELS: Levels = Levels::Centered(2);
    const FACTORS: Each = Each::Half;
    const OFFSETS: Each = Each::None;

    #[inline(always)]
    fn levels<S: Simd>(&self, simd: S, group: usize) -> S::Group {
        let low = group_fields(simd, &self.qs, group / 4, 2 * (group % 4), 3);
        simd.group_joined(low, group_fields(simd, &self.hmask, 0, group, 1), 2)
    }

    #[inline(always)]
    fn scales<S: Simd>(&self, simd: S) -> Scales<S> {
        let mut factors = [0; 16];
        for (i, factor) in factors.iter_mut().enumerate() {
            *factor = q3_scale(&self.scales, i);
        }
        Scales {
            factors: simd.eight_pairs(&factors),
            ..Scales::of(simd, simd.splat_eight(f16_to_f32(self.d)))
        }
    }
}

impl Chunk for BlockQ4K {
    const LEVELS: Levels = Levels::Unsigned;
    const FACTORS: Each = Each::Group;
    const OFFSETS: Each = Each::Group;

    #[inline(always)]
    fn levels<S: Simd>(&self, simd: S, group: usize) -> S::Group {
        group_fields(simd, &self.qs, group / 2, 4 * (group % 2), 0xf)
    }

    #[inline(always)]
    fn scales<S: Simd>(&self, simd: S) -> Scales<S> {
        affine_scales(simd, self.d, self.dmin, &self.scales)
    }
}

impl Chunk for BlockQ5K {
    const LEVELS: Levels = Levels::Unsigned;
    const FACTORS: Each = Each::Group;
    const OFFSETS: Each = Each::Group;

    #[inline(always)]
    fn levels<S: Simd>(&self, simd: S, group: usize) -> S::Group {
        let low = group_fields(simd, &self.qs, group / 2, 4 * (group % 2), 0xf);
        simd.group_joined(low, group_fields(simd, &self.qh, 0, group, 1), 4)
    }

    #[inline(always)]
    fn scales<S: Simd>(&self, simd: S) -> Scales<S> {
        affine_scales(simd, self.d, self.dmin, &self.scales)
    }
}

impl Chunk for BlockQ6K {
    const LEVELS: Levels = Levels::Centered(5);
    const FACTORS: Each = Each::Half;
    const OFFSETS: Each = Each::None;

    #[inline(always)]
    fn levels<S: Simd>(&self, simd: S, group: usize) -> S::Group {
        let (half, quarter) = (group / 4, group % 4);
        let part = 2 * half + quarter % 2;
        let low = group_fields(simd, &self.ql, part, 4 * (quarter / 2), 0xf);
        simd.group_joined(low, group_fields(simd, &self.qh, half, 2 * quarter, 3), 4)
    }

    #[inline(always)]
    fn scales<S: Simd>(&self, simd: S) -> Scales<S> {
        Scales {
            factors: simd.eight_pairs(&self.scales),
            ..Scales::of(simd, simd.splat_eight(f16_to_f32(self.d)))
        }
    }
}
