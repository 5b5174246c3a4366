//! Mixtures of experts in all kinds of steps. Which experts a token takes is known to the device alone: nothing here
//! depends on it, so that steps with experts are recorded as others are.
//!
//! Few tokens take matrix-vector kernels, a pair of a token and an expert each. More of them are put together by experts,
//! so that a matrix is read once for the tokens that take it. Plain matrices have no such kernel, and take pairs too.

use kernels_gpu::abi::{MatvecEpilogue, MatvecOrder, VectorFormat};

use super::expert_space::ExpertSpace;
use super::ops::expert_products::Pairs;
use super::ops::experts::Places;
use super::ops::matvec::{Product, Vectors};
use super::pass::Pass;
use super::scales::HalfRows;
use super::weights::{GpuExperts, GpuNetwork};
use crate::backend::ActivationPrecision;
use crate::device::{Buffer, DeviceError, Result};
use crate::model::ExpertCounts;

/// What the launches for experts borrow besides a pass.
#[derive(Clone, Copy)]
pub struct Mixture<'a> {
    pub experts: &'a GpuExperts,
    pub counts: &'a ExpertCounts,
    pub space: &'a ExpertSpace,
    /// The weight of the norm before them.
    pub norm: &'a Buffer,
    pub tokens: usize,
}

impl Mixture<'_> {
    /// Tokens with one of the experts that they take.
    pub fn pairs(&self) -> usize {
        self.tokens * self.counts.used
    }
}

impl<'a> Pass<'a> {
    /// The feed-forward block of block `layer`, which has `experts`, in a step of one token for each of a few sequences,
    /// on the residual stream `x`.
    pub fn decode_experts(
        &self,
        layer: usize,
        experts: &GpuExperts,
        x: &Buffer,
        tokens: usize,
    ) -> Result<()> {
        let mixture = self.mixture(layer, experts, tokens)?;
        self.choose_experts(mixture, x)?;
        let format = match self.activations {
            ActivationPrecision::Q8 => VectorFormat::Q8,
            ActivationPrecision::F16 => VectorFormat::F16,
        };
        self.products_of_pairs(mixture, x, format)?;
        let w = self.workspace;
        let network = self.weights.layers[layer].network.as_ref();
        if let Some(network) = network {
            let vectors = Vectors {
                x,
                count: tokens,
                norm: Some(mixture.norm),
                residual: None,
            };
            self.gated_products(vectors, network)?;
            self.trace
                .f32(self.gated_name(), self.config.ffn_width, &w.gated)?;
            let vectors = Vectors {
                x: &w.gated,
                norm: None,
                ..vectors
            };
            let down = Product::new(&network.down, &w.block_out);
            self.matvec(vectors, &[down], MatvecEpilogue::Store, MatvecOrder::InTurn)?;
            self.trace
                .f32("ffn_shexp", self.config.width, &w.block_out)?;
        }
        self.combine(mixture, x, Places::OfPairs, network)
    }

    /// The feed-forward block of block `layer`, which has `experts`, in a step of any tokens.
    pub fn experts(&self, layer: usize, experts: &GpuExperts, tokens: usize) -> Result<()> {
        let (w, mixture) = (self.workspace, self.mixture(layer, experts, tokens)?);
        self.choose_experts(mixture, &w.x)?;
        let network = self.weights.layers[layer].network.as_ref();
        let is_grouped = self.groups_experts(mixture);
        let normed = match is_grouped || network.is_some() {
            true => Some(self.norm_feed_forward(layer, network, tokens)?),
            false => None,
        };
        let places = match normed {
            Some(normed) if is_grouped => {
                self.products_by_experts(mixture, normed)?;
                Places::ByExperts
            }
            _ => {
                self.products_of_pairs(mixture, &w.x, VectorFormat::F16)?;
                Places::OfPairs
            }
        };
        if let (Some(network), Some(normed)) = (network, normed) {
            self.shared_network(layer, network, normed)?;
        }
        self.combine(mixture, &w.x, places, network)
    }

