//! Steps of any tokens: products in f16, and attention over tiles of a sequence's tokens.

use kernels_gpu::abi::{
    AttentionPrefillParams, DevicePtr, KernelDef, PREFILL_TILE_ROWS, RopeKvParams,
    prefill_shared_bytes,
};
use kernels_gpu::ops::attention_prefill::*;
use kernels_gpu::ops::rope_kv::ROPE_KV;

use super::GpuBackend;
use super::launcher::{Geometry, at};
use super::trace::DeviceTracer;
use super::weights::optional;
use crate::backend::{Output, SequenceStep};
use crate::device::Result;

impl GpuBackend {
    /// Runs a step of any tokens.
    pub(super) fn prefill(
        &mut self,
        sequences: &[SequenceStep<'_>],
        trace: &mut DeviceTracer<'_>,
    ) -> Result<Vec<Output>> {
        let n_tokens = sequences.iter().map(|step| step.tokens.len()).sum();
        self.embed(n_tokens, trace)?;
        for layer in 0..self.model.config.n_layers {
            trace.layer = Some(layer);
            self.project(layer, n_tokens, trace)?;
            self.rotate_and_cache(layer, n_tokens)?;
            trace.f16(
                "Qcur",
                self.model.config.q_width(),
                &self.workspace.q_rotated,
            )?;
            self.trace_cache(layer, sequences, trace)?;
            self.attend(layer, sequences)?;
            self.add_attention(layer, n_tokens, trace)?;
            self.feed_forward(layer, n_tokens, trace)?;
        }
        trace.layer = None;
        if self
            .stream_scales(self.model.config.n_layers, n_tokens)
            .is_some()
        {
            self.restore_rows(&self.workspace.x, n_tokens)?;
        }
        self.prefill_outputs(sequences, trace)
    }

    fn rotate_and_cache(&self, layer: usize, n_tokens: usize) -> Result<()> {
        let (config, w) = (&self.model.config, &self.workspace);
        let weights = &self.weights.layers[layer];
        let rope = &self.ropes[config.layers[layer].rope];
        let params = RopeKvParams {
            q: at(&w.q, 0),
            k: at(&w.k, 0),
            v: at(&w.v, 0),
            q_bias: DevicePtr::NULL,
            k_bias: DevicePtr::NULL,
            v_bias: DevicePtr::NULL,
            q_norm: optional(&weights.q_norm),
            k_norm: optional(&weights.k_norm),
            rope: at(&rope.table, 0),
            q_out: at(&w.q_rotated, 0),
            kv: self.cache.layer(layer),
            page_table: self.inputs.page_table(),
            positions: self.inputs.positions(),
            sequences: self.inputs.sequences(),
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
        let geometry = Geometry::new([n_tokens as u32, heads.div_ceil(4), 1], 128);
        // SAFETY: the workspace has room for `n_tokens`; `check_step` saw to pages for all positions.
        unsafe { self.launcher.launch(&ROPE_KV, geometry, &params) }
    }

    fn attend(&self, layer: usize, sequences: &[SequenceStep<'_>]) -> Result<()> {
        let (config, w) = (&self.model.config, &self.workspace);
        let most = sequences.iter().map(|step| step.tokens.len()).max();
        let rows = (most.unwrap_or(0) * config.group_size()) as u32;
        let (kernel, row_tiles) = prefill_kernel(config.head_dim, rows);
        let params = AttentionPrefillParams {
            q: at(&w.q_rotated, 0),
            out: at(&w.mixed, 0),
            kv: self.cache.layer(layer),
            page_table: self.inputs.page_table(),
            query_starts: self.inputs.query_starts(),
            first_positions: self.inputs.first_positions(),
            n_heads: config.n_heads as u32,
            n_kv_heads: config.n_kv_heads as u32,
            max_pages: self.inputs.max_pages(),
            page_stride: self.cache.page_stride,
            window: self.window(layer),
            scale: config.attention_scale,
        };
        let geometry = Geometry {
            grid: [
                rows.div_ceil(PREFILL_TILE_ROWS * row_tiles),
                config.n_kv_heads as u32,
                sequences.len() as u32,
            ],
            block: 128,
            shared_bytes: prefill_shared_bytes(config.head_dim as u32, row_tiles),
        };
        // SAFETY: the workspace has room for all tokens; `check_step` saw to pages for all positions.
        unsafe { self.launcher.launch(&kernel, geometry, &params) }
    }
}

/// The kernel for a head size and rows of a KV head, and its row tiles: two where there are rows
/// enough that half as many blocks still fill the GPU.
fn prefill_kernel(head_dim: usize, rows: u32) -> (KernelDef<AttentionPrefillParams>, u32) {
    const MANY_ROWS: u32 = 1024;
    match (head_dim, rows >= MANY_ROWS) {
        (32, _) => (ATTENTION_PREFILL_32, 1),
        (64, false) => (ATTENTION_PREFILL_64, 1),
        (64, true) => (ATTENTION_PREFILL_64_WIDE, 2),
        (80, _) => (ATTENTION_PREFILL_80, 1),
        (96, _) => (ATTENTION_PREFILL_96, 1),
        (128, false) => (ATTENTION_PREFILL_128, 1),
        (128, true) => (ATTENTION_PREFILL_128_WIDE, 2),
        _ => (ATTENTION_PREFILL_256, 1),
    }
}
