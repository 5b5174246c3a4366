//! Types without blocks: floats and integers, one after the other.

use bytemuck::{Pod, Zeroable};

use super::block::cast;
use super::half::{bf16_to_f32, f16_to_f32};
use super::simd::{self, Kernel, LANES, Simd};

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

/// A single-precision number, by the name that the table of weight types has for it.
pub(super) type F32 = f32;

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
pub(super) struct BF16(u16);

impl Scalar for BF16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        bf16_to_f32(self.0)
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, elements: &[BF16; LANES]) -> S::Floats {
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