    fn mixture<'b>(
        &'b self,
        layer: usize,
        experts: &'b GpuExperts,
        tokens: usize,
    ) -> Result<Mixture<'b>> {
        let norm = self.weights.layers[layer].ffn_norm.as_deref();
        let found = (&self.config.experts, &self.workspace.experts, norm);
        let (Some(counts), Some(space), Some(norm)) = found else {
            let what = "a block with experts needs counts, memory and a norm".to_owned();
            return Err(DeviceError::Unsupported(what));
        };
        Ok(Mixture {
            experts,
            counts,
            space,
            norm,
            tokens,
        })
    }

    /// Scores, ids and weights of the tokens `x`.
    fn choose_experts(&self, mixture: Mixture<'_>, x: &Buffer) -> Result<()> {
        let Mixture { counts, space, .. } = mixture;
        self.router_scores(mixture, x)?;
        self.trace
            .f32("ffn_moe_logits", counts.count, &space.scores)?;
        self.choose_by_scores(mixture)?;
        self.spread.restart();
        self.trace.u32("ffn_moe_topk", counts.used, &space.ids)?;
        let name = match counts.normalizes {
            true => "ffn_moe_weights_norm",
            false => "ffn_moe_weights",
        };
        self.trace.f32(name, counts.used, &space.weights)?;
        if mixture.experts.shared_gate.is_some() {
            self.trace.f32("ffn_shexp_gate", 1, &space.shared_weights)?;
        }
        Ok(())
    }

    /// The experts' products of the tokens `x`, each pair by itself.
    fn products_of_pairs(
        &self,
        mixture: Mixture<'_>,
        x: &Buffer,
        format: VectorFormat,
    ) -> Result<()> {
        let Mixture {
            experts,
            counts,
            space,
            ..
        } = mixture;
        let of_token = counts.used * counts.width;
        let pairs = Pairs {
            x,
            norm: Some(mixture.norm),
            sharing: counts.used,
            format,
            ids_are_new: true,
        };
        let (gate, up) = (&experts.gate, &experts.up);
        if gate.all.ty == up.all.ty {
            let epilogue = self.gated_epilogue();
            self.expert_matvec(mixture, pairs, &[gate, up], &space.gated, epilogue)?;
        } else {
            let store = MatvecEpilogue::Store;
            self.expert_matvec(mixture, pairs, &[gate], &space.gate, store)?;
            let pairs = Pairs {
                ids_are_new: false,
                ..pairs
            };
            self.expert_matvec(mixture, pairs, &[up], &space.up, store)?;
            self.gate_pairs(mixture)?;
        }
        self.trace.f32("ffn_moe_swiglu", of_token, &space.gated)?;
        let pairs = Pairs {
            x: &space.gated,
            norm: None,
            sharing: 1,
            format,
            ids_are_new: false,
        };
        let store = MatvecEpilogue::Store;
        self.expert_matvec(mixture, pairs, &[&experts.down], &space.parts, store)?;
        let of_token = counts.used * self.config.width;
        self.trace.f32("ffn_moe_down", of_token, &space.parts)
    }

    /// The experts' products of the tokens `normed`, each expert's tokens together.
    fn products_by_experts(&self, mixture: Mixture<'_>, normed: HalfRows<'_>) -> Result<()> {
        let Mixture {
            experts,
            counts,
            space,
            ..
        } = mixture;
        self.group_pairs(mixture)?;
        self.gather_rows(mixture, normed)?;
        let rows = HalfRows {
            scale: normed.scale,
            ..HalfRows::new(&space.rows, mixture.pairs())
        };
        let (gate, up) = ((&experts.gate, &space.gate), (&experts.up, &space.up));
        if experts.gate.all.ty == experts.up.all.ty {
            self.expert_matmul(mixture, rows, &[gate, up])?;
        } else {
            self.expert_matmul(mixture, rows, &[gate])?;
            self.expert_matmul(mixture, rows, &[up])?;
        }
        self.trace_places("ffn_moe_gate", mixture, counts.width, &space.gate)?;
        self.trace_places("ffn_moe_up", mixture, counts.width, &space.up)?;
        let gated = self.gate_expert_rows(mixture)?;
        self.trace_half_places("ffn_moe_swiglu", mixture, counts.width, gated)?;
        self.expert_matmul(mixture, gated, &[(&experts.down, &space.parts)])?;
        self.trace_places("ffn_moe_down", mixture, self.config.width, &space.parts)
    }

    /// The network that all tokens take, to `block_out`.
    fn shared_network(
        &self,
        layer: usize,
        network: &GpuNetwork,
        normed: HalfRows<'_>,
    ) -> Result<()> {
        let to = &self.workspace.block_out;
        let gated = self.gated_rows(layer, network, normed)?;
        self.multiply(gated, &[Product::new(&network.down, to)], false)?;
        if self.decodes_down(network, normed.count) {
            self.restore_rows(to, normed.count)?;
        }
        self.trace.f32("ffn_shexp", self.config.width, to)
    }

    fn combine(
        &self,
        mixture: Mixture<'_>,
        x: &Buffer,
        places: Places,
        network: Option<&GpuNetwork>,
    ) -> Result<()> {
        self.combine_experts(mixture, x, places, network.is_some())?;
        self.trace_sum("ffn_out", "l_out", x)
    }
}
