//! Types without blocks: floats and integers, one after the other.

use bytemuck::{Pod, Zeroable};

use super::block::{GROUP, cast};
use super::half::{bf16_to_f32, f16_to_f32};
use super::simd::{self, Kernel, LANES, Simd, halves};

/// A plain element type; integers and doubles are rounded to the nearest float.
pub(super) trait Scalar: Pod {
    /// Its value.
    fn to_f32(self) -> f32;

    /// The values of 16 elements. `#[inline(always)]`, as [`Kernel`] demands.
    #[inline(always)]
    fn load<S: Simd>(simd: S, elements: &[Self; LANES]) -> S::Floats {
        simd.load(&elements.map(Scalar::to_f32))
    }
}

impl Scalar for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

/// An IEEE half-precision number.
#[repr(transparent)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct F16(u16);

impl Scalar for F16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16_to_f32(self.0)
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, elements: &[F16; LANES]) -> S::Floats {
        simd.load_f16(bytemuck::cast_ref(elements))
    }
}

/// The upper half of a single-precision number.
#[repr(transparent)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Bf16(u16);

impl Scalar for Bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        bf16_to_f32(self.0)
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, elements: &[Bf16; LANES]) -> S::Floats {
        simd.load_bf16(bytemuck::cast_ref(elements))
    }
}

macro_rules! numbers {
    ($($type:ty)*) => {
        $(impl Scalar for $type {
            #[inline(always)]
            fn to_f32(self) -> f32 {
                self as f32
            }
        })*
    };
}

numbers!(f64 i8 i16 i32 i64);

pub(super) fn dequantize<T: Scalar>(bytes: &[u8], out: &mut [f32]) {
    simd::dispatch(Dequantize {
        values: &cast::<T>(bytes),
        out,
    });
}

pub(super) fn dots<T: Scalar, const N: usize>(bytes: &[u8], x: [&[f32]; N]) -> [f32; N] {
    simd::dispatch(Dots {
        values: &cast::<T>(bytes),
        x,
    })
}

struct Dequantize<'a, T> {
    values: &'a [T],
    out: &'a mut [f32],
}

impl<T: Scalar> Kernel for Dequantize<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (values, values_rest) = self.values.as_chunks::<LANES>();
        let (out, out_rest) = self.out.as_chunks_mut::<LANES>();
        for (values, out) in values.iter().zip(out) {
            simd.store(T::load(simd, values), out);
        }
        for (value, out) in values_rest.iter().zip(out_rest) {
            *out = value.to_f32();
        }
    }
}

/// The products of one row with `N` vectors.
struct Dots<'a, T, const N: usize> {
    values: &'a [T],
    x: [&'a [f32]; N],
}

impl<T: Scalar, const N: usize> Kernel for Dots<'_, T, N> {
    type Output = [f32; N];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [f32; N] {
        let (groups, rest) = self.values.as_chunks::<GROUP>();
        // All of one length, so that one bound check serves all.
        let x = self.x.map(|x| &x.as_chunks::<GROUP>().0[..groups.len()]);
        let mut sums = [[simd.splat(0.0); 2]; N];
        for (g, group) in groups.iter().enumerate() {
            let group = group.as_chunks::<LANES>().0;
            let weights = halves!(|h| T::load(simd, &group[h]));
            for n in 0..N {
                let x = x[n][g].as_chunks::<LANES>().0;
                sums[n] = halves!(|h| simd.mul_add(weights[h], simd.load(&x[h]), sums[n][h]));
            }
        }
        let mut dots = [0.0; N];
        for n in 0..N {
            dots[n] = simd.sum(simd.add(sums[n][0], sums[n][1]));
            for (value, x) in rest.iter().zip(&self.x[n][groups.len() * GROUP..]) {
                dots[n] += value.to_f32() * x;
            }
        }
        dots
    }
}
