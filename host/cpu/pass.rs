//! A step through the model, in either arithmetic.

use super::arithmetic::{Arithmetic, Value};
use super::attention::Attention;
use super::interrupt::Interrupt;
use super::kv_cache::{KvCache, Token, tokens_of};
use super::ops::{add_scaled, rms_norm, rms_norm_heads, rotate, scale, temper};
use super::outputs::{Computed, wanted_tokens};
use crate::backend::{BackendError, Row, RowResult, Tracer};
use crate::model::{FeedForward, GateFunction, GatedNetwork, Layer, Linear, Model};

/// What a step needs.
pub struct Pass<'a, A> {
    /// The model.
    pub model: &'a Model,
    /// Its keys and values, in the arithmetic's order.
    pub cache: &'a mut KvCache,
    /// Once it is requested, the step ends.
    pub interrupt: Interrupt,
    /// How it computes.
    pub arithmetic: A,
}

impl<A: Arithmetic> Pass<'_, A> {
    /// What `rows`, whose tokens are `ids`, ask for.
    pub fn forward(
        &mut self,
        rows: &[Row<'_>],
        ids: &[Vec<u32>],
        trace: &mut Tracer,
    ) -> Result<Vec<RowResult>, BackendError> {
        let tokens = tokens_of(rows, ids);
        let mut x = self.embed(&tokens, trace);
        for layer in 0..self.model.config.n_layers {
            trace.layer = Some(layer);
            self.attention_block(layer, &mut x, &tokens, trace);
            self.feed_forward_block(layer, &mut x, trace);
            // What was skipped when the flag was set is not the model's: it must not get further.
            self.interrupt.check()?;
        }
        trace.layer = None;
        let computed = Computed {
            logits: self.logits(&x, &wanted_tokens(rows), trace),
            vocab: self.model.vocab(),
            hidden: &|token| {
                let width = self.model.config.width;
                let norm = &self.model.weights.output_norm;
                let x = &x[token * width..][..width];
                let normed = rms_norm(x, norm, self.model.config.rms_eps);
                normed.into_iter().map(Into::into).collect()
            },
        };
        self.interrupt.check()?;
        Ok(computed.results(rows, ids))
    }

    pub(super) fn linears<const N: usize>(
        &self,
        matrices: [&Linear; N],
        x: &[A::Value],
    ) -> [Vec<A::Value>; N] {
        self.arithmetic.linears(matrices, x, self.interrupt)
    }

    /// The residual stream before the first block, `[tokens, width]`.
    fn embed(&self, tokens: &[Token<'_>], trace: &mut Tracer) -> Vec<A::Value> {
        let (config, table) = (&self.model.config, &self.model.weights.token_embd);
        let mut embedded = vec![0.0; tokens.len() * config.width];
        for (token, out) in tokens.iter().zip(embedded.chunks_exact_mut(config.width)) {
            let id = token.id as usize;
            table.dequantize_rows(id..id + 1, out);
        }
        let mut x: Vec<A::Value> = embedded.into_iter().map(Into::into).collect();
        trace.tensor("embd", config.width, &mut x);
        if config.embedding_scale != 1.0 {
            scale(&mut x, config.embedding_scale);
            trace.tensor("inp_scaled", config.width, &mut x);
        }
        x
    }

    /// What a block's products read: `x` normed, where there is a norm, or as it is.
    fn input(
        &self,
        x: &[A::Value],
        norm: Option<&Vec<f32>>,
        [normed_name, name]: [&'static str; 2],
        trace: &mut Tracer,
    ) -> Vec<A::Value> {
        let config = &self.model.config;
        let (name, mut input) = match norm {
            Some(norm) => (normed_name, rms_norm(x, norm, config.rms_eps)),
            None => (name, x.to_vec()),
        };
        trace.tensor(name, config.width, &mut input);
        input
    }

    /// `x += attention(norm(x))`, with norms before and after attention where the architecture has them.
    fn attention_block(
        &mut self,
        layer: usize,
        x: &mut [A::Value],
        tokens: &[Token<'_>],
        trace: &mut Tracer,
    ) {
        let config = &self.model.config;
        let weights: &Layer = &self.model.weights.layers[layer];
        let (width, head_dim, eps) = (config.width, config.head_dim, config.rms_eps);
        let (q_width, kv_width) = (config.q_width(), config.kv_width());

        let names = ["attn_norm", "attn_input"];
        let normed = self.input(x, weights.attn_norm.as_ref(), names, trace);
        let [mut q, mut k, mut v] = self.linears([&weights.q, &weights.k, &weights.v], &normed);
        trace.tensor("Qcur_raw", q_width, &mut q);
        trace.tensor("Kcur_raw", kv_width, &mut k);
        trace.tensor("Vcur", kv_width, &mut v);
        if let (Some(q_norm), Some(k_norm)) = (&weights.q_norm, &weights.k_norm) {
            rms_norm_heads(&mut q, q_norm, eps);
            rms_norm_heads(&mut k, k_norm, eps);
            trace.tensor("Qcur_normed", q_width, &mut q);
            trace.tensor("Kcur_normed", kv_width, &mut k);
        }
        if let Some(rope) = config.rope(layer) {
            rotate(&mut q, tokens, config.n_heads, head_dim, rope);
            rotate(&mut k, tokens, config.n_kv_heads, head_dim, rope);
        }
        if let Some(temperature) = config.query_temperature {
            temper(&mut q, tokens, q_width, temperature);
        }
        trace.tensor("Qcur", q_width, &mut q);
        trace.tensor("Kcur", kv_width, &mut k);

        self.cache.write(layer, tokens, &k, &v);
        let mut mixed = self.arithmetic.attend(&Attention {
            config,
            layer,
            cache: self.cache,
            tokens,
            q: &q,
            interrupt: self.interrupt,
        });
        trace.tensor("kqv_out", q_width, &mut mixed);
        let [mut out] = self.linears([&weights.attn_output], &mixed);
        trace.tensor("attn_out", width, &mut out);
        let mut sum_name = "ffn_inp";
        if let Some(post_norm) = &weights.post_attn_norm {
            out = rms_norm(&out, post_norm, eps);
            trace.tensor("attn_post_norm", width, &mut out);
            sum_name = "sa_out";
        }
        add_scaled(x, &out, config.residual_scale);
        trace.tensor(sum_name, width, x);
    }

    /// `x += network(norm(x))`, with norms as for attention.
    fn feed_forward_block(&self, layer: usize, x: &mut [A::Value], trace: &mut Tracer) {
        let config = &self.model.config;
        let weights: &Layer = &self.model.weights.layers[layer];
        let (width, eps) = (config.width, config.rms_eps);

        let mut out = match &weights.ffn {
            FeedForward::Dense(network) => {
                let names = ["ffn_norm", "ffn_input"];
                let normed = self.input(x, weights.ffn_norm.as_ref(), names, trace);
                self.network(network, &normed, "ffn_out", trace)
            }
            FeedForward::Experts(experts) => {
                self.experts(experts, x, weights.ffn_norm.as_ref(), trace)
            }
        };
        if let Some(post_norm) = &weights.post_ffn_norm {
            out = rms_norm(&out, post_norm, eps);
            trace.tensor("ffn_post_norm", width, &mut out);
        }
        add_scaled(x, &out, config.residual_scale);
        trace.tensor("l_out", width, x);
    }

    /// `down(activation(gate(x)) * up(x))`, reported as `name`.
    pub(super) fn network(
        &self,
        network: &GatedNetwork,
        x: &[A::Value],
        name: &'static str,
        trace: &mut Tracer,
    ) -> Vec<A::Value> {
        let config = &self.model.config;
        let ffn = config.ffn_width;
        let [mut gate, mut up] = self.linears([&network.gate, &network.up], x);
        trace.tensor("ffn_gate", ffn, &mut gate);
        trace.tensor("ffn_up", ffn, &mut up);
        self.arithmetic.gate(config.gate_function(), &mut gate, &up);
        let gated = match config.gate_function() {
            GateFunction::Silu => "ffn_swiglu",
            GateFunction::GeluTanh => "ffn_geglu",
        };
        trace.tensor(gated, ffn, &mut gate);
        let [mut out] = self.linears([&network.down], &gate);
        trace.tensor(name, config.width, &mut out);
        out
    }

    /// Logits of the tokens `wanted`, `[wanted, vocab]`.
    fn logits(&self, x: &[A::Value], wanted: &[usize], trace: &mut Tracer) -> Vec<f32> {
        let (config, weights) = (&self.model.config, &self.model.weights);
        let width = config.width;
        if trace.wants("norm") {
            trace.tensor(
                "norm",
                width,
                &mut rms_norm(x, &vec![1.0; width], config.rms_eps),
            );
        }
        let wanted_of = |x: &[A::Value]| -> Vec<A::Value> {
            let rows = wanted.iter().map(|&row| &x[row * width..][..width]);
            rows.flatten().copied().collect()
        };
        let normed = if trace.wants("result_norm") {
            let mut all = rms_norm(x, &weights.output_norm, config.rms_eps);
            trace.tensor("result_norm", width, &mut all);
            wanted_of(&all)
        } else {
            rms_norm(&wanted_of(x), &weights.output_norm, config.rms_eps)
        };
        let [mut logits] = self.linears([&weights.output], &normed);
        if config.logit_factor != 1.0 {
            scale(&mut logits, config.logit_factor);
        }
        if let Some(cap) = config.logit_softcap.map(f64::from) {
            for logit in &mut logits {
                let value: f64 = (*logit).into();
                // What f32 cannot hold stays as it is: the cap would make an infinity look sound.
                if (value as f32).is_finite() {
                    *logit = A::Value::of(cap * (value / cap).tanh());
                }
            }
        }
        trace.tensor("result_output", self.model.vocab(), &mut logits);
        logits.iter().map(|&logit| logit.into() as f32).collect()
    }
}
