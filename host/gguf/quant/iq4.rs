//! IQ4_NL, IQ4_XS.

use kernels_gpu::quant::{BlockIq4Nl, BlockIq4Xs};

use super::block::Block;
use super::chunk::{Chunk, Each, Levels, Scales};
use super::half::f16_to_f32;
use super::legacy::{nibbles, scaled_chunk};
use super::simd::integers::eight;
use super::simd::{Simd, halves};

/// The levels that nibbles stand for (ggml's `kvalues_iq4nl`).
const LEVELS: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// `scale * LEVELS[q]`.
#[inline(always)]
fn levels<S: Simd>(simd: S, qs: &[u8; 16], scale: f32) -> [S::Floats; 2] {
    let scale = simd.splat(scale);
    let q = nibbles(simd, qs);
    halves!(|h| simd.mul(scale, simd.to_floats(simd.lookup(&LEVELS, q[h]))))
}

/// The scale of a group of IQ4_XS.
#[inline(always)]
fn xs_scale(block: &BlockIq4Xs, group: usize) -> i8 {
    let low = (block.scales_l[group / 2] >> (4 * (group % 2))) & 0xf;
    let high = (block.scales_h >> (2 * group)) & 3;
    (low | (high << 4) as u8) as i8 - 32
}

impl Block for BlockIq4Nl {
    const GROUPS: usize = 1;

    #[inline(always)]
    fn group<S: Simd>(&self, simd: S, _: usize) -> [S::Floats; 2] {
        levels(simd, &self.qs, f16_to_f32(self.d))
    }
}

impl Block for BlockIq4Xs {
    const GROUPS: usize = 8;

    #[inline(always)]
    fn group<S: Simd>(&self, simd: S, group: usize) -> [S::Floats; 2] {
        let scale = f16_to_f32(self.d) * f32::from(xs_scale(self, group));
        levels(simd, &self.qs.as_chunks().0[group], scale)
    }
}

scaled_chunk!(BlockIq4Nl, Levels::Signed, |simd, block| {
    simd.group_lookup(&LEVELS, simd.nibbles(&block.qs))
});

impl Chunk for BlockIq4Xs {
    const LEVELS: Levels = Levels::Signed;
    const FACTORS: Each = Each::Group;
    const OFFSETS: Each = Each::None;

    #[inline(always)]
    fn levels<S: Simd>(&self, simd: S, group: usize) -> S::Group {
        simd.group_lookup(&LEVELS, simd.nibbles(&self.qs.as_chunks().0[group]))
    }

    #[inline(always)]
    fn scales<S: Simd>(&self, simd: S) -> Scales<S> {
        let factors = simd.eight_bytes(&eight!(|g| xs_scale(self, g)));
        Scales {
            factors: [factors; 2],
            ..Scales::of(simd, simd.splat_eight(f16_to_f32(self.d)))
        }
    }
}
