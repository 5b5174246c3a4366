//! Vectors of 16 lanes, on the widest instruction set that the CPU has.
//!
//! A [`Kernel`] is written once against the operations of [`Simd`]; [`dispatch`] compiles it for
//! AVX-512, for AVX2, for NEON or for plain arrays, and chooses at run time. Loops that the compiler would
//! have to vectorize by itself ended up with two lanes out of sixteen.

pub mod integers;
#[cfg(target_arch = "aarch64")]
#[allow(clippy::missing_transmute_annotations)] // signatures have both types
mod neon;
mod portable;
mod portable_integers;
#[cfg(target_arch = "x86_64")]
#[allow(clippy::missing_transmute_annotations)] // signatures have both types
mod x86;
#[cfg(target_arch = "x86_64")]
#[allow(clippy::missing_transmute_annotations)]
mod x86_integers;

use integers::Integers;

/// Lanes of a vector.
pub const LANES: usize = 16;

/// Lanes of a vector of doubles.
pub const DOUBLES: usize = LANES / 2;

/// An instruction set. A value of such a type proves that the CPU has it.
///
/// Arithmetic is IEEE: [`Simd::mul`], [`Simd::add`] and [`Simd::sub`] round once each;
/// [`Simd::mul_add`] rounds once where that is an instruction, and twice elsewhere.
#[allow(missing_docs)] // arithmetic needs no explanation
pub trait Simd: Integers {
    /// 16 floats.
    type Floats: Copy;
    /// 16 bytes.
    type Bytes: Copy;
    /// 8 doubles.
    type Doubles: Copy;

    /// Vectors of doubles that the registers hold.
    const DOUBLES_HELD: usize;

    fn splat(self, value: f32) -> Self::Floats;
    fn load(self, values: &[f32; LANES]) -> Self::Floats;
    fn store(self, values: Self::Floats, to: &mut [f32; LANES]);
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`.
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `a * b + c`, rounded once.
    fn fused(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    fn div(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The larger one; `b` where either is NaN.
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The smaller one; `b` where either is NaN.
    fn min(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `2^n` for whole numbers from -126 to 127.
    fn power_of_two(self, n: Self::Floats) -> Self::Floats;
    /// Integers below 2^24 exactly, others rounded to the nearest.
    fn sums_to_floats(self, sums: Self::Sums) -> Self::Floats;
    /// Half-precision numbers, given by their bits.
    fn load_f16(self, bits: &[u16; LANES]) -> Self::Floats;
    /// Bfloat16 numbers, given by their bits.
    fn load_bf16(self, bits: &[u16; LANES]) -> Self::Floats;

    fn load_bytes(self, bytes: &[u8; LANES]) -> Self::Bytes;
    fn splat_byte(self, byte: u8) -> Self::Bytes;
    /// `(bytes >> shift) & mask`; `mask` has no bits above `8 - shift`.
    fn field(self, bytes: Self::Bytes, shift: usize, mask: u8) -> Self::Bytes;
    /// `bytes << shift`; no byte overflows.
    fn shift_up(self, bytes: Self::Bytes, shift: usize) -> Self::Bytes;
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    fn sub_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// In each lane `byte` where the lane's bit of `bits` is set, else 0.
    fn select_bits(self, bits: u16, byte: u8) -> Self::Bytes;
    /// In each lane the entry of `table` that the lane's byte, below 16, names.
    fn lookup(self, table: &[i8; LANES], bytes: Self::Bytes) -> Self::Bytes;
    /// Signed bytes as floats.
    fn to_floats(self, bytes: Self::Bytes) -> Self::Floats;

    fn splat_doubles(self, value: f64) -> Self::Doubles;
    fn load_doubles(self, values: &[f64; DOUBLES]) -> Self::Doubles;
    fn store_doubles(self, values: Self::Doubles, to: &mut [f64; DOUBLES]);
    /// Floats as doubles.
    fn widen(self, values: &[f32; DOUBLES]) -> Self::Doubles;
    /// `a * b + c`.
    fn mul_add_doubles(self, a: Self::Doubles, b: Self::Doubles, c: Self::Doubles)
    -> Self::Doubles;

    /// The sum of the lanes, pairwise.
    #[inline(always)]
    fn sum(self, values: Self::Floats) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(values, &mut lanes);
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
            half /= 2;
        }
        lanes[0]
    }

    /// The sum of the lanes, pairwise.
    #[inline(always)]
    fn sum_doubles(self, values: Self::Doubles) -> f64 {
        let mut lanes = [0.0; DOUBLES];
        self.store_doubles(values, &mut lanes);
        let [a, b, c, d, e, f, g, h] = lanes;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}

/// A computation to be compiled for each instruction set.
///
/// `run` and everything it calls must be `#[inline(always)]`: what is not inlined is compiled for
/// the baseline.
pub trait Kernel {
    /// What it computes.
    type Output;

