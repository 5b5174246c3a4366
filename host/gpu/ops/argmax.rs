//! Launch of `argmax`: the likeliest token of each row of logits.

use kernels_gpu::abi::{ArgmaxParams, DevicePtr};
use kernels_gpu::ops::argmax::ARGMAX;

use crate::device::Result;
use crate::gpu::launcher::{Geometry, at};
use crate::gpu::pass::Pass;

impl Pass<'_> {
    /// Starts choosing the likeliest token of each of `rows` rows of logits; `next` is where the next step's tokens
    /// go, where its positions are, and where the host reads the tokens, or null.
    pub fn send_argmax(&self, rows: usize, next: [DevicePtr<u32>; 3]) -> Result<()> {
        /// Logits of a block: several for each of its 256 threads, to be worth its start.
        const BLOCK_LOGITS: u32 = 1024;
        let (vocab, w) = (self.model.vocab() as u32, self.workspace);
        let params = ArgmaxParams {
            logits: at(&w.logits, 0),
            tokens: at(&w.tokens, 0),
            best: at(&w.best, 0),
            arrived: at(&w.best_arrived, 0),
            next_tokens: next[0],
            next_positions: next[1],
            posted: next[2],
            vocab,
            stride: vocab,
        };
        let geometry = Geometry::new([vocab.div_ceil(BLOCK_LOGITS), rows as u32, 1], 256);
        // SAFETY: logits, tokens and scratch have as many rows, of which `rows` are written.
        unsafe { self.launcher.launch(&ARGMAX, geometry, &params) }
    }
}
