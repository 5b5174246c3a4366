//! Types without blocks: floats and integers, one after the other.

use bytemuck::{Pod, Zeroable};

use super::block::cast;
use super::half::{bf16_to_f32, f16_to_f32};
use super::simd::{self, Kernel, LANES};

/// A plain element type; integers and doubles are rounded to the nearest float.
pub(super) trait Scalar: Pod {
    /// Its value. `#[inline(always)]`, as [`Kernel`] demands.
    fn to_f32(self) -> f32;
}

/// An IEEE half-precision number.
#[repr(transparent)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct F16(u16);

/// The upper half of a single-precision number.
#[repr(transparent)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Bf16(u16);

macro_rules! scalar {
    ($($type:ty: |$value:ident| $convert:expr;)*) => {
        $(impl Scalar for $type {
            #[inline(always)]
            fn to_f32(self) -> f32 {
                let $value = self;
                $convert
            }
        })*
    };
}

scalar! {
    f32: |v| v;
    F16: |v| f16_to_f32(v.0);
    Bf16: |v| bf16_to_f32(v.0);
    f64: |v| v as f32;
    i8: |v| f32::from(v);
    i16: |v| f32::from(v);
    i32: |v| v as f32;
    i64: |v| v as f32;
}

pub(super) fn dequantize<S: Scalar>(bytes: &[u8], out: &mut [f32]) {
    simd::dispatch(Dequantize {
        values: &cast::<S>(bytes),
        out,
    });
}

pub(super) fn dot<S: Scalar>(bytes: &[u8], x: &[f32]) -> f32 {
    simd::dispatch(Dot {
        values: &cast::<S>(bytes),
        x,
    })
}

struct Dequantize<'a, S> {
    values: &'a [S],
    out: &'a mut [f32],
}

impl<S: Scalar> Kernel for Dequantize<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        for (out, value) in self.out.iter_mut().zip(self.values) {
            *out = value.to_f32();
        }
    }
}

struct Dot<'a, S> {
    values: &'a [S],
    x: &'a [f32],
}

impl<S: Scalar> Kernel for Dot<'_, S> {
    type Output = f32;

    #[inline(always)]
    fn run<const FUSED: bool>(self) -> f32 {
        let (values, values_rest) = self.values.as_chunks::<LANES>();
        let (x, x_rest) = self.x.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for (values, x) in values.iter().zip(x) {
            simd::accumulate::<FUSED>(&mut sums, &values.map(Scalar::to_f32), x);
        }
        for ((sum, value), x) in sums.iter_mut().zip(values_rest).zip(x_rest) {
            *sum = simd::mul_add::<FUSED>(value.to_f32(), *x, *sum);
        }
        simd::total(sums)
    }
}
