//! Products of the matrices of chosen experts with one vector each, straight from the blocks.
//!
//! - Formula, shapes: see [`ExpertMatvecParams`] and [`matvec`](super::matvec), whose body this is. Which expert a pair
//!   has is read on the device, so that a recorded step serves all choices.
//! - Threads: the blocks of a row of the grid have a pair, and share it as those of `matvec` share a launch.
//! - Launch: grid = [blocks of [`MatvecPlan`](crate::abi::MatvecPlan) for one vector, pairs], the plan's block and shared
//!   memory.
//! - Moves: the matrices of a pair's expert once a pair.

use cuda_std::thread;

use super::activations::{Half, Q8, VectorEncoding};
use super::matvec::matvec;
use super::weights::*;
use crate::abi::{
    DevicePtr, ExpertMatvecParams, KernelDef, MatvecOrder, MatvecSegment, VectorFormat, WeightType,
    expert_matvec_max_warps,
};
use crate::prim::grid;
use crate::prim::integer::div;
use crate::prim::load;
use crate::weight_types;

/// The body.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn expert_matvec<W: Weights, A: VectorEncoding<W>>(p: ExpertMatvecParams) {
    if p.ids_are_new != 0 {
        // The weights to load depend on the launch before. Not before this may the next one start, which takes the
        // choice for made.
        grid::wait();
    }
    let pair = thread::block_idx_y();
    // SAFETY: there is an expert for each pair.
    let expert = unsafe { load::global_from_l2(p.ids.ptr().add(pair as usize)) };
    let of_pair = |segment: MatvecSegment| MatvecSegment {
        weights: DevicePtr::from_address(
            segment.weights.address() + u64::from(expert) * p.expert_bytes,
        ),
        y: segment.y.offset(pair as usize * segment.y_stride as usize),
        bias: DevicePtr::NULL,
        ..segment
    };
    let mut product = p.product;
    let vector = div(pair, p.pairs_of_vector) as usize;
    product.x = product.x.offset(vector * product.x_stride as usize);
    let [gate, up, _] = product.segments;
    product.segments = [of_pair(gate), of_pair(up), MatvecSegment::NONE];
    // What there never is: known to the compiler, it takes no registers.
    product.residual = DevicePtr::NULL;
    product.vectors = 1;
    product.order = MatvecOrder::InTurn as u32;
    // SAFETY: the caller's.
    unsafe { matvec::<W, A, 1>(product) }
}

/// From the table of weight types: an entry point with f16 activations for every type, and one with 8-bit activations for
/// the quantized ones.
macro_rules! expert_matvec_entry_points {
    (
        {}
        plain { $($plain:ident = $plain_id:literal, $plain_ggml:literal, $plain_name:ident, $one:literal, $scalar:ty, $plain_weights:ident;)* }
        quantized { $($quantized:ident = $id:literal, $ggml:literal, $name:ident, $elements:ident, $block:ident, $weights:ident;)* }
    ) => {
        instances! {
            $($plain, $plain_weights, $plain_name, F16, Half, f16;)*
            $($quantized, $weights, $name, Q8, Q8, q8;)*
            $($quantized, $weights, $name, F16, Half, f16;)*
        }
    };
}

/// A row: the type's variant, implementation and name, the activations' variant, format and name.
macro_rules! instances {
    ($(
        $variant:ident, $weights:ident, $name:ident, $format:ident, $activations:ident, $format_name:ident;
    )*) => {
        pastey::paste! {
            $(
                /// The products of experts' weights with activations of the types that the name says.
                ///
                /// # Safety
                /// The launch conditions in the module's header.
                #[cuda_std::kernel(
                    max_threads = 32 * expert_matvec_max_warps(WeightType::$variant),
                    min_blocks = 2
                )]
                pub unsafe fn [<expert_matvec_ $name _ $format_name>](p: ExpertMatvecParams) {
                    // SAFETY: the caller's.
                    unsafe { expert_matvec::<$weights, $activations>(p) }
                }
            )*

            /// The kernel for a type of weights and a format of activations; `None` for plain weights and 8-bit
            /// activations.
            pub const fn kernel(
                weights: WeightType,
                activations: VectorFormat,
            ) -> Option<KernelDef<ExpertMatvecParams>> {
                let name = match (weights, activations) {
                    $((WeightType::$variant, VectorFormat::$format) =>
                        stringify!([<expert_matvec_ $name _ $format_name>]),)*
                    _ => return None,
                };
                Some(KernelDef::new(name, 32 * expert_matvec_max_warps(weights)))
            }
        }
    };
}

weight_types!(expert_matvec_entry_points);
