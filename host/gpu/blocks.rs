//! The parts of a transformer block in which all steps that multiply in f16 are alike: everything but
//! attention.

use super::ops::matvec::Product;
use super::ops::norm::Norm;
use super::pass::Pass;
use super::scales::HalfRows;
use super::weights::{GpuLinear, GpuNetwork};
use crate::device::{Buffer, Result};
use crate::model::GateFunction;

impl Pass<'_> {
    /// The attention norm and then Q, K and V of the step's `n_tokens` tokens, with their biases and the norms of all
    /// heads together.
    pub fn project(&self, layer: usize, n_tokens: usize) -> Result<()> {
        let (config, w) = (self.config, self.workspace);
        let weights = &self.weights.layers[layer];
        let (width, q_width, kv_width) = (config.width, config.q_width(), config.kv_width());

        let norm = Norm {
            x_scales: self.stream_scales(layer, n_tokens),
            ..Norm::new(weights.attn_norm.as_deref(), self.norm_scales.attn[layer])
        };
        let normed = self.norm_rows(&w.x, 0, norm, n_tokens)?;
        let name = weights
            .attn_norm
            .as_ref()
            .map_or("attn_input", |_| "attn_norm");
        self.trace.half_rows(name, width, normed)?;
        let products = [
            Product::new(&weights.q, &w.q),
            Product::new(&weights.k, &w.k),
            Product::new(&weights.v, &w.v),
        ];
        self.multiply(normed, &products, false)?;
        self.trace.f32("Qcur_raw", q_width, &w.q)?;
        self.trace.f32("Kcur_raw", kv_width, &w.k)?;
        self.trace.f32("Vcur", kv_width, &w.v)?;
        self.norm_projections(layer, n_tokens)
    }

    /// What the rows of the residual stream were divided by when block `layer` finds them, where they were.
    pub fn stream_scales(&self, layer: usize, n_tokens: usize) -> Option<&Buffer> {
        let left = layer > 0 && self.leaves_scaled(layer - 1, n_tokens);
        left.then_some(&self.workspace.gated_scales)
    }

    /// What attention found, f16, through its output matrix and into the residual stream.
    pub fn add_attention(&self, layer: usize, n_tokens: usize) -> Result<()> {
        let (config, w) = (self.config, self.workspace);
        let weights = &self.weights.layers[layer];
        self.trace.f16("kqv_out", config.q_width(), &w.mixed)?;
        let names = match weights.post_attn_norm {
            Some(_) => ["attn_out", "attn_post_norm", "sa_out"],
            None => ["attn_out", "attn_out", "ffn_inp"],
        };
        let post_norm = weights.post_attn_norm.as_deref();
        self.add_block(
            &weights.attn_output,
            HalfRows::new(&w.mixed, n_tokens),
            post_norm,
            names,
        )
    }

    /// The feed-forward block of the step's `n_tokens` tokens.
    pub fn feed_forward(&self, layer: usize, n_tokens: usize) -> Result<()> {
        let weights = &self.weights.layers[layer];
        match (&weights.experts, &weights.network) {
            (Some(experts), _) => self.experts(layer, experts, n_tokens),
            (None, Some(network)) => self.network(layer, network, n_tokens),
            (None, None) => Ok(()),
        }
    }

    /// A network that is the whole block.
    fn network(&self, layer: usize, network: &GpuNetwork, n_tokens: usize) -> Result<()> {
        let weights = &self.weights.layers[layer];
        let normed = self.norm_feed_forward(layer, Some(network), n_tokens)?;
        let gated = self.gated_rows(layer, network, normed)?;
        let post_norm = weights.post_ffn_norm.as_deref();
        let names = ["ffn_out", "ffn_post_norm", "l_out"];
        self.add_block(&network.down, gated, post_norm, names)
    }

    /// What a feed-forward block multiplies; the maxima of the products of `network` are cleared.
    pub fn norm_feed_forward(
        &self,
        layer: usize,
        network: Option<&GpuNetwork>,
        n_tokens: usize,
    ) -> Result<HalfRows<'_>> {
        let (w, weights) = (self.workspace, &self.weights.layers[layer]);
        let knows_maxima = network.is_some_and(|n| self.knows_gate_maxima(n, n_tokens));
        let maxima = knows_maxima.then_some(&w.gated_maxima);
        let norm = Norm {
            cleared: maxima,
            ..Norm::new(weights.ffn_norm.as_deref(), self.norm_scales.ffn[layer])
        };
        let normed = self.norm_rows(&w.x, 0, norm, n_tokens)?;
        let name = weights
            .ffn_norm
            .as_ref()
            .map_or("ffn_input", |_| "ffn_norm");
        self.trace.half_rows(name, self.config.width, normed)?;
        Ok(HalfRows { maxima, ..normed })
    }

    /// The gated products of `network` with `normed`.
    pub fn gated_rows(
        &self,
        layer: usize,
        network: &GpuNetwork,
        normed: HalfRows<'_>,
    ) -> Result<HalfRows<'_>> {
        let (w, ffn) = (self.workspace, self.config.ffn_width);
        let products = [
            Product::new(&network.gate, &w.gate),
            Product::new(&network.up, &w.up),
        ];
        self.multiply(normed, &products, false)?;
        self.trace.f32("ffn_gate", ffn, &w.gate)?;
        self.trace.f32("ffn_up", ffn, &w.up)?;
        let gated = self.gate_rows(layer, network, normed.count)?;
        self.trace.half_rows(self.gated_name(), ffn, gated)?;
        Ok(gated)
    }

    /// llama.cpp's name of gated activations.
    pub fn gated_name(&self) -> &'static str {
        match self.config.gate_function() {
            GateFunction::Silu => "ffn_swiglu",
            GateFunction::GeluTanh => "ffn_geglu",
        }
    }

    /// Adds a block's last product to the residual stream, normed where the architecture says so.
    /// `names` are those of the product, of its norm and of the sum.
    fn add_block(
        &self,
        linear: &GpuLinear,
        input: HalfRows<'_>,
        post_norm: Option<&Buffer>,
        [product_name, norm_name, sum_name]: [&'static str; 3],
    ) -> Result<()> {
        let (width, w, n_tokens) = (self.config.width, &self.workspace, input.count);
        let to = match post_norm {
            None => &w.x,
            Some(_) => &w.block_out,
        };
        let product = Product::new(linear, to);
        self.multiply(input, &[product], post_norm.is_none())?;
        // What cuBLAS left to the norm that comes next.
        let scales = input
            .scales
            .filter(|_| self.matmul_plan(&[product], n_tokens).is_none());
        if scales.is_some() && self.trace.is_active() {
            self.restore_rows(to, n_tokens)?;
        }
        let Some(post_norm) = post_norm else {
            return self.trace_sum(product_name, sum_name, &w.x);
        };
        self.trace.f32(product_name, width, &w.block_out)?;
        self.norm_block_output(post_norm, scales, n_tokens)?;
        self.trace.f32(norm_name, width, &w.block_normed)?;
        self.add_block_output(n_tokens)?;
        self.trace_stream(sum_name, &w.x)
    }
}
