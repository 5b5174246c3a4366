//! Intermediate results of mixtures of experts. A pair is a token with one of the experts that it takes.

use super::buffers::buffers;
use crate::device::{Buffer, Device, Result};
use crate::model::Config;

/// Most pairs of a step: the blocks that a grid has in one of its lesser dimensions.
pub const MAX_PAIRS: usize = 65_535;

/// The buffers; shapes are `[tokens, elements]` or `[pairs, elements]`.
pub struct ExpertSpace {
    /// f32 `[tokens, experts]`.
    pub scores: Buffer,
    /// The experts of each token, the best first, u32 `[pairs]`.
    pub ids: Buffer,
    /// f32 `[pairs]`.
    pub weights: Buffer,
    /// How much the network counts that all tokens take, f32 `[tokens]`.
    pub shared_weights: Buffer,
    /// The pair at each place, by experts, u32 `[pairs]`.
    pub order: Buffer,
    /// The place of each pair, u32 `[pairs]`.
    pub places: Buffer,
    /// The place of each expert's first pair, and the number of pairs, u32 `[experts + 1]`.
    pub starts: Buffer,
    /// Normed activations by place, f16 `[pairs, width]`.
    pub rows: Buffer,
    /// f32, `[pairs, expert_width]`.
    pub gate: Buffer,
    /// f32, `[pairs, expert_width]`.
    pub up: Buffer,
    /// The gated product, f16 or f32.
    pub gated: Buffer,
    /// What each row of `gated` was divided by where that is f16.
    pub gated_scales: Buffer,
    /// What each pair's expert found, f32 `[pairs, width]`.
    pub parts: Buffer,
}

/// Label and bytes of each buffer for steps of `tokens` tokens, in the order of [`ExpertSpace`]'s fields; nothing for a
/// model without experts.
pub fn sizes(config: &Config, tokens: usize) -> Vec<(&'static str, usize)> {
    let Some(experts) = &config.experts else {
        return Vec::new();
    };
    let pairs = tokens * experts.used;
    vec![
        ("experts' scores", 4 * tokens * experts.count),
        ("chosen experts", 4 * pairs),
        ("experts' weights", 4 * pairs),
        ("shared expert's weights", 4 * tokens),
        ("order of pairs", 4 * pairs),
        ("places of pairs", 4 * pairs),
        ("first pairs", 4 * (experts.count + 1)),
        ("rows by experts", 2 * pairs * config.width),
        ("experts' gates", 4 * pairs * experts.width),
        ("experts' up", 4 * pairs * experts.width),
        ("experts' gated", 4 * pairs * experts.width),
        ("experts' gated, scales", 4 * pairs),
        ("experts' output", 4 * pairs * config.width),
    ]
}

impl ExpertSpace {
    /// Allocates the buffers, filled with no numbers as all of a workspace; `None` for a model without experts.
    pub fn new(device: &dyn Device, config: &Config, tokens: usize) -> Result<Option<ExpertSpace>> {
        let sizes = sizes(config, tokens);
        if sizes.is_empty() {
            return Ok(None);
        }
        let mut next = buffers(device, &sizes)?;
        Ok(Some(ExpertSpace {
            scores: next()?,
            ids: next()?,
            weights: next()?,
            shared_weights: next()?,
            order: next()?,
            places: next()?,
            starts: next()?,
            rows: next()?,
            gate: next()?,
            up: next()?,
            gated: next()?,
            gated_scales: next()?,
            parts: next()?,
        }))
    }
}
