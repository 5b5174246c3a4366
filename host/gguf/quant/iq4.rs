//! IQ4_NL, IQ4_XS.

use kernels_gpu::quant::{BlockIq4Nl, BlockIq4Xs};

use super::block::Block;
use super::half::f16_to_f32;
use super::legacy::nibbles;
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
        let low = (self.scales_l[group / 2] >> (4 * (group % 2))) & 0xf;
        let high = (self.scales_h >> (2 * group)) & 3;
        let scale = f16_to_f32(self.d) * f32::from((low | (high << 4) as u8) as i8 - 32);
        levels(simd, &self.qs.as_chunks().0[group], scale)
    }
}
