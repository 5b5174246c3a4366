//! The instances of [`matvec`].

use super::activations::{Activations, Half, Q8};
use super::matvec::matvec;
use super::weights::*;
use crate::abi::{ActivationType, KernelDef, MatvecParams, WeightType, matvec_max_warps};

/// A row: weights, activations, and an entry point for each number of vectors.
macro_rules! matvec_entry_points {
    ($($weights:ty, $activations:ty: $($vectors:literal $name:ident),*;)*) => {
        $($(
            /// The product of weights and activations of the types, and with up to as many vectors, as
            /// the name says.
            ///
            /// # Safety
            /// The launch conditions in the header of [`matvec`](super::matvec).
            #[cuda_std::kernel(
                max_threads = 32 * matvec_max_warps(<$weights as Weights>::TYPE),
                min_blocks = if $vectors == 1 { 2 } else { 1 }
            )]
            pub unsafe fn $name(p: MatvecParams) {
                // SAFETY: the caller's.
                unsafe { matvec::<$weights, $activations, $vectors>(p) }
            }
        )*)*

        /// The kernel for a type of weights, a format of activations, and up to `vectors` vectors, a
        /// number of [`matvec_vectors`](crate::abi::matvec_vectors). `None` for plain weights and
        /// 8-bit activations, and for any other number.
        pub const fn kernel(
            weights: WeightType,
            activations: ActivationType,
            vectors: u32,
        ) -> Option<KernelDef<MatvecParams>> {
            let name = match (weights, activations) {
                $((
                    <$weights as Weights>::TYPE,
                    <$activations as Activations<$weights>>::TYPE,
                ) => match vectors {
                    $($vectors => stringify!($name),)*
                    _ => return None,
                },)*
                _ => return None,
            };
            Some(KernelDef::new(name, 32 * matvec_max_warps(weights)))
        }
    };
}

matvec_entry_points! {
    F32Weights, Half: 1 matvec_f32_f16_n1, 2 matvec_f32_f16_n2,
        4 matvec_f32_f16_n4, 8 matvec_f32_f16_n8;
    F16Weights, Half: 1 matvec_f16_f16_n1, 2 matvec_f16_f16_n2,
        4 matvec_f16_f16_n4, 8 matvec_f16_f16_n8;
    Bf16Weights, Half: 1 matvec_bf16_f16_n1, 2 matvec_bf16_f16_n2,
        4 matvec_bf16_f16_n4, 8 matvec_bf16_f16_n8;
    Q4_0, Q8: 1 matvec_q4_0_q8_n1, 2 matvec_q4_0_q8_n2,
        4 matvec_q4_0_q8_n4, 8 matvec_q4_0_q8_n8;
    Q4_0, Half: 1 matvec_q4_0_f16_n1, 4 matvec_q4_0_f16_n4;
    Q4_1, Q8: 1 matvec_q4_1_q8_n1, 2 matvec_q4_1_q8_n2,
        4 matvec_q4_1_q8_n4, 8 matvec_q4_1_q8_n8;
    Q4_1, Half: 1 matvec_q4_1_f16_n1, 4 matvec_q4_1_f16_n4;
    Q5_0, Q8: 1 matvec_q5_0_q8_n1, 2 matvec_q5_0_q8_n2,
        4 matvec_q5_0_q8_n4, 8 matvec_q5_0_q8_n8;
    Q5_0, Half: 1 matvec_q5_0_f16_n1, 4 matvec_q5_0_f16_n4;
    Q5_1, Q8: 1 matvec_q5_1_q8_n1, 2 matvec_q5_1_q8_n2,
        4 matvec_q5_1_q8_n4, 8 matvec_q5_1_q8_n8;
    Q5_1, Half: 1 matvec_q5_1_f16_n1, 4 matvec_q5_1_f16_n4;
    Q8_0, Q8: 1 matvec_q8_0_q8_n1, 2 matvec_q8_0_q8_n2,
        4 matvec_q8_0_q8_n4, 8 matvec_q8_0_q8_n8;
    Q8_0, Half: 1 matvec_q8_0_f16_n1, 4 matvec_q8_0_f16_n4;
    Q2K, Q8: 1 matvec_q2_k_q8_n1, 2 matvec_q2_k_q8_n2,
        4 matvec_q2_k_q8_n4, 8 matvec_q2_k_q8_n8;
    Q2K, Half: 1 matvec_q2_k_f16_n1, 4 matvec_q2_k_f16_n4;
    Q3K, Q8: 1 matvec_q3_k_q8_n1, 2 matvec_q3_k_q8_n2,
        4 matvec_q3_k_q8_n4, 8 matvec_q3_k_q8_n8;
    Q3K, Half: 1 matvec_q3_k_f16_n1, 4 matvec_q3_k_f16_n4;
    Q4K, Q8: 1 matvec_q4_k_q8_n1, 2 matvec_q4_k_q8_n2,
        4 matvec_q4_k_q8_n4, 8 matvec_q4_k_q8_n8;
    Q4K, Half: 1 matvec_q4_k_f16_n1, 4 matvec_q4_k_f16_n4;
    Q5K, Q8: 1 matvec_q5_k_q8_n1, 2 matvec_q5_k_q8_n2,
        4 matvec_q5_k_q8_n4, 8 matvec_q5_k_q8_n8;
    Q5K, Half: 1 matvec_q5_k_f16_n1, 4 matvec_q5_k_f16_n4;
    Q6K, Q8: 1 matvec_q6_k_q8_n1, 2 matvec_q6_k_q8_n2,
        4 matvec_q6_k_q8_n4, 8 matvec_q6_k_q8_n8;
    Q6K, Half: 1 matvec_q6_k_f16_n1, 4 matvec_q6_k_f16_n4;
    Iq4Nl, Q8: 1 matvec_iq4_nl_q8_n1, 2 matvec_iq4_nl_q8_n2,
        4 matvec_iq4_nl_q8_n4, 8 matvec_iq4_nl_q8_n8;
    Iq4Nl, Half: 1 matvec_iq4_nl_f16_n1, 4 matvec_iq4_nl_f16_n4;
    Iq4Xs, Q8: 1 matvec_iq4_xs_q8_n1, 2 matvec_iq4_xs_q8_n2,
        4 matvec_iq4_xs_q8_n4, 8 matvec_iq4_xs_q8_n8;
    Iq4Xs, Half: 1 matvec_iq4_xs_f16_n1, 4 matvec_iq4_xs_f16_n4;
    Mxfp4, Q8: 1 matvec_mxfp4_q8_n1, 2 matvec_mxfp4_q8_n2,
        4 matvec_mxfp4_q8_n4, 8 matvec_mxfp4_q8_n8;
    Mxfp4, Half: 1 matvec_mxfp4_f16_n1, 4 matvec_mxfp4_f16_n4;
}
