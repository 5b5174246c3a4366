//! Groups in registers of 256 bits; with AVX-512, VNNI's products and sums of 512 bits.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::integers::{GROUP, GROUPS, Integers};
use super::x86::{Avx2, Avx512};
use super::{LANES, operations};

/// What both instruction sets do in the same way.
macro_rules! group_operations {
    () => {
        type Group = __m256i;
        type Eight = __m256i;
        type EightFloats = __m256;

        operations! {
            fn load_group(bytes: &[u8; GROUP]) -> __m256i { transmute(*bytes) }
            fn store_group(group: __m256i, to: &mut [u8; GROUP]) {
                *to = transmute(group)
            }
            fn nibbles(bytes: &[u8; LANES]) -> __m256i {
                let bytes: __m128i = transmute(*bytes);
                // Bytes are shifted in pairs; the mask drops what came from the neighbour.
                let both = _mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes);
                _mm256_and_si256(both, _mm256_set1_epi8(0xf))
            }
            fn group_field(group: __m256i, shift: usize, mask: u8) -> __m256i {
                let shifted = _mm256_srl_epi16(group, _mm_cvtsi64_si128(shift as i64));
                _mm256_and_si256(shifted, _mm256_set1_epi8(mask as i8))
            }
            fn group_joined(low: __m256i, high: __m256i, shift: usize) -> __m256i {
                _mm256_or_si256(low, _mm256_sll_epi16(high, _mm_cvtsi64_si128(shift as i64)))
            }
            fn group_bits(bits: u32, byte: u8) -> __m256i {
                // Each lane sees the byte that holds its bit, then that bit alone.
                let spread = _mm256_setr_epi64x(
                    0,
                    0x0101_0101_0101_0101,
                    0x0202_0202_0202_0202,
                    0x0303_0303_0303_0303,
                );
                let own = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
                let bits = _mm256_shuffle_epi8(_mm256_set1_epi32(bits as i32), spread);
                let set = _mm256_cmpeq_epi8(_mm256_and_si256(bits, own), own);
                _mm256_and_si256(set, _mm256_set1_epi8(byte as i8))
            }
            fn group_lookup(table: &[i8; LANES], group: __m256i) -> __m256i {
                let table: __m128i = transmute(*table);
                _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), group)
            }
            fn sum_halves(vectors: [__m256i; GROUPS]) -> [__m256i; 2] {
                let [a, b, c, d, e, f, g, h] = vectors;
                let first = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
                let last = _mm256_hadd_epi32(_mm256_hadd_epi32(e, f), _mm256_hadd_epi32(g, h));
                [
                    _mm256_permute2x128_si256::<0x20>(first, last),
                    _mm256_permute2x128_si256::<0x31>(first, last),
                ]
            }
            fn load_eight(values: &[i32; GROUPS]) -> __m256i {
                transmute(*values)
            }
            fn store_eight(values: __m256i, to: &mut [i32; GROUPS]) {
                *to = transmute(values)
            }
            fn eight_bytes(bytes: &[i8; GROUPS]) -> __m256i {
                _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(transmute(*bytes))))
            }
            fn eight_pairs(bytes: &[i8; 2 * GROUPS]) -> [__m256i; 2] {
                let pairs = _mm256_cvtepi16_epi32(transmute(*bytes));
                let even = _mm256_srai_epi32::<24>(_mm256_slli_epi32::<24>(pairs));
                [even, _mm256_srai_epi32::<8>(pairs)]
            }
            fn add_eight(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
            fn sub_eight(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi32(a, b) }
            fn mul_eight(a: __m256i, b: __m256i) -> __m256i { _mm256_mullo_epi32(a, b) }
            fn shift_eight(values: __m256i, shift: u32) -> __m256i {
                _mm256_sll_epi32(values, _mm_cvtsi64_si128(i64::from(shift)))
            }
            fn splat_eight(value: f32) -> __m256 { _mm256_set1_ps(value) }
            fn load_eight_floats(values: &[f32; GROUPS]) -> __m256 { transmute(*values) }
            fn store_eight_floats(values: __m256, to: &mut [f32; GROUPS]) {
                *to = transmute(values)
            }
            fn eight_halves(bits: &[u16; GROUPS]) -> __m256 {
                _mm256_cvtph_ps(transmute(*bits))
            }
            fn eight_to_floats(values: __m256i) -> __m256 { _mm256_cvtepi32_ps(values) }
            fn mul_eight_floats(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
            fn fused_eight(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        }
    };
}

impl Integers for Avx2 {
    group_operations!();

    type Sums = [__m256i; 2];

    const SUMS_HELD: usize = 4;

    operations! {
        fn dot_unsigned(weights: __m256i, x: &[i8; GROUP]) -> __m256i {
            let x: __m256i = transmute(*x);
            // Two products of at most 63 * 127 fit in 16 bits.
            _mm256_madd_epi16(_mm256_maddubs_epi16(weights, x), _mm256_set1_epi16(1))
        }
        fn dot_signed(weights: __m256i, x: &[i8; GROUP]) -> __m256i {
            let x: __m256i = transmute(*x);
            // |w| is at most 128 and x with the sign of w at most 127: two products fit in 16 bits.
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(x, weights));
            _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
        }
        fn no_sums() -> [__m256i; 2] { [_mm256_setzero_si256(); 2] }
        fn add_pairs(sums: [__m256i; 2], weights: &[i16; 2 * LANES], x: i32) -> [__m256i; 2] {
            let x = _mm256_set1_epi32(x);
            let [low, high]: [__m256i; 2] = transmute(*weights);
            [
                _mm256_add_epi32(sums[0], _mm256_madd_epi16(low, x)),
                _mm256_add_epi32(sums[1], _mm256_madd_epi16(high, x)),
            ]
        }
    }
}

impl Integers for Avx512 {
    group_operations!();

    type Sums = __m512i;

    const SUMS_HELD: usize = 16;

    operations! {
        fn dot_unsigned(weights: __m256i, x: &[i8; GROUP]) -> __m256i {
            let x: __m256i = transmute(*x);
            _mm256_dpbusd_epi32(_mm256_setzero_si256(), weights, x)
        }
        fn dot_signed(weights: __m256i, x: &[i8; GROUP]) -> __m256i {
            let x = _mm256_sign_epi8(transmute(*x), weights);
            _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_abs_epi8(weights), x)
        }
        fn no_sums() -> __m512i { _mm512_setzero_si512() }
        fn add_pairs(sums: __m512i, weights: &[i16; 2 * LANES], x: i32) -> __m512i {
            let weights: __m512i = transmute(*weights);
            _mm512_dpwssd_epi32(sums, weights, _mm512_set1_epi32(x))
        }
    }
}
