//! The parts of a transformer block in which all steps that multiply in f16 are alike: everything but
//! attention.

use kernels_gpu::abi::AddParams;
use kernels_gpu::ops::elementwise::{ADD_F32, GEGLU_F32_F16, SWIGLU_F32_F16};
use kernels_gpu::ops::norm::RMS_NORM_F32;

use super::GpuBackend;
use super::launcher::{Geometry, untyped};
use super::matvec::Product;
use super::operations::norm_block;
use super::trace::DeviceTracer;
use super::weights::GpuLinear;
use crate::device::{Buffer, Result};
use crate::model::Activation;

impl GpuBackend {
    /// The attention norm and then Q, K and V of the step's `n_tokens` tokens, with their biases.
    pub(super) fn project(
        &self,
        layer: usize,
        n_tokens: usize,
        trace: &mut DeviceTracer<'_>,
    ) -> Result<()> {
        let (config, w) = (&self.model.config, &self.workspace);
        let weights = &self.weights.layers[layer];
        let (width, q_width, kv_width) = (config.width, config.q_width(), config.kv_width());

        self.norm_rows(&w.x, 0, &weights.attn_norm, n_tokens)?;
        trace.f16("attn_norm", width, &w.normed)?;
        let products = [
            Product::new(&weights.q, &w.q),
            Product::new(&weights.k, &w.k),
            Product::new(&weights.v, &w.v),
        ];
        self.multiply(&w.normed, n_tokens, &products, false)?;
        trace.f32("Qcur_raw", q_width, &w.q)?;
        trace.f32("Kcur_raw", kv_width, &w.k)?;
        trace.f32("Vcur", kv_width, &w.v)
    }

    /// What attention found, f16, through its output matrix and into the residual stream.
    pub(super) fn add_attention(
        &self,
        layer: usize,
        n_tokens: usize,
        trace: &mut DeviceTracer<'_>,
    ) -> Result<()> {
        let (config, w) = (&self.model.config, &self.workspace);
        let weights = &self.weights.layers[layer];
        trace.f16("kqv_out", config.q_width(), &w.mixed)?;
        let names = match weights.post_attn_norm {
            Some(_) => ["attn_out", "attn_post_norm", "sa_out"],
            None => ["attn_out", "attn_out", "ffn_inp"],
        };
        let post_norm = weights.post_attn_norm.as_deref();
        self.add_block(
            &weights.attn_output,
            &w.mixed,
            post_norm,
            n_tokens,
            names,
            trace,
        )
    }

    /// The feed-forward network of the step's `n_tokens` tokens.
    pub(super) fn feed_forward(
        &self,
        layer: usize,
        n_tokens: usize,
        trace: &mut DeviceTracer<'_>,
    ) -> Result<()> {
        let (config, w) = (&self.model.config, &self.workspace);
        let weights = &self.weights.layers[layer];
        let (width, ffn) = (config.width, config.ffn_width);

        self.norm_rows(&w.x, 0, &weights.ffn_norm, n_tokens)?;
        trace.f16("ffn_norm", width, &w.normed)?;
        let products = [
            Product::new(&weights.ffn_gate, &w.gate),
            Product::new(&weights.ffn_up, &w.up),
        ];
        self.multiply(&w.normed, n_tokens, &products, false)?;
        trace.f32("ffn_gate", ffn, &w.gate)?;
        trace.f32("ffn_up", ffn, &w.up)?;
        let (kernel, name) = match config.activation() {
            Activation::Silu => (SWIGLU_F32_F16, "ffn_swiglu"),
            Activation::GeluTanh => (GEGLU_F32_F16, "ffn_geglu"),
        };
        self.gate(&kernel, n_tokens)?;
        trace.f16(name, ffn, &w.gated)?;
        let post_norm = weights.post_ffn_norm.as_deref();
        let names = ["ffn_out", "ffn_post_norm", "l_out"];
        self.add_block(
            &weights.ffn_down,
            &w.gated,
            post_norm,
            n_tokens,
            names,
            trace,
        )
    }

    /// Adds a block's last product to the residual stream, normed where the architecture says so.
    /// `names` are those of the product, of its norm and of the sum.
    fn add_block(
        &self,
        linear: &GpuLinear,
        input: &Buffer,
        post_norm: Option<&Buffer>,
        n_tokens: usize,
        [product_name, norm_name, sum_name]: [&'static str; 3],
        trace: &mut DeviceTracer<'_>,
    ) -> Result<()> {
        let (width, w) = (self.model.config.width, &self.workspace);
        let Some(post_norm) = post_norm else {
            self.multiply(input, n_tokens, &[Product::new(linear, &w.x)], true)?;
            return trace.residual_and_addend(product_name, sum_name, width, &w.x);
        };
        let product = Product::new(linear, &w.block_out);
        self.multiply(input, n_tokens, &[product], false)?;
        trace.f32(product_name, width, &w.block_out)?;
        let params = self.norm_params(&w.block_out, 0, post_norm, &w.block_normed);
        let geometry = Geometry::new([n_tokens as u32, 1, 1], norm_block(width));
        // SAFETY: all three have `n_tokens` rows of `width`, and the weight `width` elements.
        unsafe { self.launcher.launch(&RMS_NORM_F32, geometry, &params) }?;
        trace.f32(norm_name, width, &w.block_normed)?;
        let n = (n_tokens * width) as u32;
        let params = AddParams {
            a: untyped(&w.x),
            b: untyped(&w.block_normed),
            y: untyped(&w.x),
            n,
            reserved: 0,
        };
        let geometry = Geometry::new([n.div_ceil(256), 1, 1], 256);
        // SAFETY: both have `n` elements.
        unsafe { self.launcher.launch(&ADD_F32, geometry, &params) }?;
        trace.residual(sum_name, width, &w.x)
    }
}
