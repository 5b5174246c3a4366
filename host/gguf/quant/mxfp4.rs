//! MXFP4.

use kernels_gpu::quant::BlockMxfp4;

use super::block::Block;
use super::legacy::nibbles;

/// Twice the E2M1 values, which are whole numbers (ggml's `kvalues_mxfp4`; it has no negative
/// zero).
const DOUBLED_VALUES: [f32; 16] = [
    0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0,
];

/// `2^(e - 128)`: half the scale that `e` stands for, since the values are doubled.
#[inline(always)]
fn half_scale(e: u8) -> f32 {
    // The two smallest are subnormal.
    f32::from_bits(if e < 2 {
        0x0020_0000 << e
    } else {
        (u32::from(e) - 1) << 23
    })
}

impl Block for BlockMxfp4 {
    const GROUPS: usize = 1;

    #[inline(always)]
    fn group(&self, _: usize) -> [f32; 32] {
        let d = half_scale(self.e);
        nibbles(&self.qs).map(|q| d * DOUBLED_VALUES[usize::from(q)])
    }
}
