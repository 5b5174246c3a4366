//! Activations in 8 bits: blocks of 16 elements with a scale each, encoded as a GPU's matrix-vector kernels do it
//! (`kernels-gpu/src/ops/activations.rs`), so that one bound holds for both. A group has two of them.

use crate::gguf::quant::chunk::{CHUNK, place_of};
use crate::gguf::quant::simd::integers::{GROUP, GROUPS};
use crate::gguf::quant::simd::{Kernel, Simd, dispatch};

/// Elements that share a scale.
const BLOCK: usize = GROUP / 2;

/// 256 elements, of which each is `scale * level`. Groups of a vector's last chunk that the vector does not fill are its
/// first ones, and zeros: so the weights of a chunk may be read in place, whatever those are that it has in common with
/// the chunk before.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Quantized {
    /// From -127 to 127.
    pub levels: [[i8; GROUP]; GROUPS],
    /// Of the groups' first halves, and of their last ones, the least bfloat16 that is at least `max |x| / 127`; not
    /// finite where an element is not.
    pub scales: [[f32; GROUPS]; 2],
    /// Sums of the levels of halves.
    pub sums: [[i32; GROUPS]; 2],
    /// The same times the scales.
    pub scaled_sums: [[f32; GROUPS]; 2],
    /// Sums of the two of a group.
    pub scaled_group_sums: [f32; GROUPS],
}

impl Quantized {
    const ZERO: Quantized = Quantized {
        levels: [[0; GROUP]; GROUPS],
        scales: [[0.0; GROUPS]; 2],
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
    let levels = out.levels[g].as_chunks_mut::<BLOCK>().0;
    for (half, (x, levels)) in x.as_chunks().0.iter().zip(levels).enumerate() {
        let (scale, sum) = block(x, levels);
        out.scales[half][g] = scale;
        out.sums[half][g] = sum;
        out.scaled_sums[half][g] = scale * sum as f32;
    }
    out.scaled_group_sums[g] = out.scaled_sums[0][g] + out.scaled_sums[1][g];
}

/// Writes the levels of a block; its scale, and their sum.
#[inline(always)]
fn block(x: &[f32; BLOCK], levels: &mut [i8; BLOCK]) -> (f32, i32) {
    // Below it 127 / x would not be finite, and the elements become zeros.
    const SMALLEST: f32 = 1e-30;
    // The low bits of a sum with it are the nearest integer, halves to even.
    const INTEGERS: f32 = 12_582_912.0;
    const NAN: u32 = 0x7fc0_0000;
    // Magnitudes are ordered as their bits are, a NaN being the largest.
    let mut largest = 0;
    for x in x {
        largest = largest.max(x.to_bits() & 0x7fff_ffff);
    }
    let largest = f32::from_bits(largest);
    let scale = ((largest * (1.0 / 127.0)).to_bits() + 0xffff).min(NAN) & 0xffff_0000;
    let scale = f32::from_bits(scale);
    let to_level = if largest > SMALLEST { 1.0 / scale } else { 0.0 };
    let mut sum = 0;
    for (level, x) in levels.iter_mut().zip(x) {
        *level = (x * to_level + INTEGERS).to_bits() as i8;
        sum += i32::from(*level);
    }
    (scale, sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_half_a_step_off_at_most() {
        let x: Vec<f32> = (0..CHUNK + 3 * GROUP)
            .map(|i| (i as f32 * 0.37).sin() * (i as f32 - 100.0))
            .collect();
        let quantized = quantize(&x);
        assert_eq!(quantized.len(), 2);
        for (i, &x) in x.iter().enumerate() {
            let (chunk, g) = place_of(i / GROUP, x_groups());
            let scale = quantized[chunk].scales[i % GROUP / BLOCK][g];
            let level = quantized[chunk].levels[g][i % GROUP];
            let error = (f32::from(level) * scale - x).abs();
            assert!(error <= 0.501 * scale, "{x} as {level} * {scale}");
        }
        // What the vector does not fill comes first.
        assert_eq!(quantized[1].levels[..5], [[0; GROUP]; 5]);
        for chunk in &quantized {
            for g in 0..GROUPS {
                let halves = chunk.levels[g].as_chunks::<BLOCK>().0;
                for (half, levels) in halves.iter().enumerate() {
                    let sum: i32 = levels.iter().map(|&level| i32::from(level)).sum();
                    assert_eq!(chunk.sums[half][g], sum);
                    let scaled = chunk.scales[half][g] * sum as f32;
                    assert_eq!(chunk.scaled_sums[half][g], scaled);
                }
            }
        }
        fn x_groups() -> usize {
            CHUNK / GROUP + 3
        }
    }

    #[test]
    fn what_is_not_finite_shows_in_the_scale() {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; GROUP];
            x[20] = broken;
            let [first, last] = quantize(&x)[0].scales.map(|scales| scales[GROUPS - 1]);
            assert!(
                first.is_finite() && !last.is_finite(),
                "{broken}: {first}, {last}"
            );
        }
        // Too small for a scale whose inverse is finite.
        let [quantized] = quantize(&[1e-38; GROUP])[..] else {
            panic!("one chunk");
        };
        assert_eq!(quantized.levels[GROUPS - 1], [0; GROUP]);
    }
}
