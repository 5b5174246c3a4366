//! Launch of `rope_kv`: queries rotated, keys and values into their pages.

use std::ops::Range;

use kernels_gpu::abi::{ROPE_ADJACENT, ROPE_HALVES, ROPE_HEADS, ROPE_THREADS, RopeKvParams};
use kernels_gpu::ops::rope_kv::ROPE_KV;

use crate::device::Result;
use crate::gpu::launcher::{Geometry, at};
use crate::gpu::pass::Pass;
use crate::gpu::weights::optional;
use crate::model::RopePairing;

impl Pass<'_> {
    /// Rotates Q and K of the step's tokens `tokens`; K and V go to the cache.
    pub fn rotate_and_cache(&self, layer: usize, tokens: Range<usize>) -> Result<()> {
        let (config, w, first) = (self.config, self.workspace, tokens.start);
        let weights = &self.weights.layers[layer];
        let rope = &self.ropes[config.layers[layer].rope];
        let params = RopeKvParams {
            q: at(&w.q, first * config.q_width()),
            k: at(&w.k, first * config.kv_width()),
            v: at(&w.v, first * config.kv_width()),
            q_norm: optional(&weights.q_norm),
            k_norm: optional(&weights.k_norm),
            rope: at(&rope.table, 0),
            q_out: at(&w.q_rotated, first * config.q_width()),
            kv: self.cache.layer(layer),
            page_table: self.inputs.page_table(0),
            positions: self.inputs.positions(first),
            sequences: self.inputs.sequences(first),
            n_heads: config.n_heads as u32,
            n_kv_heads: config.n_kv_heads as u32,
            head_dim: config.head_dim as u32,
            pairs: rope.pairs,
            pairing: self.pairing(layer),
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

    /// The kernels' number of a layer's pairing.
    pub fn pairing(&self, layer: usize) -> u32 {
        match self.config.rope(layer).pairing {
            RopePairing::Adjacent => ROPE_ADJACENT,
            RopePairing::Halves => ROPE_HALVES,
        }
    }
}
