//! Launch of `embed`: the residual stream before the first block.

use kernels_gpu::abi::{EmbedParams, UNPACK_THREADS, UnpackPlan};
use kernels_gpu::ops::embed;

use crate::device::Result;
use crate::gpu::launcher::{Geometry, at};
use crate::gpu::pass::Pass;
use crate::gpu::scales::stream_embedding_scale;

impl Pass<'_> {
    /// The residual stream before the first block.
    pub fn embed(&self, n_tokens: usize) -> Result<()> {
        let (config, table) = (self.config, &self.weights.token_embd);
        let plan = UnpackPlan::embed(table.ty, n_tokens as u32, config.width as u32);
        let geometry = Geometry {
            grid: plan.grid,
            block: UNPACK_THREADS,
            shared_bytes: plan.shared_bytes,
        };
        let params = EmbedParams {
            table: at(&table.blocks, 0),
            tokens: self.inputs.token_ids(),
            y: at(&self.workspace.x, 0),
            width: config.width as u32,
            rows: table.n_out as u32,
            scale: stream_embedding_scale(config),
            reserved: 0,
        };
        // SAFETY: the plan is for this table, whose rows the token ids were checked against.
        unsafe {
            self.launcher
                .launch(&embed::kernel(table.ty), geometry, &params)
        }?;
        let name = match config.embedding_scale {
            1.0 => "embd",
            _ => "inp_scaled",
        };
        self.trace_stream(name, &self.workspace.x)
    }
}
