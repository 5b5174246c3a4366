//! Unpacking of the tensor types, to floats and to the integers of products with 8-bit activations.
//!
//! A type is one implementation of `block::Block` and `chunk::Chunk`, or of `scalar::Scalar`, and one row in
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
    codec(ty)(blocks, out);
    Ok(())
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

/// Unpacks the bytes of one type. Lengths have been checked by the caller.
type Dequantize = fn(&[u8], &mut [f32]);

/// From the table of weight types, and the types of other tensors.
macro_rules! define_codec {
    (
        {}
        plain { $($plain:ident = $plain_id:literal, $plain_ggml:literal, $plain_name:ident, $one:literal, $scalar:ty, $_p:ident;)* }
        quantized { $($quantized:ident = $id:literal, $ggml:literal, $name:ident, $elements:ident, $block:ident, $_q:ident;)* }
    ) => {
        const fn codec(ty: GgmlType) -> Dequantize {
            match ty {
                $(GgmlType::$plain => scalar::dequantize::<scalar::$plain>,)*
                $(GgmlType::$quantized => block::dequantize::<$block>,)*
                GgmlType::F64 => scalar::dequantize::<f64>,
                GgmlType::I8 => scalar::dequantize::<i8>,
                GgmlType::I16 => scalar::dequantize::<i16>,
                GgmlType::I32 => scalar::dequantize::<i32>,
                GgmlType::I64 => scalar::dequantize::<i64>,
            }
        }
    };
}

weight_types!(define_codec);
