//! Activations in shared memory, as the matrix-vector kernels multiply them: in groups of 32 elements
//! with a scale or two.
//!
//! A group's elements are 16-byte pieces, and lanes read neighbouring groups at the same time. An
//! exclusive or of the piece's number with that of its 128-byte line puts the pieces that eight lanes read
//! into different banks.

use cuda_std::shared::Shared;

use super::weights::{Quantized, QuantizedUnit, Weights};
use crate::abi::VectorFormat;
use crate::prim::half::{f16x2_to_f32, f32_to_f16x2};
use crate::prim::integer::{dp4a, dp4a_us, pack_bytes};
use crate::prim::math::{fma, recip_approx};
use crate::prim::reduce::shuffle_xor;

/// A format of activations, and the product of weights with it.
pub trait VectorEncoding<W: Weights>: Copy {
    /// The format.
    const TYPE: VectorFormat;

    /// `vectors` vectors of `groups` groups at a multiple of 16 bytes.
    fn new(place: Shared<u32>, vectors: u32, groups: u32) -> Self;

    /// Writes eight elements of a vector, from `element` (a multiple of 8) on; a warp together, four
    /// lanes a group. Lanes whose element is behind the last group write nothing.
    ///
    /// # Safety
    /// All 32 lanes come here together, with neighbouring elements from a multiple of 32 on.
    unsafe fn encode(self, vector: u32, element: u32, values: [f32; 8]);

    /// Adds the products of a unit of two rows with the activations at the same place of the first
    /// `vectors` vectors.
    ///
    /// # Safety
    /// The unit is in the vectors, which were encoded and published by a barrier.
    unsafe fn add_products<const N: usize>(
        self,
        rows: &[W::Unit; 2],
        unit: u32,
        vectors: u32,
        sums: &mut [[f32; 2]; N],
    );
}

/// Elements, then scales, of all vectors.
#[derive(Clone, Copy)]
struct Layout {
    elements: Shared<u32>,
    scales: Shared<u32>,
    groups: u32,
}

impl Layout {
    #[inline(always)]
    fn new(ty: VectorFormat, place: Shared<u32>, vectors: u32, groups: u32) -> Self {
        Self {
            elements: place,
            scales: place.byte_add(vectors * groups * ty.group_bytes()),
            groups,
        }
    }
}

/// [`VectorFormat::Q8`]: for each half of a group `d = max |x| / 127`, rounded up to bfloat16 so that both
/// halves' scales are one word, and `round(x / d)`, halves to even. Beside the scales are the sums of the
/// integers of both halves, for the weights' minimums and centers.
#[derive(Clone, Copy)]
pub struct Q8(Layout);

impl<W: Quantized> VectorEncoding<W> for Q8 {
    const TYPE: VectorFormat = VectorFormat::Q8;

    #[inline(always)]
    fn new(place: Shared<u32>, vectors: u32, groups: u32) -> Self {
        Self(Layout::new(VectorFormat::Q8, place, vectors, groups))
    }

