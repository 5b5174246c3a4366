//! What attention works on: queries, and the paged cache in which their keys and values lie.

use std::ops::Range;

use super::interrupt::Interrupt;
use super::kv_cache::{KvCache, Token};
use crate::model::Config;

/// Attention of a step in a layer.
pub struct Attention<'a, V> {
    /// The model's shape.
    pub config: &'a Config,
    /// The running block.
    pub layer: usize,
    /// Keys and values of all tokens, those of the step included: a key has the same bits for every token
    /// that sees it, whichever step that one belongs to.
    pub cache: &'a KvCache,
    /// The tokens of this step.
    pub tokens: &'a [Token<'a>],
    /// Queries, `[tokens, n_heads * head_dim]`.
    pub q: &'a [V],
    /// Once it is requested, heads are left out.
    pub interrupt: Interrupt,
}

impl<V> Attention<'_, V> {
    /// The positions that a token at `position` sees.
    pub fn visible(&self, position: usize) -> Range<usize> {
        let end = position + 1;
        let window = self.config.layers[self.layer].window;
        window.map_or(0, |window| end.saturating_sub(window))..end
    }
}
