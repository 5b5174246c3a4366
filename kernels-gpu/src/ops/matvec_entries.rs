//! The instances of [`matvec`].

use super::activations::{Half, Q8};
use super::matvec::matvec;
use super::weights::*;
use crate::abi::{KernelDef, MatvecParams, VectorFormat, WeightType, matvec_max_warps};
use crate::weight_types;

/// From the table of weight types: for each number of vectors an entry point with f16 activations for every type, and
/// one with 8-bit activations for the quantized ones.
macro_rules! matvec_entry_points {
    (
        {}
        plain { $($plain:ident = $plain_id:literal, $plain_ggml:literal, $plain_name:ident, $one:literal, $scalar:ty, $plain_weights:ident;)* }
        quantized { $($quantized:ident = $id:literal, $ggml:literal, $name:ident, $elements:ident, $block:ident, $weights:ident;)* }
    ) => {
        instances! {
            $($plain, $plain_weights, $plain_name, F16, Half, f16: 1, 2, 4;)*
            $($quantized, $weights, $name, Q8, Q8, q8: 1, 2, 4;)*
            $($quantized, $weights, $name, F16, Half, f16: 1, 4;)*
        }
    };
}

/// A row: the type's variant, implementation and name, the activations' variant, format and name, and the numbers of vectors.
macro_rules! instances {
    ($(
        $variant:ident, $weights:ident, $name:ident, $format:ident, $activations:ident, $format_name:ident: $($vectors:literal),*;
    )*) => {
        pastey::paste! {
            $($(
                /// The product of weights and activations of the types, and with up to as many vectors, as
                /// the name says.
                ///
                /// # Safety
                /// The launch conditions in the header of [`matvec`](super::matvec).
                #[cuda_std::kernel(
                    max_threads = 32 * matvec_max_warps(WeightType::$variant),
                    min_blocks = if $vectors == 1 { 2 } else { 1 }
                )]
                pub unsafe fn [<matvec_ $name _ $format_name _n $vectors>](p: MatvecParams) {
                    // SAFETY: the caller's.
                    unsafe { matvec::<$weights, $activations, $vectors>(p) }
                }
            )*)*

            /// The kernel for a type of weights, a format of activations, and up to `vectors` vectors, a
            /// number of [`matvec_vectors`](crate::abi::matvec_vectors). `None` for plain weights and
            /// 8-bit activations, and for any other number.
            pub const fn kernel(
                weights: WeightType,
                activations: VectorFormat,
                vectors: u32,
            ) -> Option<KernelDef<MatvecParams>> {
                let name = match (weights, activations) {
                    $((WeightType::$variant, VectorFormat::$format) => match vectors {
                        $($vectors => stringify!([<matvec_ $name _ $format_name _n $vectors>]),)*
                        _ => return None,
                    },)*
                    _ => return None,
                };
                Some(KernelDef::new(name, 32 * matvec_max_warps(weights)))
            }
        }
    };
}

weight_types!(matvec_entry_points);
