//! Launches of what is around the products of a mixture's experts: `router`, `choose_experts`, `group_pairs`,
//! `gather_rows` and `combine_experts`.

use kernels_gpu::abi::{
    CHOOSE_EXPERTS_THREADS, COMBINE_THREADS, ChooseExpertsParams, CombineParams, DevicePtr,
    GATHER_ROWS_THREADS, GROUP_PAIRS_THREADS, GatherRowsParams, GroupPairsParams, ROUTER_ROWS,
    ROUTER_THREADS, RouterParams,
};
use kernels_gpu::ops::choose_experts::CHOOSE_EXPERTS;
use kernels_gpu::ops::combine_experts::COMBINE_EXPERTS;
use kernels_gpu::ops::gather_rows::GATHER_ROWS;
use kernels_gpu::ops::group_pairs::GROUP_PAIRS;
use kernels_gpu::ops::router::ROUTER_SCORES;

use crate::device::{Buffer, Result};
use crate::gpu::experts::Mixture;
use crate::gpu::launcher::{Geometry, at};
use crate::gpu::pass::Pass;
use crate::gpu::scales::{HalfRows, stream_epsilon};
use crate::model::ExpertCounts;

/// Where the results of pairs lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// By their own numbers.
    OfPairs,
    /// By experts.
    ByExperts,
}

impl Pass<'_> {
    /// The router's scores of the tokens `x`, and the weight of the network that all tokens take.
    pub fn router_scores(&self, mixture: Mixture<'_>, x: &Buffer) -> Result<()> {
        let Mixture {
            experts,
            counts,
            space,
            ..
        } = mixture;
        let shared = experts.shared_gate.as_deref();
        let params = RouterParams {
            x: at(x, 0),
            norm_weight: at(mixture.norm, 0),
            router: at(&experts.router, 0),
            shared_gate: shared.map_or(DevicePtr::NULL, |gate| at(gate, 0)),
            scores: at(&space.scores, 0),
            shared: shared.map_or(DevicePtr::NULL, |_| at(&space.shared_weights, 0)),
            n_in: self.config.width as u32,
            experts: counts.count as u32,
            tokens: mixture.tokens as u32,
            epsilon: stream_epsilon(self.config),
            reserved: [0; 2],
        };
        let rows = counts.count as u32 + u32::from(shared.is_some());
        let blocks = rows.div_ceil(ROUTER_THREADS / 32);
        let rows = (mixture.tokens as u32).min(ROUTER_ROWS);
        let geometry = Geometry::new([blocks, rows, 1], ROUTER_THREADS);
        self.launcher.moves(experts.router.len());
        // SAFETY: `x` has that many rows of the width, a multiple of 4, and the router a row for each expert.
        unsafe { self.launcher.launch(&ROUTER_SCORES, geometry, &params) }
    }

    /// The experts of each token, and their weights.
    pub fn choose_by_scores(&self, mixture: Mixture<'_>) -> Result<()> {
        let Mixture { counts, space, .. } = mixture;
        let params = ChooseExpertsParams {
            scores: at(&space.scores, 0),
            ids: at(&space.ids, 0),
            weights: at(&space.weights, 0),
            experts: counts.count as u32,
            used: counts.used as u32,
            normalizes: counts.normalizes.into(),
            least_sum: ExpertCounts::LEAST_SUM,
            reserved: [0; 2],
        };
        let geometry = Geometry::new([mixture.tokens as u32, 1, 1], CHOOSE_EXPERTS_THREADS);
        // SAFETY: there are scores and room for each token; `used` is at most the number of experts.
        unsafe { self.launcher.launch(&CHOOSE_EXPERTS, geometry, &params) }
    }

    /// Puts pairs together by experts.
    pub fn group_pairs(&self, mixture: Mixture<'_>) -> Result<()> {
        let Mixture { counts, space, .. } = mixture;
        let params = GroupPairsParams {
            ids: at(&space.ids, 0),
            order: at(&space.order, 0),
            places: at(&space.places, 0),
            starts: at(&space.starts, 0),
            pairs: mixture.pairs() as u32,
            experts: counts.count as u32,
        };
        let geometry = Geometry::new([counts.count as u32, 1, 1], GROUP_PAIRS_THREADS);
        // SAFETY: there is room for each pair, and for each expert and the end.
        unsafe { self.launcher.launch(&GROUP_PAIRS, geometry, &params) }
    }

    /// The tokens' rows by experts.
    pub fn gather_rows(&self, mixture: Mixture<'_>, normed: HalfRows<'_>) -> Result<()> {
        let Mixture { counts, space, .. } = mixture;
        let width = self.config.width as u32;
        let params = GatherRowsParams {
            x: at(normed.x, 0),
            y: at(&space.rows, 0),
            order: at(&space.order, 0),
            width,
            used: counts.used as u32,
        };
        let threads = width.div_ceil(8).next_multiple_of(32);
        let threads = threads.min(GATHER_ROWS_THREADS);
        let geometry = Geometry::new([mixture.pairs() as u32, 1, 1], threads);
        // SAFETY: quantized rows, which are multiplied next, are of whole blocks of at least 32; there is a row for each
        // token and room for each pair.
        unsafe { self.launcher.launch(&GATHER_ROWS, geometry, &params) }
    }

    /// Adds what the experts found to the residual stream `x`, and what is in `block_out` where that `has_shared`.
    pub fn combine_experts(
        &self,
        mixture: Mixture<'_>,
        x: &Buffer,
        places: Places,
        has_shared: bool,
    ) -> Result<()> {
        let Mixture { counts, space, .. } = mixture;
        let width = self.config.width as u32;
        let or_null = |given: bool, buffer: &Buffer| match given {
            true => buffer.addr(),
            false => 0,
        };
        let by_experts = places == Places::ByExperts;
        let shared = or_null(has_shared, &self.workspace.block_out);
        let shared_weights = or_null(has_shared, &space.shared_weights);
        let params = CombineParams {
            x: at(x, 0),
            parts: at(&space.parts, 0),
            weights: at(&space.weights, 0),
            places: DevicePtr::from_address(or_null(by_experts, &space.places)),
            shared: DevicePtr::from_address(shared),
            shared_weights: DevicePtr::from_address(shared_weights),
            width,
            used: counts.used as u32,
            reserved: [0; 2],
        };
        let blocks = width.div_ceil(4 * COMBINE_THREADS);
        let geometry = Geometry::new([blocks, mixture.tokens as u32, 1], COMBINE_THREADS);
        // SAFETY: there is a part and a weight for each pair, and a row of the width, a multiple of 4, for each token.
        unsafe { self.launcher.launch(&COMBINE_EXPERTS, geometry, &params) }
    }
}
