//! Steps of any tokens: products in f16, and attention over tiles of a sequence's tokens.

use super::pass::Pass;
use crate::backend::{Output, SequenceStep};
use crate::device::Result;

impl Pass<'_> {
    /// Runs a step of any tokens.
    pub fn prefill(&self, sequences: &[SequenceStep<'_>]) -> Result<Vec<Output>> {
        let n_tokens = sequences.iter().map(|step| step.tokens.len()).sum();
        self.embed(n_tokens)?;
        for layer in 0..self.config.n_layers {
            self.trace.layer.set(Some(layer));
            self.project(layer, n_tokens)?;
            self.rotate_and_cache(layer, n_tokens)?;
            self.trace
                .f16("Qcur", self.config.q_width(), &self.workspace.q_rotated)?;
            self.trace_cache(layer, sequences)?;
            self.attention_prefill(layer, sequences)?;
            self.add_attention(layer, n_tokens)?;
            self.feed_forward(layer, n_tokens)?;
        }
        self.trace.layer.set(None);
        if self.stream_scales(self.config.n_layers, n_tokens).is_some() {
            self.restore_rows(&self.workspace.x, n_tokens)?;
        }
        self.prefill_outputs(sequences)
    }
}
