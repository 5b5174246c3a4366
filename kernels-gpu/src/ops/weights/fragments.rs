//! How the integer tensor cores read weights: a lane's words of two rows, and the units' scales.
//!
//! Lane `4 g + t` has of a unit of 32 elements of a row `g` the elements `4 t ..` and `16 + 4 t ..`, four each: its
//! part of a product's left factor, see [`mma`](crate::prim::mma). They may be the integers times a power of two,
//! which is taken out of the scale, where that saves a shift; integers around a center become signed ones.

use super::bytes::Bytes;
use super::{Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, Quantized, Weights, byte_to_f32};
use crate::prim::half::f16x2_to_f32;

/// A type whose blocks integer tensor cores multiply. Its integers are unsigned bytes where it has minimums, and signed
/// ones otherwise.
pub trait Fragments: Quantized + Weights {
    /// Neighbouring units whose words are loaded together: 2, or 4.
    const LOADED: u32;
    /// The words that they are in.
    type Words: Copy;
    /// What is decoded once for all units of a step.
    type Header: Copy;

    /// Reads the header of a row's step of [`MATMUL_Q8_UNITS`](crate::abi::MATMUL_Q8_UNITS) units.
    ///
    /// # Safety
    /// The step lies at `row` in shared memory, at the alignment that it has in a tensor at a multiple of 16, and is
    /// followed by a readable word.
    unsafe fn header(row: Bytes) -> Self::Header;

    /// Loads this lane's words of the units from `unit` (a multiple of [`LOADED`](Self::LOADED)) on.
    ///
    /// # Safety
    /// As for [`header`](Self::header).
    unsafe fn words(row: Bytes, unit: u32, t: u32) -> Self::Words;

    /// This lane's bytes of unit `unit`, of whose words these are.
    fn fragment(words: &Self::Words, unit: u32) -> [u32; 2];

    /// The scales of the halves of a unit, whose bytes may have been multiplied. Times 3 they are still exact in f32.
    ///
    /// # Safety
    /// As for [`header`](Self::header).
    unsafe fn scales(row: Bytes, header: &Self::Header, unit: u32) -> [f32; 2];

    /// The minimum of unit `4 * quad + t`; 0 in types without.
    ///
    /// # Safety
    /// As for [`header`](Self::header).
    #[inline(always)]
    unsafe fn minimum(_row: Bytes, _header: &Self::Header, _quad: u32, _t: u32) -> f32 {
        0.0
    }
}

/// The low and the high nibbles of all bytes, and the sign bits.
const LOW: u32 = 0x0f0f_0f0f;
const HIGH: u32 = 0xf0f0_f0f0;
const SIGNS: u32 = 0x8080_8080;

/// Scales and minimums of a block of Q4_K or Q5_K: the factors, then a byte a unit.
#[derive(Clone, Copy)]
pub struct KHeader {
    d: f32,
    dmin: f32,
    scales: [u32; 2],
    minimums: [u32; 2],
}

impl KHeader {
    #[inline(always)]
    unsafe fn load(block: Bytes) -> Self {
        const SIX: u32 = 0x3f3f_3f3f;
        const TOP: u32 = 0x3030_3030;
        // SAFETY: the caller's.
        let [d, low, middle, high]: [u32; 4] = unsafe { block.words_aligned() };
        let [d, dmin] = f16x2_to_f32(d);
        Self {
            d,
            dmin,
            scales: [low & SIX, high & LOW | low >> 2 & TOP],
            minimums: [middle & SIX, high >> 4 & LOW | middle >> 2 & TOP],
        }
    }

    #[inline(always)]
    fn scale(&self, unit: u32) -> f32 {
        self.d * byte_to_f32(self.scales[unit as usize / 4], unit % 4, 0)
    }

    #[inline(always)]
    fn minimum(&self, quad: u32, t: u32) -> f32 {
        self.dmin * byte_to_f32(self.minimums[quad as usize], t, 0)
    }
}

impl Fragments for Q4K {
    const LOADED: u32 = 2;
    type Words = [u32; 2];
    type Header = KHeader;

    #[inline(always)]
    unsafe fn header(row: Bytes) -> KHeader {
        // SAFETY: the caller's.
        unsafe { KHeader::load(row) }
    }

