//! The reference backend: readable, parallel over the cores, weights left quantized in the mapping.
//! The GPU is held against it.
//!
//! Keys and values are f32. All else is f64: random weights can cancel so well that the rounding of f32
//! activations grows a thousandfold from layer to layer, and a reference should not be what differs.
//!
//! A token's values depend on the tokens before it and on nothing else, bit for bit: not on what runs in the same
//! step, and not on where a prompt was cut into chunks.

mod attention;
mod dot;
mod experts;
mod interrupt;
mod kv_cache;
mod linear;
mod ops;
mod outputs;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rayon::join;

use crate::backend::{
    Backend, BackendError, IN_FLIGHT, Limits, NewTokens, PAGE_TOKENS, Row, RowResult, Ticket,
    TraceSink, Tracer, check_step,
};
use crate::model::{FeedForward, GatedNetwork, Layer, Linear, Model};
use attention::{Attention, attend};
use interrupt::Interrupt;
use kv_cache::{KvCache, Token, tokens_of};
use linear::linear;
use ops::{add_scaled, gated_activation, rms_norm, rms_norm_heads, rotate};
use outputs::{Computed, wanted_tokens};

/// A model on the CPU.
pub struct CpuBackend {
    model: Arc<Model>,
    cache: KvCache,
    interrupt: Interrupt,
    /// Steps so far.
    n_steps: u64,
    /// Steps that nobody has collected, oldest first.
    under_way: VecDeque<(Ticket, Vec<RowResult>)>,
}

impl CpuBackend {
    /// A backend with a KV cache of `n_pages` pages; memory is touched only when a page is used.
    pub fn new(model: Arc<Model>, n_pages: usize) -> CpuBackend {
        let cache = KvCache::new(&model.config, n_pages);
        CpuBackend {
            model,
            cache,
            interrupt: Interrupt::never(),
            n_steps: 0,
            under_way: VecDeque::new(),
        }
    }

    /// The same, whose steps end with [`BackendError::Interrupted`] soon after `flag` is set.
    pub fn interrupted_by(mut self, flag: &'static AtomicBool) -> CpuBackend {
        self.interrupt = Interrupt::by(flag);
        self
    }

