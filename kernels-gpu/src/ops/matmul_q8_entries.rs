//! The instances of [`matmul_q8`].

use super::matmul_q8::matmul_q8;
use super::weights::*;
use crate::abi::{KernelDef, MATMUL_Q8_WARPS, MatmulQ8Params, WeightType};

/// Blocks for which registers are shared out. Before Hopper those for the most tiles do not suffice for two.
#[cfg(target_arch = "nvptx64")]
const fn resident_blocks(ty: WeightType, tiles: u32) -> u32 {
    match cfg!(target_feature = "sm_90") {
        false if tiles == 4 => 1,
        _ => crate::abi::matmul_q8_blocks(ty, tiles),
    }
}

/// A row: the type's variant, implementation and name, and the numbers of tiles, which are
/// [`MATMUL_Q8_TILES`](crate::abi::MATMUL_Q8_TILES).
macro_rules! instances {
    ($($variant:ident, $weights:ident, $name:ident: $($tiles:literal),*;)*) => {
        pastey::paste! {
            $($(
                /// The product of weights of the type with as many tiles of vectors as the name says, in 8 bits.
                ///
                /// # Safety
                /// The launch conditions in the header of [`matmul_q8`](super::matmul_q8).
                #[cuda_std::kernel(
                    max_threads = 32 * MATMUL_Q8_WARPS,
                    min_blocks = resident_blocks(WeightType::$variant, $tiles)
                )]
                pub unsafe fn [<matmul_ $name _q8_t $tiles>](p: MatmulQ8Params) {
                    // SAFETY: the caller's.
                    unsafe { matmul_q8::<$weights, $tiles>(p) }
                }
            )*)*

            /// The kernel for a type of weights and a number of tiles, one of
            /// [`MATMUL_Q8_TILES`](crate::abi::MATMUL_Q8_TILES). `None` for types without
            /// [`Fragments`] and any other number.
            pub const fn kernel(weights: WeightType, tiles: u32) -> Option<KernelDef<MatmulQ8Params>> {
                let name = match weights {
                    $(WeightType::$variant => match tiles {
                        $($tiles => stringify!([<matmul_ $name _q8_t $tiles>]),)*
                        _ => return None,
                    },)*
                    _ => return None,
                };
                Some(KernelDef::new(name, 32 * MATMUL_Q8_WARPS))
            }
        }
    };
}

instances! {
    Q4_0, Q4_0, q4_0: 1, 2, 3, 4;
    Q4_1, Q4_1, q4_1: 1, 2, 3, 4;
    Q5_0, Q5_0, q5_0: 1, 2, 3, 4;
    Q5_1, Q5_1, q5_1: 1, 2, 3, 4;
    Q8_0, Q8_0, q8_0: 1, 2, 3, 4;
    Q4K, Q4K, q4_k: 1, 2, 3, 4;
    Q5K, Q5K, q5_k: 1, 2, 3, 4;
    Q6K, Q6K, q6_k: 1, 2, 3, 4;
}
