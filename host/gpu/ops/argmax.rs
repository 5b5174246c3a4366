//! Launch of `argmax`: the likeliest token of each row of logits.

use kernels_gpu::abi::{ARGMAX_BLOCK_LOGITS, ARGMAX_THREADS, ArgmaxParams, DevicePtr};
use kernels_gpu::ops::argmax::ARGMAX;

use crate::device::Result;
use crate::gpu::launcher::{Geometry, at};
use crate::gpu::pass::Pass;

impl Pass<'_> {
    /// Starts choosing the likeliest token of each of `rows` rows of logits; `next` is where the next step's tokens
    /// go, where its positions are, and where the host reads the tokens, or null.
    pub fn send_argmax(&self, rows: usize, next: [DevicePtr<u32>; 3]) -> Result<()> {
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
        let geometry = Geometry::new(
            [vocab.div_ceil(ARGMAX_BLOCK_LOGITS), rows as u32, 1],
            ARGMAX_THREADS,
        );
        // SAFETY: logits, tokens and scratch have as many rows, of which `rows` are written.
        unsafe { self.launcher.launch(&ARGMAX, geometry, &params) }
    }
}
