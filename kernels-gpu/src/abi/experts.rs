//! Parameters and launches of mixtures of experts. A *pair* is a token with one of the experts that it takes: pair
//! `token * used + rank`.

use super::{DevicePtr, MatmulParams, MatvecParams, kernel_params};
use crate::prim::half::F16;

/// Threads of a block of the router's scores: a warp a score.
pub const ROUTER_THREADS: u32 = 256;

/// Rows of blocks of a router's scores at most: of more tokens, each takes several, for which it keeps the weights.
pub const ROUTER_ROWS: u32 = 32;

/// Threads of a block of the choice among experts: a warp a token.
pub const CHOOSE_EXPERTS_THREADS: u32 = 32;

/// Most experts of a block of the model that the kernels take.
pub const MAX_EXPERTS: u32 = 1024;

/// Threads of a block of `group_pairs`, which has an expert.
pub const GROUP_PAIRS_THREADS: u32 = 256;

/// Most threads of a block of `gather_rows`.
pub const GATHER_ROWS_THREADS: u32 = 256;

/// Threads of a block of `combine_experts`.
pub const COMBINE_THREADS: u32 = 64;

/// Tiles of vectors that there are grouped kernels for, of [`MATMUL_TILES`](super::MATMUL_TILES): few vectors for each
/// expert, or many. The most tiles would leave no registers for what differs from block to block.
pub const EXPERT_MATMUL_TILES: [u32; 2] = [2, 4];

kernel_params! {
    /// `scores[t][e] = sum over i of router[e][i] * v[t][i]`, where `v` is the RMSNorm of `x` times `norm_weight`; and of
    /// the network that all tokens take `shared[t] = sigmoid(sum over i of shared_gate[i] * v[t][i])`.
    pub struct RouterParams [72] {
        /// Tokens, f32 `[tokens][n_in]` at a multiple of 16 bytes.
        pub x: DevicePtr<f32>,
        /// `n_in` factors at a multiple of 16 bytes.
        pub norm_weight: DevicePtr<f32>,
        /// `[experts][n_in]` at a multiple of 16 bytes.
        pub router: DevicePtr<f32>,
        /// `n_in` factors at a multiple of 16 bytes, or null.
        pub shared_gate: DevicePtr<f32>,
        /// `[tokens][experts]`.
        pub scores: DevicePtr<f32>,
        /// `[tokens]`; null without `shared_gate`.
        pub shared: DevicePtr<f32>,
        /// Elements of a token: a multiple of 4.
        pub n_in: u32,
        /// Experts.
        pub experts: u32,
        /// Tokens.
        pub tokens: u32,
        /// Added to the mean square.
        pub epsilon: f32,
        /// Zero.
        pub reserved: [u32; 2],
    }

    /// Of each token the `used` experts with the largest scores, the largest first and among equals the lower one, and
    /// their shares of the softmax over all.
    pub struct ChooseExpertsParams [48] {
        /// `[tokens][experts]`.
        pub scores: DevicePtr<f32>,
        /// `[tokens][used]`.
        pub ids: DevicePtr<u32>,
        /// `[tokens][used]`.
        pub weights: DevicePtr<f32>,
        /// Experts: at most [`MAX_EXPERTS`].
        pub experts: u32,
        /// From 1 to `experts`.
        pub used: u32,
        /// 1 where the shares are divided by their sum.
        pub normalizes: u32,
        /// That sum at least.
        pub least_sum: f32,
        /// Zero.
        pub reserved: [u32; 2],
    }

    /// The product of [`MatvecParams`] of one vector with one or two matrices, for each pair with those of its expert.
    /// There are no biases and no residual.
    pub struct ExpertMatvecParams [200] {
        /// The product of the first pair with the matrices of expert 0. `y` of the next pair is `y_stride` further on.
        pub product: MatvecParams,
        /// The expert of each pair.
        pub ids: DevicePtr<u32>,
        /// From expert to expert in the matrices.
        pub expert_bytes: u64,
        /// Pairs that share a vector: those of a token, or 1.
        pub pairs_of_vector: u32,
        /// 1 where the launch before this one writes `ids`; 0 where an earlier one does, and the launch before has waited
        /// for that one's end before it lets this one start.
        pub ids_are_new: u32,
    }

    /// Pairs by experts: `order` has those of expert 0, then those of expert 1, and so on, each in their own order.
    pub struct GroupPairsParams [40] {
        /// The expert of each pair.
        pub ids: DevicePtr<u32>,
        /// `[pairs]`: the pair at each place.
        pub order: DevicePtr<u32>,
        /// `[pairs]`: the place of each pair.
        pub places: DevicePtr<u32>,
        /// `[experts + 1]`: the place of each expert's first pair, and `pairs`.
        pub starts: DevicePtr<u32>,
        /// Pairs.
        pub pairs: u32,
        /// Experts.
        pub experts: u32,
    }

    /// `y[place] = x[order[place] / used]`.
    pub struct GatherRowsParams [32] {
        /// f16 `[tokens][width]` at a multiple of 16 bytes.
        pub x: DevicePtr<F16>,
        /// f16 `[pairs][width]` at a multiple of 16 bytes.
        pub y: DevicePtr<F16>,
        /// The pair at each place.
        pub order: DevicePtr<u32>,
        /// Elements of a row: a multiple of 8.
        pub width: u32,
        /// Experts of a token.
        pub used: u32,
    }

    /// The products of [`MatmulParams`] with one or two matrices, for each expert's pairs with its own. There are no biases,
    /// maxima are not noted, and nothing is added to what is there.
    pub struct ExpertMatmulParams [184] {
        /// The products of all pairs, by place, with the matrices of expert 0.
        pub product: MatmulParams,
        /// [`GroupPairsParams::starts`].
        pub starts: DevicePtr<u32>,
        /// From expert to expert in the matrices, a multiple of 16.
        pub expert_bytes: u64,
        /// Experts.
        pub experts: u32,
        /// Zero.
        pub reserved: u32,
    }

    /// `x[t] += sum over ranks k of weights[t][k] * parts[p] + shared_weights[t] * shared[t]`, where `p` is the place of
    /// token `t`'s pair `k`.
    pub struct CombineParams [64] {
        /// Residual stream `[tokens][width]`, at a multiple of 16 bytes.
        pub x: DevicePtr<f32>,
        /// `[pairs][width]`, at a multiple of 16 bytes.
        pub parts: DevicePtr<f32>,
        /// `[tokens][used]`.
        pub weights: DevicePtr<f32>,
        /// `[pairs]`: where each pair's part is, or null where that is its own number.
        pub places: DevicePtr<u32>,
        /// `[tokens][width]`, or null.
        pub shared: DevicePtr<f32>,
        /// `[tokens]`; null without `shared`.
        pub shared_weights: DevicePtr<f32>,
        /// Elements of a token: a multiple of 4.
        pub width: u32,
        /// Experts of a token.
        pub used: u32,
        /// Zero.
        pub reserved: [u32; 2],
    }
}

/// Blocks in x of a grouped product of `pairs` pairs, a token taking each expert once: as many as there can be, each with
/// `vectors` of them.
pub const fn expert_matmul_blocks(pairs: u32, used: u32, experts: u32, vectors: u32) -> u32 {
    // All but the last block of an expert are full; and no expert has more pairs than there are tokens.
    let by_pairs = pairs / vectors + if pairs < experts { pairs } else { experts };
    let by_tokens = (pairs / used).div_ceil(vectors) * experts;
    if by_pairs < by_tokens {
        by_pairs
    } else {
        by_tokens
    }
}
