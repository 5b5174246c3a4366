//! Steps of one new token for each of some sequences, up to [`Q8_SEQUENCES`]: products in 8 bits on integer tensor
//! cores, which read a matrix once for all of them. For models whose matrices are all of types with kernels for it.

use super::graphs::GraphKey;
use super::ops::attention_decode::MixedType;
use super::ops::matvec::Product;
use super::ops::q8_rows::Q8Rows;
use super::pass::Pass;
use super::weights::{GpuLinear, GpuNetwork};
#[cfg(doc)]
use super::workspace::Q8_SEQUENCES;
use crate::backend::Row;
use crate::device::{Buffer, Result};
use crate::model::GateFunction;

impl Pass<'_> {
    /// Sends the kernels of a step of one token for each sequence.
    pub fn send_decode_q8(&self, key: GraphKey, rows: &[Row<'_>]) -> Result<()> {
        self.embed(key.n)?;
        for layer in 0..self.config.n_layers {
            self.trace.layer.set(Some(layer));
            self.decode_q8_layer(layer, key, rows)?;
        }
        self.trace.layer.set(None);
        let normed = self.q8_normed(Some(&self.weights.output_norm), key.n)?;
        let head = Product::new(&self.weights.output, &self.workspace.logits);
        self.multiply_q8(normed, &[head], false)?;
        self.cap_logits(key.n)?;
        self.choose(key.n, key.choosing, key.moves_on())
    }

    fn decode_q8_layer(&self, layer: usize, key: GraphKey, rows: &[Row<'_>]) -> Result<()> {
        let (config, w, n) = (self.config, self.workspace, key.n);
        let weights = &self.weights.layers[layer];
        let (q_width, kv_width) = (config.q_width(), config.kv_width());

        let input = self.q8_normed(weights.attn_norm.as_deref(), n)?;
        let products = [
            Product::new(&weights.q, &w.q),
            Product::new(&weights.k, &w.k),
            Product::new(&weights.v, &w.v),
        ];
        self.multiply_q8(input, &products, false)?;
        self.trace.f32("Qcur_raw", q_width, &w.q)?;
        self.trace.f32("Kcur_raw", kv_width, &w.k)?;
        self.trace.f32("Vcur", kv_width, &w.v)?;
        self.norm_projections(layer, n)?;

        if key.has_drafts {
            self.rotate_and_cache(layer, 0..n)?;
        }
        self.decode_attention(layer, key.splits, MixedType::F32, rows, key.has_drafts)?;
        self.trace_cache(layer, rows)?;
        self.trace.f32("kqv_out", q_width, &w.mixed)?;
        let names = match weights.post_attn_norm {
            Some(_) => ["attn_out", "attn_post_norm", "sa_out"],
            None => ["attn_out", "attn_out", "ffn_inp"],
        };
        let mixed = self.q8_rows(&w.mixed, q_width, n)?;
        let post_norm = weights.post_attn_norm.as_deref();
        self.add_q8(mixed, &weights.attn_output, post_norm, names)?;

        // Models that take this step have no experts.
        match &weights.network {
            Some(network) => self.decode_q8_network(layer, network, n),
            None => Ok(()),
        }
    }

    fn decode_q8_network(&self, layer: usize, network: &GpuNetwork, n: usize) -> Result<()> {
        let (config, w) = (self.config, self.workspace);
        let weights = &self.weights.layers[layer];
        let input = self.q8_normed(weights.ffn_norm.as_deref(), n)?;
        let products = [
            Product::new(&network.gate, &w.gate),
            Product::new(&network.up, &w.up),
        ];
        self.multiply_q8(input, &products, false)?;
        self.trace.f32("ffn_gate", config.ffn_width, &w.gate)?;
        self.trace.f32("ffn_up", config.ffn_width, &w.up)?;
        let gated = self.q8_gated(n)?;
        let name = match config.gate_function() {
            GateFunction::Silu => "ffn_swiglu",
            GateFunction::GeluTanh => "ffn_geglu",
        };
        self.trace.f32(name, config.ffn_width, &w.gated)?;
        let post_norm = weights.post_ffn_norm.as_deref();
        let names = ["ffn_out", "ffn_post_norm", "l_out"];
        self.add_q8(gated, &network.down, post_norm, names)
    }

    /// Adds a block's last product to the residual stream, normed where the architecture says so. `names` are those of
    /// the product, of its norm and of the sum.
    fn add_q8(
        &self,
        input: Q8Rows,
        linear: &GpuLinear,
        post_norm: Option<&Buffer>,
        [product_name, norm_name, sum_name]: [&'static str; 3],
    ) -> Result<()> {
        let (width, w) = (self.config.width, self.workspace);
        let Some(post_norm) = post_norm else {
            self.multiply_q8(input, &[Product::new(linear, &w.x)], true)?;
            return self.trace_sum(product_name, sum_name, &w.x);
        };
        self.multiply_q8(input, &[Product::new(linear, &w.block_out)], false)?;
        self.trace.f32(product_name, width, &w.block_out)?;
        self.norm_block_output(post_norm, None, input.count)?;
        self.trace.f32(norm_name, width, &w.block_normed)?;
        self.add_block_output(input.count)?;
        self.trace_stream(sum_name, &w.x)
    }
}
