//! Launch of `attention_prefill`: attention over tiles of a sequence's tokens.

use kernels_gpu::abi::{
    AttentionPrefillParams, KernelDef, NO_WINDOW, PREFILL_THREADS, PREFILL_TILE_ROWS,
    prefill_shared_bytes,
};
use kernels_gpu::ops::attention_prefill::*;

use crate::backend::Row;
use crate::device::Result;
use crate::gpu::launcher::{Geometry, at};
use crate::gpu::pass::Pass;

impl Pass<'_> {
    /// Attention of all tokens of `reading`, the step's rows from `first` on, whose keys are in the cache, to `mixed` as
    /// f16.
    pub fn attention_prefill(&self, layer: usize, first: usize, reading: &[Row<'_>]) -> Result<()> {
        let (config, w) = (self.config, self.workspace);
        let most = reading.iter().map(|row| row.tokens.len()).max();
        let rows = (most.unwrap_or(0) * config.group_size()) as u32;
        let (kernel, row_tiles) = prefill_kernel(config.head_dim, rows);
        let params = AttentionPrefillParams {
            q: at(&w.q_rotated, 0),
            out: at(&w.mixed, 0),
            kv: self.cache.layer(layer),
            page_table: self.inputs.page_table(first),
            query_starts: self.inputs.query_starts(first),
            first_positions: self.inputs.first_positions(first),
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
                reading.len() as u32,
            ],
            block: PREFILL_THREADS,
            shared_bytes: prefill_shared_bytes(config.head_dim as u32, row_tiles),
        };
        // SAFETY: the workspace has room for all tokens; `check_step` saw to pages for all positions.
        unsafe { self.launcher.launch(&kernel, geometry, &params) }
    }

    /// The kernels' number of a layer's window.
    pub fn window(&self, layer: usize) -> u32 {
        let window = self.config.layers[layer].window;
        window.map_or(NO_WINDOW, |tokens| tokens as u32)
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