    /// The ids of each row's new tokens.
    ///
    /// # Errors
    /// A token of a step that is not under way.
    fn ids(&self, rows: &[Row<'_>]) -> Result<Vec<Vec<u32>>, BackendError> {
        let ids = rows.iter().map(|row| match row.tokens {
            NewTokens::Known(tokens) => Ok(tokens.to_vec()),
            NewTokens::ChosenBy(ticket, index) => {
                let step = self.under_way.iter().find(|(step, _)| *step == ticket);
                let result = step.and_then(|(_, results)| results.get(index));
                let result = result.ok_or(BackendError::Ticket(ticket))?;
                // A failed row's successor is for nothing.
                let token = result.as_ref().ok().and_then(|output| output.token());
                Ok(vec![token.unwrap_or(0)])
            }
        });
        ids.collect()
    }

    /// What `rows`, whose tokens are `ids`, ask for.
    fn forward(
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
                rms_norm(
                    &x[token * width..][..width],
                    norm,
                    self.model.config.rms_eps,
                )
            },
        };
        self.interrupt.check()?;
        Ok(computed.results(rows, ids))
    }

    fn linear(&self, weights: &Linear, x: &[f64]) -> Vec<f64> {
        linear(weights, x, self.interrupt)
    }

    /// The residual stream before the first block, `[tokens, width]`.
    fn embed(&self, tokens: &[Token<'_>], trace: &mut Tracer) -> Vec<f64> {
        let (config, table) = (&self.model.config, &self.model.weights.token_embd);
        let mut embedded = vec![0.0; tokens.len() * config.width];
        for (token, out) in tokens.iter().zip(embedded.chunks_exact_mut(config.width)) {
            let id = token.id as usize;
            table.dequantize_rows(id..id + 1, out);
        }
        let mut x: Vec<f64> = embedded.iter().map(|&value| f64::from(value)).collect();
        trace.tensor("embd", config.width, &mut x);
        if config.embedding_scale != 1.0 {
            let scale = f64::from(config.embedding_scale);
            x.iter_mut().for_each(|value| *value *= scale);
            trace.tensor("inp_scaled", config.width, &mut x);
        }
        x
    }

    /// What a block's products read: `x` normed, where there is a norm, or as it is.
    fn input(
        &self,
        x: &[f64],
        norm: Option<&Vec<f32>>,
        [normed_name, name]: [&'static str; 2],
        trace: &mut Tracer,
    ) -> Vec<f64> {
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
        x: &mut [f64],
        tokens: &[Token<'_>],
        trace: &mut Tracer,
    ) {
        let config = &self.model.config;
        let weights: &Layer = &self.model.weights.layers[layer];
        let (width, head_dim, eps) = (config.width, config.head_dim, config.rms_eps);
        let (q_width, kv_width) = (config.q_width(), config.kv_width());

        let names = ["attn_norm", "attn_input"];
        let normed = self.input(x, weights.attn_norm.as_ref(), names, trace);
        let (mut q, (mut k, mut v)) = join(
            || self.linear(&weights.q, &normed),
            || {
                join(
                    || self.linear(&weights.k, &normed),
                    || self.linear(&weights.v, &normed),
                )
            },
        );
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
        trace.tensor("Qcur", q_width, &mut q);
        trace.tensor("Kcur", kv_width, &mut k);

        self.cache.write(layer, tokens, &k, &v);
        let mut mixed = attend(&Attention {
            config,
            layer,
            cache: &self.cache,
            tokens,
            q: &q,
            interrupt: self.interrupt,
        });
        trace.tensor("kqv_out", q_width, &mut mixed);
        let mut out = self.linear(&weights.attn_output, &mixed);
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
    fn feed_forward_block(&self, layer: usize, x: &mut [f64], trace: &mut Tracer) {
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
    fn network(
        &self,
        network: &GatedNetwork,
        x: &[f64],
        name: &'static str,
        trace: &mut Tracer,
    ) -> Vec<f64> {
        let config = &self.model.config;
        let ffn = config.ffn_width;
        let (mut gate, mut up) = join(
            || self.linear(&network.gate, x),
            || self.linear(&network.up, x),
        );
        trace.tensor("ffn_gate", ffn, &mut gate);
        trace.tensor("ffn_up", ffn, &mut up);
        let gated = gated_activation(config.gate_function(), &mut gate, &up);
        trace.tensor(gated, ffn, &mut gate);
        let mut out = self.linear(&network.down, &gate);
        trace.tensor(name, config.width, &mut out);
        out
    }

    /// Logits of the tokens `wanted`, `[wanted, vocab]`.
    fn logits(&self, x: &[f64], wanted: &[usize], trace: &mut Tracer) -> Vec<f32> {
        let (config, weights) = (&self.model.config, &self.model.weights);
        let width = config.width;
        if trace.wants("norm") {
            trace.tensor(
                "norm",
                width,
                &mut rms_norm(x, &vec![1.0; width], config.rms_eps),
            );
        }
        let wanted_of = |x: &[f64]| -> Vec<f64> {
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
        let mut logits = self.linear(&weights.output, &normed);
        if config.logit_factor != 1.0 {
            let factor = f64::from(config.logit_factor);
            logits.iter_mut().for_each(|logit| *logit *= factor);
        }
        if let Some(cap) = config.logit_softcap.map(f64::from) {
            // What f32 cannot hold stays as it is: the cap would make an infinity look sound.
            let sound = logits
                .iter_mut()
                .filter(|logit| (**logit as f32).is_finite());
            sound.for_each(|logit| *logit = cap * (*logit / cap).tanh());
        }
        trace.tensor("result_output", self.model.vocab(), &mut logits);
        logits.iter().map(|&logit| logit as f32).collect()
    }
}

impl Backend for CpuBackend {
    fn model(&self) -> &Arc<Model> {
        &self.model
    }

    fn limits(&self) -> Limits {
        Limits {
            max_sequences: usize::MAX,
            max_tokens: usize::MAX,
            n_pages: self.cache.n_pages(),
            max_context: self.cache.n_pages() * PAGE_TOKENS,
        }
    }

    fn submit(
        &mut self,
        rows: &[Row<'_>],
        trace: &mut dyn TraceSink,
    ) -> Result<Ticket, BackendError> {
        check_step(self.model.vocab(), self.limits(), rows)?;
        if self.under_way.len() >= IN_FLIGHT {
            return Err(BackendError::InFlight);
        }
        let ids = self.ids(rows)?;
        // All of it on a thread of the pool: any other would sleep through each of the hundreds of
        // parallel loops and be woken after it.
        let results = rayon::scope(|_| self.forward(rows, &ids, &mut Tracer::new(trace)))?;
        let ticket = Ticket(self.n_steps);
        self.n_steps += 1;
        self.under_way.push_back((ticket, results));
        Ok(ticket)
    }

    fn collect(&mut self, ticket: Ticket) -> Result<Vec<RowResult>, BackendError> {
        match self.under_way.front() {
            Some(&(oldest, _)) if oldest == ticket => {}
            _ => return Err(BackendError::Ticket(ticket)),
        }
        let step = self.under_way.pop_front();
        Ok(step.map_or_else(Vec::new, |(_, results)| results))
    }

    fn kv_element_bytes(&self) -> usize {
        size_of::<f32>()
    }

    fn description(&self) -> String {
        format!("cpu, {} threads", rayon::current_num_threads())
    }
}