    #[inline(always)]
    unsafe fn words(row: Bytes, unit: u32, t: u32) -> [u32; 2] {
        let place = row.add(16 + 16 * unit + 4 * t);
        // SAFETY: the caller's.
        unsafe { [place.word(), place.add(16).word()] }
    }

    #[inline(always)]
    fn fragment(words: &[u32; 2], unit: u32) -> [u32; 2] {
        // The high nibbles stay where they are: sixteen times as much.
        words.map(|word| word & if unit.is_multiple_of(2) { LOW } else { HIGH })
    }

    #[inline(always)]
    unsafe fn scales(_: Bytes, header: &KHeader, unit: u32) -> [f32; 2] {
        let factor = if unit.is_multiple_of(2) {
            1.0
        } else {
            1.0 / 16.0
        };
        [header.scale(unit) * factor; 2]
    }

    #[inline(always)]
    unsafe fn minimum(_: Bytes, header: &KHeader, quad: u32, t: u32) -> f32 {
        header.minimum(quad, t)
    }
}

impl Fragments for Q5K {
    const LOADED: u32 = 2;
    type Words = [u32; 4];
    type Header = KHeader;

    #[inline(always)]
    unsafe fn header(row: Bytes) -> KHeader {
        // SAFETY: the caller's.
        unsafe { KHeader::load(row) }
    }

    #[inline(always)]
    unsafe fn words(row: Bytes, unit: u32, t: u32) -> [u32; 4] {
        let nibbles = row.add(48 + 16 * unit + 4 * t);
        let fifth_bits = row.add(16 + 4 * t);
        // SAFETY: the caller's.
        unsafe {
            [
                nibbles.word(),
                nibbles.add(16).word(),
                fifth_bits.word(),
                fifth_bits.add(16).word(),
            ]
        }
    }

    #[inline(always)]
    fn fragment(words: &[u32; 4], unit: u32) -> [u32; 2] {
        [0, 1].map(|i: usize| {
            let nibbles = words[i] >> (unit % 2 * 4) & LOW;
            nibbles | (words[2 + i] >> unit & 0x0101_0101) << 4
        })
    }

    #[inline(always)]
    unsafe fn scales(_: Bytes, header: &KHeader, unit: u32) -> [f32; 2] {
        [header.scale(unit); 2]
    }

    #[inline(always)]
    unsafe fn minimum(_: Bytes, header: &KHeader, quad: u32, t: u32) -> f32 {
        header.minimum(quad, t)
    }
}

/// The factor of a block of Q6_K, and a signed byte for each half of a unit.
#[derive(Clone, Copy)]
pub struct Q6Header {
    d: f32,
    scales: [u32; 4],
}

impl Fragments for Q6K {
    const LOADED: u32 = 4;
    type Words = [u32; 6];
    type Header = Q6Header;

    #[inline(always)]
    unsafe fn header(row: Bytes) -> Q6Header {
        // SAFETY: the caller's.
        unsafe {
            Q6Header {
                // The bytes of fragments are four times the integers.
                d: row.add(208).f16() * 0.25,
                scales: row.add(192).words_unaligned::<4>().map(|word| word ^ SIGNS),
            }
        }
    }

    #[inline(always)]
    unsafe fn words(row: Bytes, unit: u32, t: u32) -> [u32; 6] {
        let low = row.add(16 * unit + 4 * t);
        let high = row.add(128 + 8 * unit + 4 * t);
        // SAFETY: the caller's.
        unsafe {
            [
                unaligned(low),
                unaligned(low.add(16)),
                unaligned(low.add(32)),
                unaligned(low.add(48)),
                unaligned(high),
                unaligned(high.add(16)),
            ]
        }
    }

    #[inline(always)]
    fn fragment(words: &[u32; 6], unit: u32) -> [u32; 2] {
        let step = unit % 4;
        [0, 1].map(|i: usize| {
            let low = words[2 * (step as usize % 2) + i];
            // Six bits at the top of each byte; the highest one, which stands for the center, becomes the sign.
            let low = if step < 2 { low << 2 } else { low >> 2 } & 0x3c3c_3c3c;
            (words[4 + i] << (6 - 2 * step) & 0xc0c0_c0c0 | low) ^ SIGNS
        })
    }

