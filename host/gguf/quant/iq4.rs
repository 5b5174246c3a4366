//! IQ4_NL, IQ4_XS.

use kernels_gpu::quant::{BlockIq4Nl, BlockIq4Xs};

use super::block::Block;
use super::half::f16_to_f32;
use super::legacy::nibbles;

/// The levels that nibbles stand for (ggml's `kvalues_iq4nl`).
const LEVELS: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0,
    89.0, 113.0,
];

impl Block for BlockIq4Nl {
    const GROUPS: usize = 1;

    #[inline(always)]
    fn group(&self, _: usize) -> [f32; 32] {
        let d = f16_to_f32(self.d);
        nibbles(&self.qs).map(|q| d * LEVELS[usize::from(q)])
    }
}

impl Block for BlockIq4Xs {
    const GROUPS: usize = 8;

    #[inline(always)]
    fn group(&self, group: usize) -> [f32; 32] {
        let low = (self.scales_l[group / 2] >> (4 * (group % 2))) & 0xf;
        let high = (self.scales_h >> (2 * group)) & 3;
        let scale = f16_to_f32(self.d) * f32::from((low | (high << 4) as u8) as i8 - 32);
        nibbles(&self.qs.as_chunks().0[group]).map(|q| scale * LEVELS[usize::from(q)])
    }
}
