//! The instances of [`matmul`].

use super::matmul::matmul;
use super::weights::*;
use crate::abi::{KernelDef, MATMUL_MAX_WARPS, MatmulParams, WeightType};
use crate::weight_types;

/// From the table of weight types: an entry point for each quantized type and number of tiles.
macro_rules! matmul_entry_points {
    (
        {}
        plain { $($plain:tt)* }
        quantized { $($quantized:ident = $id:literal, $ggml:literal, $name:ident, $elements:ident, $block:ident, $weights:ident;)* }
    ) => {
        instances! { $($quantized, $weights, $name: 2, 4, 8;)* }
    };
}

/// A row: the type's variant, implementation and name, and the numbers of tiles, which are
/// [`MATMUL_TILES`](crate::abi::MATMUL_TILES).
macro_rules! instances {
    ($($variant:ident, $weights:ident, $name:ident: $($tiles:literal),*;)*) => {
        pastey::paste! {
            $($(
                /// The product of weights of the type with blocks of as many tiles of vectors as the name says.
                ///
                /// # Safety
                /// The launch conditions in the header of [`matmul`](super::matmul).
                #[cuda_std::kernel(
                    max_threads = 32 * MATMUL_MAX_WARPS,
                    min_blocks = if $tiles == 2 { 2 } else { 1 }
                )]
                pub unsafe fn [<matmul_ $name _t $tiles>](p: MatmulParams) {
                    // SAFETY: the caller's.
                    unsafe { matmul::<$weights, $tiles>(p) }
                }
            )*)*

            /// The kernel for a type of weights and a number of tiles, one of
            /// [`MATMUL_TILES`](crate::abi::MATMUL_TILES). `None` for plain weights and any other number.
            pub const fn kernel(weights: WeightType, tiles: u32) -> Option<KernelDef<MatmulParams>> {
                let name = match weights {
                    $(WeightType::$variant => match tiles {
                        $($tiles => stringify!([<matmul_ $name _t $tiles>]),)*
                        _ => return None,
                    },)*
                    _ => return None,
                };
                Some(KernelDef::new(name, 32 * MATMUL_MAX_WARPS))
            }
        }
    };
}

weight_types!(matmul_entry_points);