    #[inline(always)]
    unsafe fn encode(self, vector: u32, element: u32, values: [f32; 8]) {
        // Below it 127 / x would not be finite, and the elements become zeros.
        const SMALLEST: f32 = 1e-30;
        const NAN: u32 = 0x7fc0_0000;
        // SAFETY: the caller's: whole warps; a group inside the vector is inside shared memory.
        unsafe {
            let largest = f32::from_bits(largest_of_lanes::<2>(values));
            let scale = ((largest * (1.0 / 127.0)).to_bits() + 0xffff).min(NAN) & 0xffff_0000;
            let to_integer = if largest > SMALLEST {
                recip_approx(f32::from_bits(scale))
            } else {
                0.0
            };
            // The sum's low bits are the integer. The GPU converts to integers at a quarter of the speed.
            let q = values.map(|value| fma(value, to_integer, INTEGERS).to_bits());
            let words = [
                pack_bytes([q[0], q[1], q[2], q[3]]),
                pack_bytes([q[4], q[5], q[6], q[7]]),
            ];
            const ONES: u32 = 0x0101_0101;
            let from_lane =
                |value: u32, lanes: u32| shuffle_xor(f32::from_bits(value), lanes).to_bits();
            let sum = dp4a(ONES, words[0], dp4a(ONES, words[1], 0)) as u32;
            let sum = sum.wrapping_add(from_lane(sum, 1));
            let (other_sum, other_scale) = (from_lane(sum, 2), from_lane(scale, 2));

            let group = element / 32;
            if group < self.0.groups {
                let piece = element / 16;
                let piece = piece ^ piece >> 3 & 1;
                let word = vector * self.0.groups * 8 + 4 * piece + element / 4 % 4;
                let place = self.0.elements.add(word).cast::<[u32; 2]>();
                place.store(words);
                if element.is_multiple_of(32) {
                    let scales = scale >> 16 | other_scale;
                    let sums = sum & 0xffff | other_sum << 16;
                    let place = self.0.scales.add(2 * (vector * self.0.groups + group));
                    place.cast::<[u32; 2]>().store([scales, sums]);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn add_products<const N: usize>(
        self,
        rows: &[QuantizedUnit; 2],
        unit: u32,
        vectors: u32,
        sums: &mut [[f32; 2]; N],
    ) {
        let swizzle = unit >> 2 & 1;
        let mut n = 0;
        while n < N {
            if (n as u32) < vectors {
                let group = n as u32 * self.0.groups + unit;
                let pieces = self.0.elements.add(n as u32 * self.0.groups * 8);
                let piece = |i: u32| pieces.add(4 * (2 * unit + (i ^ swizzle)));
                // SAFETY: the caller's.
                let (low, high, [scales, halves]) = unsafe {
                    (
                        piece(0).cast::<[u32; 4]>().load(),
                        piece(1).cast::<[u32; 4]>().load(),
                        self.0.scales.add(2 * group).cast::<[u32; 2]>().load(),
                    )
                };
                let x = [
                    low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3],
                ];
                let scales = [scales << 16, scales & 0xffff_0000].map(f32::from_bits);
                let half_sums = [halves as i16 as i32, halves as i32 >> 16];
                sums[n][0] += product::<W>(&rows[0], x, scales, half_sums);
                sums[n][1] += product::<W>(&rows[1], x, scales, half_sums);
            }
            n += 1;
        }
    }
}

/// 1.5 * 2^23. An f32 of this size has no place behind the point and is an integer's bits plus those of this
/// constant, as long as the integer is below 2^22: to add it converts, rounding halves to even.
const INTEGERS: f32 = 12_582_912.0;

/// The product of a unit with 32 integers, whose halves have the given scales and sums.
#[inline(always)]
fn product<W: Quantized>(
    unit: &QuantizedUnit,
    x: [u32; 8],
    scales: [f32; 2],
    half_sums: [i32; 2],
) -> f32 {
    let half = |half: usize| -> f32 {
        let mut sum = INTEGERS.to_bits() as i32 - W::CENTER as i32 * half_sums[half];
        let mut i = 4 * half;
        while i < 4 * half + 4 {
            sum = if W::SIGNED {
                dp4a(unit.q[i], x[i], sum)
            } else {
                dp4a_us(unit.q[i], x[i], sum)
            };
            i += 1;
        }
        f32::from_bits(sum as u32) - INTEGERS
    };
    let scaled_sum = |half: usize| scales[half] * half_sums[half] as f32;
    if W::HALVES {
        let scale = [0, 1].map(|half| unit.scale[half] * scales[half]);
        let dot = fma(scale[0], half(0), scale[1] * half(1));
        if W::MINIMUM {
            let dot = fma(-unit.minimum[0], scaled_sum(0), dot);
            fma(-unit.minimum[1], scaled_sum(1), dot)
        } else {
            dot
        }
    } else {
        let dot = fma(scales[0], half(0), scales[1] * half(1));
        if W::MINIMUM {
            let sum = scaled_sum(0) + scaled_sum(1);
            fma(unit.scale[0], dot, -(unit.minimum[0] * sum))
        } else {
            unit.scale[0] * dot
        }
    }
}

/// [`VectorFormat::F16`]: a power of two `s <= max |x|` and `x / s` in f16, so that no activation is
/// too large for f16. The weights are unpacked exactly, and products added in f32.
#[derive(Clone, Copy)]
pub struct Half(Layout);

impl<W: Weights> VectorEncoding<W> for Half {
    const TYPE: VectorFormat = VectorFormat::F16;

    #[inline(always)]
    fn new(place: Shared<u32>, vectors: u32, groups: u32) -> Self {
        Self(Layout::new(VectorFormat::F16, place, vectors, groups))
    }

    #[inline(always)]
    unsafe fn encode(self, vector: u32, element: u32, values: [f32; 8]) {
        const EXPONENT: u32 = 0x7f80_0000;
        // 2^126: its inverse is a normal number.
        const LARGEST_SCALE: u32 = 0x7e80_0000;
        const ONE_TWICE: u32 = 0x7f00_0000;
        // SAFETY: the caller's: whole warps; a group inside the vector is inside shared memory.
        unsafe {
            let scale = (largest_of_lanes::<4>(values) & EXPONENT).min(LARGEST_SCALE);
            let inverse = f32::from_bits(ONE_TWICE - scale);
            let [a, b, c, d, e, f, g, h] = values.map(|value| value * inverse);
            let group = element / 32;
            if group < self.0.groups {
                let piece = element / 8;
                let piece = piece ^ piece >> 3 & 3;
                let word = vector * self.0.groups * 16 + 4 * piece;
                let place = self.0.elements.add(word).cast::<[u32; 4]>();
                place.store([
                    f32_to_f16x2(a, b),
                    f32_to_f16x2(c, d),
                    f32_to_f16x2(e, f),
                    f32_to_f16x2(g, h),
                ]);
                if element.is_multiple_of(32) {
                    let place = self.0.scales.add(vector * self.0.groups + group);
                    place.store(scale);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn add_products<const N: usize>(
        self,
        rows: &[W::Unit; 2],
        unit: u32,
        vectors: u32,
        sums: &mut [[f32; 2]; N],
    ) {
        let eighths = W::TYPE.unit() / 8;
        let first = unit * eighths;
        let mut products = [[0f32; 2]; N];
        let mut eighth = 0;
        while eighth < eighths {
            let weights = [
                W::values(&rows[0], eighth as usize),
                W::values(&rows[1], eighth as usize),
            ];
            let piece = first + eighth;
            let piece = piece ^ piece >> 3 & 3;
            let mut n = 0;
            while n < N {
                if (n as u32) < vectors {
                    let word = n as u32 * self.0.groups * 16 + 4 * piece;
                    // SAFETY: the caller's.
                    let pairs = unsafe { self.0.elements.add(word).cast::<[u32; 4]>().load() };
                    let mut i = 0;
                    while i < 4 {
                        let [x0, x1] = f16x2_to_f32(pairs[i]);
                        let mut row = 0;
                        while row < 2 {
                            let sum = fma(weights[row][2 * i], x0, products[n][row]);
                            products[n][row] = fma(weights[row][2 * i + 1], x1, sum);
                            row += 1;
                        }
                        i += 1;
                    }
                }
                n += 1;
            }
            eighth += 1;
        }
        let mut n = 0;
        while n < N {
            if (n as u32) < vectors {
                let group = n as u32 * self.0.groups + first / 4;
                // SAFETY: the caller's.
                let scale = f32::from_bits(unsafe { self.0.scales.add(group).load() });
                sums[n][0] = fma(scale, products[n][0], sums[n][0]);
                sums[n][1] = fma(scale, products[n][1], sums[n][1]);
            }
            n += 1;
        }
    }
}

/// The bits of the largest magnitude of the elements of `LANES` (a power of two) neighbouring lanes, a NaN
/// being the largest: magnitudes are ordered as their bits are.
///
/// # Safety
/// All 32 lanes of the warp come here together.
#[inline(always)]
unsafe fn largest_of_lanes<const LANES: u32>(values: [f32; 8]) -> u32 {
    let bits = values.map(|value| value.to_bits() & 0x7fff_ffff);
    let mut largest = bits[0];
    let mut i = 1;
    while i < 8 {
        largest = largest.max(bits[i]);
        i += 1;
    }
    let mut distance = LANES / 2;
    while distance > 0 {
        // SAFETY: the caller's.
        let other = unsafe { shuffle_xor(f32::from_bits(largest), distance) };
        largest = largest.max(other.to_bits());
        distance /= 2;
    }
    largest
}
