//! Launch of `sample`: a random token for each row of logits.

use kernels_gpu::abi::{ChoiceOutputs, SAMPLE_THREADS, SampleParams};
use kernels_gpu::ops::sample::SAMPLE;

use crate::device::Result;
use crate::gpu::launcher::{Geometry, at};
use crate::gpu::pass::Pass;

impl Pass<'_> {
    /// Starts choosing a token for each of `rows` rows of logits, as the sequences from `first` on want.
    pub fn send_draw(&self, first: usize, rows: usize, outputs: ChoiceOutputs) -> Result<()> {
        let (vocab, w) = (self.model.vocab() as u32, self.workspace);
        let params = SampleParams {
            logits: at(&w.logits, 0),
            settings: self.inputs.settings(first),
            outputs,
            vocab,
            stride: vocab,
            forbids: 0,
            reserved: 0,
        };
        let geometry = Geometry::new([rows as u32, 1, 1], SAMPLE_THREADS);
        // SAFETY: logits and tokens have `LOGIT_ROWS` rows; every sequence of the step has settings.
        unsafe { self.launcher.launch(&SAMPLE, geometry, &params) }
    }
}
