//! The instances of [`matmul`].

use super::matmul::matmul;
use super::weights::*;
use crate::abi::{KernelDef, MATMUL_MAX_WARPS, MatmulParams, WeightType};

/// A row: weights, and an entry point for each number of tiles.
macro_rules! matmul_entry_points {
    ($($weights:ty: $($tiles:literal $name:ident),*;)*) => {
        $($(
            /// The product of weights of the type with blocks of as many tiles of vectors as the name says.
            ///
            /// # Safety
            /// The launch conditions in the header of [`matmul`](super::matmul).
            #[cuda_std::kernel(
                max_threads = 32 * MATMUL_MAX_WARPS,
                min_blocks = if $tiles == 2 { 2 } else { 1 }
            )]
            pub unsafe fn $name(p: MatmulParams) {
                // SAFETY: the caller's.
                unsafe { matmul::<$weights, $tiles>(p) }
            }
        )*)*

        /// The kernel for a type of weights and a number of tiles, one of
        /// [`MATMUL_TILES`](crate::abi::MATMUL_TILES). `None` for plain weights and any other number.
        pub const fn kernel(weights: WeightType, tiles: u32) -> Option<KernelDef<MatmulParams>> {
            let name = match weights {
                $(<$weights as Weights>::TYPE => match tiles {
                    $($tiles => stringify!($name),)*
                    _ => return None,
                },)*
                _ => return None,
            };
            Some(KernelDef::new(name, 32 * MATMUL_MAX_WARPS))
        }
    };
}

matmul_entry_points! {
    Q4_0: 2 matmul_q4_0_t2, 4 matmul_q4_0_t4, 8 matmul_q4_0_t8;
    Q4_1: 2 matmul_q4_1_t2, 4 matmul_q4_1_t4, 8 matmul_q4_1_t8;
    Q5_0: 2 matmul_q5_0_t2, 4 matmul_q5_0_t4, 8 matmul_q5_0_t8;
    Q5_1: 2 matmul_q5_1_t2, 4 matmul_q5_1_t4, 8 matmul_q5_1_t8;
    Q8_0: 2 matmul_q8_0_t2, 4 matmul_q8_0_t4, 8 matmul_q8_0_t8;
    Q2K: 2 matmul_q2_k_t2, 4 matmul_q2_k_t4, 8 matmul_q2_k_t8;
    Q3K: 2 matmul_q3_k_t2, 4 matmul_q3_k_t4, 8 matmul_q3_k_t8;
    Q4K: 2 matmul_q4_k_t2, 4 matmul_q4_k_t4, 8 matmul_q4_k_t8;
    Q5K: 2 matmul_q5_k_t2, 4 matmul_q5_k_t4, 8 matmul_q5_k_t8;
    Q6K: 2 matmul_q6_k_t2, 4 matmul_q6_k_t4, 8 matmul_q6_k_t8;
    Iq4Nl: 2 matmul_iq4_nl_t2, 4 matmul_iq4_nl_t4, 8 matmul_iq4_nl_t8;
    Iq4Xs: 2 matmul_iq4_xs_t2, 4 matmul_iq4_xs_t4, 8 matmul_iq4_xs_t8;
    Mxfp4: 2 matmul_mxfp4_t2, 4 matmul_mxfp4_t4, 8 matmul_mxfp4_t8;
}
