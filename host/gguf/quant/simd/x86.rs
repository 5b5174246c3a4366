//! AVX-512 and AVX2.
//!
//! The operations on bytes are the same 128-bit instructions for both; floats are one register of
//! 512 bits or two of 256.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::{DOUBLES, Kernel, LANES, Simd, operations};

/// AVX-512 F, BW, DQ, VL and VNNI, which imply AVX2, FMA and F16C: Intel since Ice Lake, AMD since Zen 4. What has
/// less of AVX-512 takes AVX2.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

/// AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx512 {
    #[inline]
    pub(super) fn detect() -> Option<Avx512> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        found.then_some(Avx512(()))
    }

    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn compiled<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `detect` made `self`, so the CPU has these features.
        unsafe { compiled(self, kernel) }
    }
}

impl Avx2 {
    #[inline]
    pub(super) fn detect() -> Option<Avx2> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Avx2(()))
    }

    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn compiled<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `detect` made `self`, so the CPU has these features.
        unsafe { compiled(self, kernel) }
    }
}

/// The operations on bytes, in 128-bit registers.
macro_rules! byte_operations {
    () => {
        type Bytes = __m128i;

        operations! {
            fn load_bytes(bytes: &[u8; LANES]) -> __m128i { transmute(*bytes) }
            fn splat_byte(byte: u8) -> __m128i { _mm_set1_epi8(byte as i8) }
            fn field(bytes: __m128i, shift: usize, mask: u8) -> __m128i {
                // Bytes are shifted in pairs; the mask drops what came from the neighbour.
                let shifted = _mm_srl_epi16(bytes, _mm_cvtsi64_si128(shift as i64));
                _mm_and_si128(shifted, _mm_set1_epi8(mask as i8))
            }
            fn shift_up(bytes: __m128i, shift: usize) -> __m128i {
                _mm_sll_epi16(bytes, _mm_cvtsi64_si128(shift as i64))
            }
            fn or(a: __m128i, b: __m128i) -> __m128i { _mm_or_si128(a, b) }
            fn sub_bytes(a: __m128i, b: __m128i) -> __m128i { _mm_sub_epi8(a, b) }
            fn select_bits(bits: u16, byte: u8) -> __m128i {
                // Each lane sees the byte that holds its bit, then that bit alone.
                let spread = _mm_set_epi64x(0x0101_0101_0101_0101, 0);
                let own = _mm_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
                let bits = _mm_and_si128(_mm_shuffle_epi8(_mm_set1_epi16(bits as i16), spread), own);
                _mm_and_si128(_mm_cmpeq_epi8(bits, own), _mm_set1_epi8(byte as i8))
            }
            fn lookup(table: &[i8; LANES], bytes: __m128i) -> __m128i {
                _mm_shuffle_epi8(transmute(*table), bytes)
            }
        }
    };
}

impl Simd for Avx512 {
    byte_operations!();

    type Floats = __m512;
    type Doubles = __m512d;

    const DOUBLES_HELD: usize = 32;

    operations! {
        fn splat(value: f32) -> __m512 { _mm512_set1_ps(value) }
        fn load(values: &[f32; LANES]) -> __m512 { transmute(*values) }
        fn store(values: __m512, to: &mut [f32; LANES]) { *to = transmute(values) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn fused(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn power_of_two(n: __m512) -> __m512 {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
        fn sums_to_floats(sums: __m512i) -> __m512 { _mm512_cvtepi32_ps(sums) }
        fn load_f16(bits: &[u16; LANES]) -> __m512 {
            _mm512_cvtph_ps(transmute(*bits))
        }
        fn load_bf16(bits: &[u16; LANES]) -> __m512 {
            let wide = _mm512_cvtepu16_epi32(transmute(*bits));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
        fn to_floats(bytes: __m128i) -> __m512 { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)) }
        fn splat_doubles(value: f64) -> __m512d { _mm512_set1_pd(value) }
        fn load_doubles(values: &[f64; DOUBLES]) -> __m512d { transmute(*values) }
        fn store_doubles(values: __m512d, to: &mut [f64; DOUBLES]) { *to = transmute(values) }
        fn widen(values: &[f32; DOUBLES]) -> __m512d { _mm512_cvtps_pd(transmute(*values)) }
        fn mul_add_doubles(a: __m512d, b: __m512d, c: __m512d) -> __m512d {
            _mm512_fmadd_pd(a, b, c)
        }
    }
}

impl Simd for Avx2 {
    byte_operations!();

    type Floats = [__m256; 2];
    type Doubles = [__m256d; 2];

    const DOUBLES_HELD: usize = 8;

    operations! {
        fn splat(value: f32) -> [__m256; 2] { [_mm256_set1_ps(value); 2] }
        fn load(values: &[f32; LANES]) -> [__m256; 2] { transmute(*values) }
        fn store(values: [__m256; 2], to: &mut [f32; LANES]) { *to = transmute(values) }
        fn add(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])]
        }
        fn sub(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])]
        }
        fn mul(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])]
        }
        fn mul_add(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
            [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])]
        }
        fn fused(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
            [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])]
        }
        fn div(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])]
        }
        fn max(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])]
        }
        fn min(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])]
        }
        fn power_of_two(n: [__m256; 2]) -> [__m256; 2] {
            let bias = _mm256_set1_epi32(127);
            let biased = [
                _mm256_add_epi32(_mm256_cvtps_epi32(n[0]), bias),
                _mm256_add_epi32(_mm256_cvtps_epi32(n[1]), bias),
            ];
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased[0])),
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased[1])),
            ]
        }
        fn sums_to_floats(sums: [__m256i; 2]) -> [__m256; 2] {
            [_mm256_cvtepi32_ps(sums[0]), _mm256_cvtepi32_ps(sums[1])]
        }
        fn load_f16(bits: &[u16; LANES]) -> [__m256; 2] {
            let [low, high]: [__m128i; 2] = transmute(*bits);
            [_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)]
        }
        fn load_bf16(bits: &[u16; LANES]) -> [__m256; 2] {
            let [low, high]: [__m128i; 2] = transmute(*bits);
            let wide = [_mm256_cvtepu16_epi32(low), _mm256_cvtepu16_epi32(high)];
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide[0])),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide[1])),
            ]
        }
        fn to_floats(bytes: __m128i) -> [__m256; 2] {
            [
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes))),
            ]
        }
        fn splat_doubles(value: f64) -> [__m256d; 2] { [_mm256_set1_pd(value); 2] }
        fn load_doubles(values: &[f64; DOUBLES]) -> [__m256d; 2] { transmute(*values) }
        fn store_doubles(values: [__m256d; 2], to: &mut [f64; DOUBLES]) { *to = transmute(values) }
        fn widen(values: &[f32; DOUBLES]) -> [__m256d; 2] {
            let [low, high]: [__m128; 2] = transmute(*values);
            [_mm256_cvtps_pd(low), _mm256_cvtps_pd(high)]
        }
        fn mul_add_doubles(a: [__m256d; 2], b: [__m256d; 2], c: [__m256d; 2]) -> [__m256d; 2] {
            [_mm256_fmadd_pd(a[0], b[0], c[0]), _mm256_fmadd_pd(a[1], b[1], c[1])]
        }
    }
}