    /// Computes it.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Both halves of a group of 32 elements: the expression with `h` as 0, then as 1.
///
/// A closure would do, but closures cannot be marked `#[inline(always)]`.
macro_rules! halves {
    (|$h:ident| $value:expr) => {
        [
            {
                let $h = 0;
                $value
            },
            {
                let $h = 1;
                $value
            },
        ]
    };
}
pub(super) use halves;

/// A method whose body is intrinsics of the instruction set that `self` proves.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! operations {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)? $body:block)*) => {
        $(#[inline(always)]
        fn $name(self, $($arg: $ty),*) $(-> $out)? {
            // SAFETY: `detect` made `self`, so the CPU has the instructions; arrays of numbers and vectors of
            // the same size are each other's bytes. (The intrinsics that load and store check pointers where
            // debug assertions are on, which costs more than what is loaded.)
            unsafe { $body }
        })*
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use operations;

/// Runs `kernel` on the widest vectors that this CPU has.
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(simd) = x86::Avx512::detect() {
            return simd.run(kernel);
        }
        if let Some(simd) = x86::Avx2::detect() {
            return simd.run(kernel);
        }
    }
    #[cfg(target_arch = "aarch64")]
    return match neon::NeonDot::detect() {
        Some(simd) => simd.run(kernel),
        None => neon::Neon::detect().run(kernel),
    };
    #[cfg(not(target_arch = "aarch64"))]
    kernel.run(portable::Portable)
}

/// What a kernel gives in plain arrays, which define it, and with each instruction set that this CPU has.
#[cfg(test)]
pub(crate) fn on_each<K: Kernel>(kernel: impl Fn() -> K) -> Vec<(&'static str, K::Output)> {
    let arrays = ("arrays", kernel().run(portable::Portable));
    #[cfg(target_arch = "x86_64")]
    let others = [
        x86::Avx2::detect().map(|simd| ("AVX2", simd.run(kernel()))),
        x86::Avx512::detect().map(|simd| ("AVX-512", simd.run(kernel()))),
    ];
    #[cfg(target_arch = "aarch64")]
    let others = [
        Some(("NEON", neon::Neon::detect().run(kernel()))),
        neon::NeonDot::detect().map(|simd| ("dot products", simd.run(kernel()))),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let others = [None];
    std::iter::once(arrays)
        .chain(others.into_iter().flatten())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation on fixed inputs, as bytes.
    struct Everything;

    impl Kernel for Everything {
        type Output = Vec<u32>;

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Vec<u32> {
            let a: [f32; LANES] = std::array::from_fn(|i| i as f32 * 1.37 - 9.5);
            let bits: [u16; LANES] = std::array::from_fn(|i| {
                [0, 1, 0x3ff, 0x400, 0x7bff, 0x7c00][i % 6] | (i as u16) << 15
            });
            let bytes: [u8; LANES] = std::array::from_fn(|i| (i * 37 + 11) as u8);
            let pairs = std::array::from_fn(|i| (i as i16).wrapping_mul(2_111));
            let (a, b) = (simd.load(&a), simd.splat(0.73));
            let bytes = simd.load_bytes(&bytes);
            let low = simd.field(bytes, 0, 0xf);
            let floats = [
                simd.add(a, b),
                simd.sub(a, b),
                simd.mul(a, b),
                simd.mul_add(simd.splat(3.0), simd.splat(0.5), a),
                simd.fused(a, b, a),
                simd.div(a, b),
                simd.max(a, b),
                simd.min(a, b),
                simd.max(b, simd.splat(f32::NEG_INFINITY)),
                simd.power_of_two(simd.load(&std::array::from_fn(|i| i as f32 * 16.0 - 126.0))),
                simd.sums_to_floats(simd.add_pairs(simd.no_sums(), &pairs, 0x0005_fffd)),
                simd.load_f16(&bits),
                simd.load_bf16(&bits),
                simd.to_floats(bytes),
                simd.to_floats(simd.field(bytes, 4, 0xf)),
                simd.to_floats(simd.field(bytes, 6, 3)),
                simd.to_floats(simd.shift_up(low, 4)),
                simd.to_floats(simd.or(low, simd.splat_byte(0x20))),
                simd.to_floats(simd.sub_bytes(low, simd.splat_byte(8))),
                simd.to_floats(simd.select_bits(0b1010_0101_1100_0011, 16)),
                simd.to_floats(
                    simd.lookup(&std::array::from_fn(|i| (i as i16 * 17 - 127) as i8), low),
                ),
            ];
            let mut out = Vec::new();
            for floats in floats {
                let mut lanes = [0.0; LANES];
                simd.store(floats, &mut lanes);
                out.extend(lanes.map(f32::to_bits));
            }
            out.push(simd.sum(a).to_bits());
            let wide = simd.widen(&std::array::from_fn(|i| i as f32 * 1.37 - 4.2));
            let half = simd.load_doubles(&std::array::from_fn(|i| 0.5 - i as f64));
            // Halves and quarters: exact, whether fused or not.
            let sum = simd.mul_add_doubles(half, simd.splat_doubles(0.25), half);
            for doubles in [wide, half, sum] {
                let mut lanes = [0.0; DOUBLES];
                simd.store_doubles(doubles, &mut lanes);
                let halves = |lane: f64| [lane.to_bits() as u32, (lane.to_bits() >> 32) as u32];
                out.extend(lanes.into_iter().flat_map(halves));
            }
            out.push(simd.sum_doubles(wide).to_bits() as u32);
            out
        }
    }

    #[test]
    fn instruction_sets_agree() {
        let all = on_each(|| Everything);
        let known = match cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            true => 3,
            false => 1,
        };
        for missing in all.len()..known {
            test_skips::report(&format!(
                "instruction set {missing} is not in this processor"
            ));
        }
        for (name, found) in &all {
            assert_eq!(*found, all[0].1, "{name}");
        }
        assert_eq!(dispatch(Everything), all[0].1);
    }
}
