//! Launch of `argmax`: the likeliest token of each row of logits.

use kernels_gpu::abi::{ARGMAX_BLOCK_LOGITS, ARGMAX_THREADS, ArgmaxParams, ChoiceOutputs};
use kernels_gpu::ops::argmax::ARGMAX;

use crate::device::Result;
use crate::gpu::launcher::{Geometry, at};
use crate::gpu::pass::Pass;

impl Pass<'_> {
    /// Starts choosing the likeliest token of each of `rows` rows of logits, which move on and are posted as `outputs`
    /// says.
    pub fn send_argmax(&self, rows: usize, outputs: ChoiceOutputs) -> Result<()> {
        let (vocab, w) = (self.model.vocab() as u32, self.workspace);
        let params = ArgmaxParams {
            logits: at(&w.logits, 0),
            best: at(&w.best, 0),
            arrived: at(&w.best_arrived, 0),
            outputs,
            vocab,
            stride: vocab,
            forbids: 0,
            reserved: 0,
        };
        let geometry = Geometry::new(
            [vocab.div_ceil(ARGMAX_BLOCK_LOGITS), rows as u32, 1],
            ARGMAX_THREADS,
        );
        // SAFETY: logits, tokens and scratch have `LOGIT_ROWS` rows, of which `rows` are written.
        unsafe { self.launcher.launch(&ARGMAX, geometry, &params) }
    }
}
