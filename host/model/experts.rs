//! Mixtures of experts: how many networks there are, how large, and their weights.

use super::arch::ExpertRule;
use super::error::ModelError;
use super::keys::Keys;
use super::weights::{GatedNetwork, Linear, Tensors};
use crate::gguf::Tensor;

/// Sizes of a mixture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertCounts {
    /// Networks of a block.
    pub count: usize,
    /// Those that a token takes: from 1 to `count`.
    pub used: usize,
    /// Elements inside one of them.
    pub width: usize,
    /// Elements inside the one that every token takes, where there is such a one.
    pub shared_width: Option<usize>,
    /// Whether the weights of those that a token takes are divided by their sum.
    pub normalizes: bool,
}

impl ExpertCounts {
    /// Least sum of weights that they are divided by: llama.cpp's, the smallest ordinary number of f16.
    pub const LEAST_SUM: f32 = 6.103_515_6e-5;
}

/// The elements inside the network of all tokens, 0 where there is none, and the experts.
///
/// # Errors
/// Counts that cannot be, and experts where the architecture has none.
pub(super) fn read_widths(
    keys: &Keys<'_>,
    n_blocks: usize,
) -> Result<(usize, Option<ExpertCounts>), ModelError> {
    const COUNT: &str = "expert_count";
    const FFN: &str = "feed_forward_length";
    let count = keys.optional_whole(COUNT)?.unwrap_or(0);
    let rule = match (keys.arch().experts, count) {
        (Some(rule), 1..) => rule,
        (Some(ExpertRule { is_optional, .. }), 0) if !is_optional => {
            let what = format!("no experts, without which there is no {}", keys.arch().name);
            return Err(keys.invalid(COUNT, what));
        }
        (_, 0) => return Ok((keys.uniform_count(FFN, n_blocks)?, None)),
        (None, count) => {
            let what = format!(
                "{count}: a mixture of experts, which hyperion does not have for {}",
                keys.arch().name
            );
            return Err(keys.invalid(COUNT, what));
        }
    };
    let used = keys.count("expert_used_count")?;
    if used > count {
        let what = format!("a token takes {used} of {count} experts");
        return Err(keys.invalid("expert_used_count", what));
    }
    let all = keys.optional_uniform_count(FFN, n_blocks)?;
    let all = || all.ok_or_else(|| keys.invalid(FFN, "there is none"));
    let width = match keys.optional_count("expert_feed_forward_length")? {
        Some(width) => width,
        None if !rule.shares_width => all()?,
        None if all()?.is_multiple_of(used) => all()? / used,
        None => {
            let what = format!("{} elements for {used} experts", all()?);
            return Err(keys.invalid(FFN, what));
        }
    };
    let shared_width = match rule.has_shared {
        true => Some(
            match keys.optional_count("expert_shared_feed_forward_length")? {
                Some(width) => width,
                None => all()?,
            },
        ),
        false => None,
    };
    let counts = ExpertCounts {
        count,
        used,
        width,
        shared_width,
        normalizes: rule.normalizes,
    };
    Ok((shared_width.unwrap_or(0), Some(counts)))
}

/// The networks of a block and what chooses among them.
#[derive(Clone)]
pub struct Experts {
    /// `[count, width]`: the score of each.
    pub router: Linear,
    /// Of each `[ffn_width, width]`, goes through the activation.
    pub gate: ExpertMatrix,
    /// Of each `[ffn_width, width]`, multiplied by the activated gate.
    pub up: ExpertMatrix,
    /// Of each `[width, ffn_width]`.
    pub down: ExpertMatrix,
    /// What every token takes besides.
    pub shared: Option<SharedExpert>,
}

impl Experts {
    /// The matrices of all networks, in the order in which a step multiplies them.
    pub fn matrices(&self) -> [&ExpertMatrix; 3] {
        [&self.gate, &self.up, &self.down]
    }
}

/// A matrix of each expert, all of one shape and type, one behind the other.
#[derive(Clone)]
pub struct ExpertMatrix {
    /// All of them; GGUF dimensions `[n_in, n_out, count]`.
    pub weight: Tensor,
    /// Elements of an output.
    pub n_out: usize,
}

impl ExpertMatrix {
    /// Elements of an input.
    pub fn n_in(&self) -> usize {
        self.weight.row_len()
    }

    /// Number of experts.
    pub fn count(&self) -> usize {
        self.weight.n_rows() / self.n_out
    }

    /// The matrix of expert `index`.
    ///
    /// # Panics
    /// Where there is no such expert.
    pub fn of(&self, index: usize) -> Linear {
        let first = index * self.n_out;
        Linear {
            weight: self.weight.rows(first..first + self.n_out),
            bias: None,
        }
    }
}

/// A network that every token takes, times the sigmoid of its gate.
#[derive(Clone)]
pub struct SharedExpert {
    /// The network.
    pub network: GatedNetwork,
    /// `[width]`: its product with a token is what the sigmoid is taken of.
    pub gate: Vec<f32>,
}

impl Tensors<'_> {
    /// The experts of block `index` of a model with tokens of `width` elements.
    pub(super) fn experts(
        &self,
        index: usize,
        width: usize,
        counts: &ExpertCounts,
    ) -> Result<Experts, ModelError> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let matrix = |part: &str, n_in, n_out| {
            let name = name(&format!("{part}.weight"));
            let weight = self.tensor(&name, &[n_in, n_out, counts.count])?;
            Ok::<_, ModelError>(ExpertMatrix { weight, n_out })
        };
        let shared = |ffn: usize| {
            let network = GatedNetwork {
                gate: self.linear(&name("ffn_gate_shexp"), width, ffn)?,
                up: self.linear(&name("ffn_up_shexp"), width, ffn)?,
                down: self.linear(&name("ffn_down_shexp"), ffn, width)?,
            };
            let gate = self.vector(&name("ffn_gate_inp_shexp.weight"), width)?;
            Ok::<_, ModelError>(SharedExpert { network, gate })
        };
        Ok(Experts {
            router: Linear {
                weight: self.tensor(&name("ffn_gate_inp.weight"), &[width, counts.count])?,
                bias: None,
            },
            gate: matrix("ffn_gate_exps", width, counts.width)?,
            up: matrix("ffn_up_exps", width, counts.width)?,
            down: matrix("ffn_down_exps", counts.width, width)?,
            shared: counts.shared_width.map(shared).transpose()?,
        })
    }
}
