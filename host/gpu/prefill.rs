//! Steps of any tokens: products in f16 over all of them. Rows of one token keep decoding's attention, which shares
//! long contexts among blocks; the others take attention over tiles of their tokens.

use super::choices::Choices;
use super::ops::attention_decode::MixedType;
use super::pass::Pass;
use crate::backend::{Row, RowResult};
use crate::device::Result;

impl Pass<'_> {
    /// Sends a step of any tokens, of which the first `n_decode` rows have one each, whose contexts `splits` blocks
    /// share; `None` for a row whose tokens the device chooses, as `choices` say.
    pub fn mixed(
        &self,
        rows: &[Row<'_>],
        n_decode: usize,
        splits: u32,
        choices: &Choices,
    ) -> Result<Vec<Option<RowResult>>> {
        self.send_blocks(rows, n_decode, splits, false)?;
        let n_tokens = rows.iter().map(|row| row.tokens.len()).sum();
        if self.stream_scales(self.config.n_layers, n_tokens).is_some() {
            self.restore_rows(&self.workspace.x, n_tokens)?;
        }
        self.outputs(rows, choices)
    }

    /// Sends the kernels of all blocks of the model. Where `has_drafts`, some of the first rows see keys and values of
    /// others.
    pub fn send_blocks(
        &self,
        rows: &[Row<'_>],
        n_decode: usize,
        splits: u32,
        has_drafts: bool,
    ) -> Result<()> {
        let n_tokens = rows.iter().map(|row| row.tokens.len()).sum();
        let first_cached = if has_drafts { 0 } else { n_decode };
        let (decoding, reading) = rows.split_at(n_decode);
        self.embed(n_tokens)?;
        for layer in 0..self.config.n_layers {
            self.trace.layer.set(Some(layer));
            self.project(layer, n_tokens)?;
            if first_cached < n_tokens {
                self.rotate_and_cache(layer, first_cached..n_tokens)?;
            }
            if !decoding.is_empty() {
                self.decode_attention(layer, splits, MixedType::F16, decoding, has_drafts)?;
            }
            if !reading.is_empty() {
                self.trace
                    .f16("Qcur", self.config.q_width(), &self.workspace.q_rotated)?;
                self.attention_prefill(layer, n_decode, reading)?;
            }
            self.trace_cache(layer, rows)?;
            self.add_attention(layer, n_tokens)?;
            self.feed_forward(layer, n_tokens)?;
        }
        self.trace.layer.set(None);
        Ok(())
    }
}
