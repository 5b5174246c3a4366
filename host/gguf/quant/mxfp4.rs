//! MXFP4.

use kernels_gpu::quant::BlockMxfp4;

use super::block::Block;
use super::chunk::{Chunk, Each, Levels, Scales};
use super::legacy::nibbles;
use super::simd::integers::eight;
use super::simd::{Simd, halves};

/// Twice the E2M1 values, which are whole numbers (ggml's `kvalues_mxfp4`; it has no negative
/// zero).
const DOUBLED_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

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
    fn group<S: Simd>(&self, simd: S, _: usize) -> [S::Floats; 2] {
        let d = simd.splat(half_scale(self.e));
        let q = nibbles(simd, &self.qs);
        halves!(|h| simd.mul(d, simd.to_floats(simd.lookup(&DOUBLED_VALUES, q[h]))))
    }
}

impl Chunk for [BlockMxfp4; 8] {
    const LEVELS: Levels = Levels::Signed;
    const FACTORS: Each = Each::None;
    const OFFSETS: Each = Each::None;

    #[inline(always)]
    fn levels<S: Simd>(&self, simd: S, group: usize) -> S::Group {
        simd.group_lookup(&DOUBLED_VALUES, simd.nibbles(&self[group].qs))
    }

    #[inline(always)]
    fn scales<S: Simd>(&self, simd: S) -> Scales<S> {
        let scales = eight!(|g| half_scale(self[g].e));
        Scales::of(simd, simd.load_eight_floats(&scales))
    }
}
