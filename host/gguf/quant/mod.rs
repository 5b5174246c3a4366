//! Unpacking of the tensor types, and dot products that unpack on the way.
//!
//! A type is one implementation of `block::Block` or `scalar::Scalar` and one row in
//! `codec`. Unpacking rounds exactly as ggml's reference does (one multiplication, then one
//! addition or subtraction, never fused), so unpacked values agree to the bit.

mod block;
pub mod chunk;
mod half;
mod iq4;
mod k_quants;
mod legacy;
mod mxfp4;
mod scalar;
pub mod simd;

use kernels_gpu::quant::*;
use kernels_gpu::weight_types;
use thiserror::Error;

pub use half::{bf16_to_f32, f16_to_f32};

use super::GgmlType;

// Files are little-endian and their numbers are read in place.
const _: () = assert!(cfg!(target_endian = "little"));

/// The bytes given are not as many as the elements asked for take up.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{elements} elements of {ty} do not make {bytes} bytes")]
pub struct LengthMismatch {
    /// The type.
    pub ty: GgmlType,
    /// Elements asked for.
    pub elements: usize,
    /// Bytes given.
    pub bytes: usize,
}

/// Unpacks whole blocks into `out`.
pub fn dequantize(ty: GgmlType, blocks: &[u8], out: &mut [f32]) -> Result<(), LengthMismatch> {
    check(ty, blocks, out)?;
    (codec(ty).dequantize)(blocks, out);
    Ok(())
}

/// The dot product of a row of `ty` with `x`, in float32.
///
/// The sum runs in 32 or more interleaved partial sums, which are then added pairwise.
///
/// # Panics
/// Where `row` does not hold exactly `x.len()` elements.
pub fn dot(ty: GgmlType, row: &[u8], x: &[f32]) -> f32 {
    if let Err(mismatch) = check(ty, row, x) {
        panic!("{mismatch}");
    }
    (codec(ty).dot)(row, x)
}

fn check(ty: GgmlType, bytes: &[u8], elements: &[f32]) -> Result<(), LengthMismatch> {
    if ty.bytes_of(elements.len()) == Some(bytes.len()) {
        Ok(())
    } else {
        Err(LengthMismatch {
            ty,
            elements: elements.len(),
            bytes: bytes.len(),
        })
    }
}

/// What can be done with the bytes of one type. Lengths have been checked by the caller.
struct Codec {
    dequantize: fn(&[u8], &mut [f32]),
    dot: fn(&[u8], &[f32]) -> f32,
}

const fn blocks<B: block::Block>() -> Codec {
    Codec {
        dequantize: block::dequantize::<B>,
        dot: block::dot::<B>,
    }
}

const fn scalars<T: scalar::Scalar>() -> Codec {
    Codec {
        dequantize: scalar::dequantize::<T>,
        dot: scalar::dot::<T>,
    }
}

/// From the table of weight types, and the types of other tensors.
macro_rules! define_codec {
    (
        {}
        plain { $($plain:ident = $plain_id:literal, $plain_ggml:literal, $plain_name:ident, $one:literal, $scalar:ty, $_p:ident;)* }
        quantized { $($quantized:ident = $id:literal, $ggml:literal, $name:ident, $elements:ident, $block:ident, $_q:ident;)* }
    ) => {
        const fn codec(ty: GgmlType) -> Codec {
            match ty {
                $(GgmlType::$plain => scalars::<scalar::$plain>(),)*
                $(GgmlType::$quantized => blocks::<$block>(),)*
                GgmlType::F64 => scalars::<f64>(),
                GgmlType::I8 => scalars::<i8>(),
                GgmlType::I16 => scalars::<i16>(),
                GgmlType::I32 => scalars::<i32>(),
                GgmlType::I64 => scalars::<i64>(),
            }
        }
    };
}

weight_types!(define_codec);
