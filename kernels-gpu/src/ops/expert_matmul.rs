//! Products of the matrices of all experts with the vectors of their pairs on tensor cores, straight from the blocks.
//!
//! - Formula, shapes: see [`ExpertMatmulParams`] and [`matmul`](super::matmul), whose body this is.
//! - Threads: the pairs of each expert are cut into blocks of `8 * TILES` vectors, which are numbered through all experts; a
//!   block finds its own among them by the numbers of pairs.
//! - Launch: [`MatmulPlan`](crate::abi::MatmulPlan)'s, but for the blocks in x, which are
//!   [`expert_matmul_blocks`](crate::abi::expert_matmul_blocks).
//! - Moves: the matrices of an expert once for each `8 * TILES` of its vectors, and otherwise as `matmul` does.

use cuda_std::{thread, warp};

use super::matmul::matmul;
use super::weights::*;
use crate::abi::{
    DevicePtr, ExpertMatmulParams, KernelDef, MATMUL_MAX_WARPS, MATMUL_TILE_VECTORS, MatvecSegment,
    WeightType,
};
use crate::prim::grid;
use crate::weight_types;

/// A block's place among those of all experts.
struct Block {
    expert: u32,
    /// The expert's first pair, and the first behind its last one.
    pairs: [u32; 2],
    /// The block's number among the expert's.
    number: u32,
}

impl Block {
    /// Block `index`; `None` behind the last one. All lanes find the same.
    ///
    /// # Safety
    /// The whole warp comes here; the launch conditions.
    #[inline(always)]
    unsafe fn find(p: &ExpertMatmulParams, index: u32, vectors: u32) -> Option<Self> {
        let lane = thread::thread_idx_x() % 32;
        let mut before = 0;
        let mut first = 0;
        while first < p.experts {
            let expert = first + lane;
            // SAFETY: there is a start for each expert, and the end; the whole warp shuffles and votes.
            unsafe {
                let start = |at: u32| *p.starts.ptr().add(at as usize);
                let count = if expert < p.experts {
                    start(expert + 1) - start(expert)
                } else {
                    0
                };
                let own = count.div_ceil(vectors);
                let mut end = before + own;
                let mut distance = 1;
                while distance < 32 {
                    let (below, inside) =
                        warp::warp_shuffle_up(warp::FULL_MASK, end - before, distance, 32);
                    if inside {
                        end += below;
                    }
                    distance *= 2;
                }
                let has_block = index >= end - own && index < end;
                let found = warp::warp_vote_ballot(warp::FULL_MASK, has_block);
                if found != 0 {
                    let lane_of = found.trailing_zeros();
                    let expert = first + lane_of;
                    let all_before =
                        warp::warp_shuffle_idx(warp::FULL_MASK, end - own, lane_of, 32).0;
                    return Some(Self {
                        expert,
                        pairs: [start(expert), start(expert + 1)],
                        number: index - all_before,
                    });
                }
                before = warp::warp_shuffle_idx(warp::FULL_MASK, end, 31, 32).0;
            }
            first += 32;
        }
        None
    }
}

/// The body, for blocks of `TILES` tiles of eight vectors.
///
/// # Safety
/// The launch conditions in the module's header.
#[inline(always)]
pub unsafe fn expert_matmul<W: Weights, const TILES: usize>(p: ExpertMatmulParams) {
    let vectors = const { MATMUL_TILE_VECTORS * TILES as u32 };
    // The weights to load depend on the launches before.
    grid::wait();
    let index = thread::block_idx_x();
    // SAFETY: whole warps are here.
    let Some(block) = (unsafe { Block::find(&p, index, vectors) }) else {
        return;
    };
    // The body numbers vectors as if the blocks before were full and of the same expert: its vector 0 would be so far
    // before the block's own.
    let skipped = index * vectors;
    let own = block.pairs[0] + block.number * vectors;
    // What is before a buffer is never read.
    let shifted = |address: u64, element: u64| {
        let own = u64::from(own).wrapping_sub(u64::from(skipped));
        address.wrapping_add(own.wrapping_mul(element))
    };
    let of_expert = |segment: MatvecSegment| MatvecSegment {
        weights: DevicePtr::from_address(
            segment.weights.address() + u64::from(block.expert) * p.expert_bytes,
        ),
        y: DevicePtr::from_address(shifted(
            segment.y.address(),
            4 * u64::from(segment.y_stride),
        )),
        bias: DevicePtr::NULL,
        ..segment
    };
    let mut product = p.product;
    product.x = DevicePtr::from_address(shifted(product.x.address(), 2 * u64::from(product.n_in)));
    if !product.scales.is_null() {
        product.scales = DevicePtr::from_address(shifted(product.scales.address(), 4));
    }
    // What there never is: known to the compiler, it takes no registers.
    product.maxima = DevicePtr::NULL;
    product.accumulate = 0;
    // No block is behind those of the second matrix.
    let [gate, up, _] = product.segments;
    product.segments = [of_expert(gate), of_expert(up), of_expert(up)];
    product.vectors = skipped + (block.pairs[1] - own);
    // SAFETY: the caller's.
    unsafe { matmul::<W, TILES>(product) }
}

/// From the table of weight types: an entry point for each quantized type and number of tiles.
macro_rules! expert_matmul_entry_points {
    (
        {}
        plain { $($plain:tt)* }
        quantized { $($quantized:ident = $id:literal, $ggml:literal, $name:ident, $elements:ident, $block:ident, $weights:ident;)* }
    ) => {
        instances! { $($quantized, $weights, $name: 2, 4;)* }
    };
}

/// A row: the type's variant, implementation and name, and the numbers of tiles, which are
/// [`EXPERT_MATMUL_TILES`](crate::abi::EXPERT_MATMUL_TILES).
macro_rules! instances {
    ($($variant:ident, $weights:ident, $name:ident: $($tiles:literal),*;)*) => {
        pastey::paste! {
            $($(
                /// The products of experts' weights of the type with blocks of as many tiles of vectors as the name
                /// says.
                ///
                /// # Safety
                /// The launch conditions in the module's header.
                // That one block suffices is said: otherwise ptxas spills a few registers to have room for two.
                #[cuda_std::kernel(max_threads = 32 * MATMUL_MAX_WARPS, min_blocks = 1)]
                pub unsafe fn [<expert_matmul_ $name _t $tiles>](p: ExpertMatmulParams) {
                    // SAFETY: the caller's.
                    unsafe { expert_matmul::<$weights, $tiles>(p) }
                }
            )*)*

            /// The kernel for a type of weights and a number of tiles, one of
            /// [`EXPERT_MATMUL_TILES`](crate::abi::EXPERT_MATMUL_TILES). `None` for plain weights and any other
            /// number.
            pub const fn kernel(
                weights: WeightType,
                tiles: u32,
            ) -> Option<KernelDef<ExpertMatmulParams>> {
                let name = match weights {
                    $(WeightType::$variant => match tiles {
                        $($tiles => stringify!([<expert_matmul_ $name _t $tiles>]),)*
                        _ => return None,
                    },)*
                    _ => return None,
                };
                Some(KernelDef::new(name, 32 * MATMUL_MAX_WARPS))
            }
        }
    };
}

weight_types!(expert_matmul_entry_points);