    #[inline(always)]
    unsafe fn scales(_: Bytes, header: &Q6Header, unit: u32) -> [f32; 2] {
        let word = header.scales[unit as usize / 2];
        [0, 1].map(|half| header.d * byte_to_f32(word, unit % 2 * 2 + half, 128))
    }
}

/// Fragments of the types whose blocks are units: the words of a block, the factor on its scale, where its minimum lies,
/// and the bytes.
macro_rules! one_level {
    ($(
        $ty:ident, $words:literal, $factor:expr, $minimum:expr,
        |$block:ident, $t:ident| $load:expr,
        |$word:ident| $fragment:expr;
    )*) => {$(
        impl Fragments for $ty {
            const LOADED: u32 = 2;
            type Words = [[u32; $words]; 2];
            type Header = ();

            #[inline(always)]
            unsafe fn header(_: Bytes) {}

            #[inline(always)]
            unsafe fn words(row: Bytes, unit: u32, $t: u32) -> Self::Words {
                [unit, unit + 1].map(|unit| {
                    let $block = row.add(unit * Self::TYPE_BYTES);
                    // SAFETY: the caller's.
                    unsafe { $load }
                })
            }

            #[inline(always)]
            fn fragment(words: &Self::Words, unit: u32) -> [u32; 2] {
                let $word = words[unit as usize % 2];
                $fragment
            }

            #[inline(always)]
            unsafe fn scales(row: Bytes, _: &(), unit: u32) -> [f32; 2] {
                // SAFETY: the caller's.
                let d = unsafe { row.add(unit * Self::TYPE_BYTES).f16() };
                [d * $factor; 2]
            }

            #[inline(always)]
            unsafe fn minimum(row: Bytes, _: &(), quad: u32, t: u32) -> f32 {
                let place: Option<u32> = $minimum;
                match place {
                    // SAFETY: the caller's.
                    Some(at) => unsafe { -row.add((4 * quad + t) * Self::TYPE_BYTES + at).f16() },
                    None => 0.0,
                }
            }
        }
    )*};
}

/// Bytes of a block.
trait BlockBytes {
    const TYPE_BYTES: u32;
}

impl<Q: Quantized> BlockBytes for Q {
    const TYPE_BYTES: u32 = Q::TYPE.block_bytes();
}

one_level! {
    Q4_0, 1, 1.0 / 16.0, None,
        |block, t| [unaligned(block.add(2 + 4 * t))],
        |word| [word[0] << 4 & HIGH ^ SIGNS, word[0] & HIGH ^ SIGNS];
    Q4_1, 1, 1.0, Some(2),
        |block, t| [block.add(4 + 4 * t).word()],
        |word| [word[0] & LOW, word[0] >> 4 & LOW];
    Q5_0, 2, 1.0 / 8.0, None,
        |block, t| [unaligned(block.add(6 + 4 * t)), unaligned(block.add(2)) >> (4 * t)],
        |word| [0, 1].map(|half| {
            let nibbles = if half == 0 { word[0] << 3 } else { word[0] >> 1 } & 0x7878_7878;
            (nibbles | spread(word[1] >> (16 * half)) << 3) ^ SIGNS
        });
    Q5_1, 2, 1.0, Some(2),
        |block, t| [block.add(8 + 4 * t).word(), block.add(4).word() >> (4 * t)],
        |word| [0, 1].map(|half| word[0] >> (4 * half) & LOW | spread(word[1] >> (16 * half)));
    Q8_0, 2, 1.0, None,
        |block, t| [unaligned(block.add(2 + 4 * t)), unaligned(block.add(18 + 4 * t))],
        |word| word;
}

/// Bit `k` of four as bit 4 of byte `k`.
#[inline(always)]
fn spread(bits: u32) -> u32 {
    // The product has bit `k` at places `k + 4`, `k + 11`, `k + 18` and `k + 25`.
    ((bits & 0xf) * 0x0204_0810) & 0x1010_1010
}

/// A word at an even place.
///
/// # Safety
/// As for [`Bytes::words_unaligned`].
#[inline(always)]
unsafe fn unaligned(place: Bytes) -> u32 {
    // SAFETY: the caller's.
    let [word] = unsafe { place.words_unaligned() };
    word
}
