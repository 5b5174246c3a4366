//! Launch of `sample`: a random token for each row of logits.

use kernels_gpu::abi::{SAMPLE_THREADS, SampleParams};
use kernels_gpu::ops::sample::SAMPLE;

use crate::device::Result;
use crate::gpu::launcher::{Geometry, at};
use crate::gpu::pass::Pass;

impl Pass<'_> {
    /// Starts choosing a token for each of the first `rows` rows of logits.
    pub fn send_draw(&self, rows: usize) -> Result<()> {
        let (vocab, w) = (self.model.vocab() as u32, self.workspace);
        let params = SampleParams {
            logits: at(&w.logits, 0),
            tokens: at(&w.tokens, 0),
            settings: self.inputs.settings(),
            vocab,
            stride: vocab,
        };
        let geometry = Geometry::new([rows as u32, 1, 1], SAMPLE_THREADS);
        // SAFETY: logits and tokens have as many rows; each has settings.
        unsafe { self.launcher.launch(&SAMPLE, geometry, &params) }
    }
}
