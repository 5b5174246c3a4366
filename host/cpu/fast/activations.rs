//! Activations in 8 bits: groups of 32 elements with a scale each.

use crate::gguf::quant::chunk::{CHUNK, place_of};
use crate::gguf::quant::simd::integers::{GROUP, GROUPS};
use crate::gguf::quant::simd::{Kernel, Simd, dispatch};

/// 256 elements, of which each is `scale * level`. Groups of a vector's last chunk that the vector does not fill are its
/// first ones, and zeros: so the weights of a chunk may be read in place, whatever those are that it has in common with
/// the chunk before.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Quantized {
    /// From -127 to 127.
    pub levels: [[i8; GROUP]; GROUPS],
    /// Of each group `max |x| / 127`; not finite where an element is not.
    pub scales: [f32; GROUPS],
    /// Sums of the levels of the groups' first halves, and of their last ones.
    pub sums: [[i32; GROUPS]; 2],
    /// The same times the scales.
    pub scaled_sums: [[f32; GROUPS]; 2],
    /// Sums of the levels of groups, times the scales.
    pub scaled_group_sums: [f32; GROUPS],
}

impl Quantized {
    const ZERO: Quantized = Quantized {
        levels: [[0; GROUP]; GROUPS],
        scales: [0.0; GROUPS],
        sums: [[0; GROUPS]; 2],
        scaled_sums: [[0.0; GROUPS]; 2],
        scaled_group_sums: [0.0; GROUPS],
    };
}

/// Chunks of a vector of `n` elements.
pub fn n_chunks(n: usize) -> usize {
    n.div_ceil(CHUNK)
}

/// `x`, of whole groups, in 8 bits.
pub fn quantize(x: &[f32]) -> Vec<Quantized> {
    let mut out = vec![Quantized::ZERO; n_chunks(x.len())];
    dispatch(Quantize { x, out: &mut out });
    out
}

struct Quantize<'a> {
    x: &'a [f32],
    out: &'a mut [Quantized],
}

impl Kernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let groups = self.x.as_chunks::<GROUP>().0;
        for (index, x) in groups.iter().enumerate() {
            let (chunk, place) = place_of(index, groups.len());
            group(x, &mut self.out[chunk], place);
        }
    }
}

/// Plain loops, which the compiler turns into vectors.
#[inline(always)]
fn group(x: &[f32; GROUP], out: &mut Quantized, g: usize) {
    // Below it 127 / x would not be finite, and the elements become zeros.
    const SMALLEST: f32 = 1e-30;
    // The low bits of a sum with it are the nearest integer, halves to even.
    const INTEGERS: f32 = 12_582_912.0;
    // Magnitudes are ordered as their bits are, a NaN being the largest.
    let mut largest = 0;
    for x in x {
        largest = largest.max(x.to_bits() & 0x7fff_ffff);
    }
    let largest = f32::from_bits(largest);
    let scale = largest / 127.0;
    let to_level = if largest > SMALLEST { 127.0 / largest } else { 0.0 };
    let levels = &mut out.levels[g];
    for (level, x) in levels.iter_mut().zip(x) {
        *level = (x * to_level + INTEGERS).to_bits() as i8;
    }
    let mut sums = [0; 2];
    for (half, levels) in levels.as_chunks::<{ GROUP / 2 }>().0.iter().enumerate() {
        for &level in levels {
            sums[half] += i32::from(level);
        }
        out.sums[half][g] = sums[half];
        out.scaled_sums[half][g] = scale * sums[half] as f32;
    }
    out.scales[g] = scale;
    out.scaled_group_sums[g] = scale * (sums[0] + sums[1]) as f32;
}
