//! The parts of a transformer block in which all steps that multiply in f16 are alike: everything but
//! attention.

use kernels_gpu::abi::{AddParams, DevicePtr, RmsNormParams};
use kernels_gpu::ops::elementwise::ADD_F32;
use kernels_gpu::ops::norm::RMS_NORM_F32;

use super::GpuBackend;
use super::launcher::{Geometry, at, untyped};
use super::matvec::Product;
use super::operations::{Norm, norm_block};
use super::scales::HalfRows;
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

        let norm = Norm {
            x_scales: self.stream_scales(layer, n_tokens),
            ..Norm::new(&weights.attn_norm, self.norm_scales.attn[layer])
        };
        let normed = self.norm_rows(&w.x, 0, norm, n_tokens)?;
        trace.half_rows("attn_norm", width, normed)?;
        let products = [
            Product::new(&weights.q, &w.q),
            Product::new(&weights.k, &w.k),
            Product::new(&weights.v, &w.v),
        ];
        self.multiply(normed, &products, false)?;
        trace.f32("Qcur_raw", q_width, &w.q)?;
        trace.f32("Kcur_raw", kv_width, &w.k)?;
        trace.f32("Vcur", kv_width, &w.v)
    }

    /// What the rows of the residual stream were divided by when block `layer` finds them, where they were.
    pub(super) fn stream_scales(&self, layer: usize, n_tokens: usize) -> Option<&Buffer> {
        let left = layer > 0 && self.leaves_scaled(layer - 1, n_tokens);
        left.then_some(&self.workspace.gated_scales)
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
            HalfRows::new(&w.mixed, n_tokens),
            post_norm,
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

        let maxima = self
            .knows_gate_maxima(layer, n_tokens)
            .then_some(&w.gated_maxima);
        let norm = Norm {
            cleared: maxima,
            ..Norm::new(&weights.ffn_norm, self.norm_scales.ffn[layer])
        };
        let normed = self.norm_rows(&w.x, 0, norm, n_tokens)?;
        trace.half_rows("ffn_norm", width, normed)?;
        let products = [
            Product::new(&weights.ffn_gate, &w.gate),
            Product::new(&weights.ffn_up, &w.up),
        ];
        self.multiply(HalfRows { maxima, ..normed }, &products, false)?;
        trace.f32("ffn_gate", ffn, &w.gate)?;
        trace.f32("ffn_up", ffn, &w.up)?;
        let name = match config.activation() {
            Activation::Silu => "ffn_swiglu",
            Activation::GeluTanh => "ffn_geglu",
        };
        let gated = self.gate_rows(layer, n_tokens)?;
        trace.half_rows(name, ffn, gated)?;
        let post_norm = weights.post_ffn_norm.as_deref();
        let names = ["ffn_out", "ffn_post_norm", "l_out"];
        self.add_block(&weights.ffn_down, gated, post_norm, names, trace)
    }

    /// Adds a block's last product to the residual stream, normed where the architecture says so.
    /// `names` are those of the product, of its norm and of the sum.
    fn add_block(
        &self,
        linear: &GpuLinear,
        input: HalfRows<'_>,
        post_norm: Option<&Buffer>,
        [product_name, norm_name, sum_name]: [&'static str; 3],
        trace: &mut DeviceTracer<'_>,
    ) -> Result<()> {
        let (width, w, n_tokens) = (self.model.config.width, &self.workspace, input.count);
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
        if scales.is_some() && trace.is_active() {
            self.restore_rows(to, n_tokens)?;
        }
        let Some(post_norm) = post_norm else {
            return trace.residual_and_addend(product_name, sum_name, width, &w.x);
        };
        trace.f32(product_name, width, &w.block_out)?;
        let params = RmsNormParams {
            x_scales: scales.map_or(DevicePtr::NULL, |scales| at(scales, 0)),
            ..self.norm_params(&w.block_out, 0, post_norm, &w.block_normed)
        };
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
