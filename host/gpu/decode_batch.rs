//! Steps of one new token for each of many sequences: products in f16 on tensor cores, which read a matrix once
//! for all of them, and decoding's attention. Recorded in graphs as the steps of few sequences are.

use super::graphs::GraphKey;
use super::ops::matvec::Product;
use super::ops::norm::Norm;
use super::pass::Pass;
use crate::backend::Row;
use crate::device::Result;

impl Pass<'_> {
    /// Sends the kernels of a step of one token for each sequence.
    pub fn send_decode_batch(&self, key: GraphKey, rows: &[Row<'_>]) -> Result<()> {
        let (n, w) = (key.n, self.workspace);
        // Attention over tiles of tokens reads a context in one order, however long it is.
        let n_decode = if self.is_deterministic { 0 } else { n };
        self.send_blocks(rows, n_decode, key.splits, key.has_drafts)?;
        let norm = Norm {
            x_scales: self.stream_scales(self.config.n_layers, n),
            ..self.output_norm()
        };
        let normed = self.norm_rows(&w.x, 0, norm, n)?;
        let head = Product::new(&self.weights.output, &w.logits);
        self.multiply(normed, &[head], false)?;
        self.cap_logits(n)?;
        self.choose(n, key.choosing, key.moves_on())
    }
}
