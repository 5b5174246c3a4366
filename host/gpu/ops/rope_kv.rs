//! Launch of `rope_kv`: queries rotated, keys and values into their pages.

use std::ops::Range;

use kernels_gpu::abi::{
    DevicePtr, ROPE_ADJACENT, ROPE_HALVES, ROPE_HEADS, ROPE_THREADS, RopeKvParams,
};
use kernels_gpu::ops::rope_kv::ROPE_KV;

use crate::device::Result;
use crate::gpu::launcher::{Geometry, at};
use crate::gpu::pass::Pass;
use crate::gpu::weights::optional;
use crate::model::{QkNorm, RopePairing};

impl Pass<'_> {
    /// Rotates Q and K of the step's tokens `tokens`; K and V go to the cache.
    pub fn rotate_and_cache(&self, layer: usize, tokens: Range<usize>) -> Result<()> {
        let (config, w, first) = (self.config, self.workspace, tokens.start);
        let rotation = self.rotation(layer);
        let [q_norm, k_norm] = self.head_norms(layer);
        let params = RopeKvParams {
            q: at(&w.q, first * config.q_width()),
            k: at(&w.k, first * config.kv_width()),
            v: at(&w.v, first * config.kv_width()),
            q_norm,
            k_norm,
            rope: rotation.table,
            q_factors: self.query_factors(),
            q_out: at(&w.q_rotated, first * config.q_width()),
            kv: self.cache.layer(layer),
            page_table: self.inputs.page_table(0),
            positions: self.inputs.positions(first),
            sequences: self.inputs.sequences(first),
            n_heads: config.n_heads as u32,
            n_kv_heads: config.n_kv_heads as u32,
            head_dim: config.head_dim as u32,
            pairs: rotation.pairs,
            pairing: rotation.pairing,
            q_stride: config.q_width() as u32,
            kv_stride: config.kv_width() as u32,
            max_pages: self.inputs.max_pages(),
            page_stride: self.cache.page_stride,
            epsilon: config.rms_eps,
        };
        let heads = (config.n_heads + 2 * config.n_kv_heads) as u32;
        let geometry = Geometry::new(
            [tokens.len() as u32, heads.div_ceil(ROPE_HEADS), 1],
            ROPE_THREADS,
        );
        // SAFETY: the workspace has room for the tokens; `check_step` saw to pages for all positions.
        unsafe { self.launcher.launch(&ROPE_KV, geometry, &params) }
    }

    /// What the kernels are told of a layer's rotation.
    pub fn rotation(&self, layer: usize) -> Rotation {
        let index = self.config.layers[layer].rope;
        let Some((table, rope)) = index.map(|i| (&self.ropes[i], &self.config.ropes[i])) else {
            return Rotation::NONE;
        };
        Rotation {
            table: at(&table.table, 0),
            pairs: table.pairs,
            pairing: match rope.pairing {
                RopePairing::Adjacent => ROPE_ADJACENT,
                RopePairing::Halves => ROPE_HALVES,
            },
        }
    }

    /// What queries are multiplied by at each position; null where they are not.
    pub fn query_factors(&self) -> DevicePtr<f32> {
        let table = self.query_factors;
        table.map_or(DevicePtr::NULL, |table| at(table, 0))
    }

    /// The weights of the norms of each head of Q and of K, null where there are none: a norm of all heads together
    /// comes before.
    pub fn head_norms(&self, layer: usize) -> [DevicePtr<f32>; 2] {
        let weights = &self.weights.layers[layer];
        match self.config.arch.qk_norm {
            QkNorm::None | QkNorm::Projection => [DevicePtr::NULL; 2],
            QkNorm::Head => [&weights.q_norm, &weights.k_norm].map(optional),
        }
    }
}

/// A layer's rotation in the kernels' terms.
#[derive(Clone, Copy)]
pub struct Rotation {
    /// Cosine and sine, f32 `[context][pairs][2]`.
    pub table: DevicePtr<f32>,
    /// Rotated pairs of a head.
    pub pairs: u32,
    /// The pairing's number.
    pub pairing: u32,
}

impl Rotation {
    /// No pair is rotated, and so nothing of a table read.
    const NONE: Rotation = Rotation {
        table: DevicePtr::NULL,
        pairs: 0,
        pairing: ROPE_ADJACENT,
    };
}
