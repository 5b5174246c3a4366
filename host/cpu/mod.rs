//! The reference backend: readable, parallel over the cores, weights left quantized in the mapping.
//! The GPU is held against it.
//!
//! Keys and values of earlier steps are f32, and so are a single token's matrix products. All else
//! is f64: random weights can cancel so well that the rounding of f32 activations grows a
//! thousandfold from layer to layer, and a reference should not be what differs.

mod attention;
mod dot;
mod interrupt;
mod kv_cache;
mod linear;
mod ops;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rayon::join;

use crate::backend::{
    Backend, BackendError, Output, SequenceStep, TraceSink, Tracer, Want, check_step,
};
use crate::model::{Layer, Linear, Model};
use crate::sampling::argmax;
use attention::{Attention, attend};
use interrupt::Interrupt;
use kv_cache::{KvCache, Row, rows_of};
use linear::linear;
use ops::{add, gated_activation, rms_norm, rms_norm_heads, rotate};

/// A model on the CPU.
pub struct CpuBackend {
    model: Arc<Model>,
    cache: KvCache,
    interrupt: Interrupt,
}

impl CpuBackend {
    /// A backend with a KV cache of `n_pages` pages; memory is touched only when a page is used.
    pub fn new(model: Arc<Model>, n_pages: usize) -> CpuBackend {
        let cache = KvCache::new(&model.config, n_pages);
        CpuBackend {
            model,
            cache,
            interrupt: Interrupt::never(),
        }
    }

    /// The same, whose steps end with [`BackendError::Interrupted`] soon after `flag` is set.
    pub fn interrupted_by(mut self, flag: &'static AtomicBool) -> CpuBackend {
        self.interrupt = Interrupt::by(flag);
        self
    }

    /// Logits of the rows that `sequences` want, `[wanted, vocab]`.
    fn forward(
        &mut self,
        sequences: &[SequenceStep<'_>],
        trace: &mut Tracer,
    ) -> Result<Vec<f32>, BackendError> {
        let rows = rows_of(sequences);
        let mut x = self.embed(&rows, trace);
        for layer in 0..self.model.config.n_layers {
            trace.layer = Some(layer);
            self.attention_block(layer, &mut x, &rows, sequences, trace);
            self.feed_forward_block(layer, &mut x, trace);
            // What was skipped when the flag was set is not the model's: it must not get further.
            self.interrupt.check()?;
        }
        trace.layer = None;
        let logits = self.logits(&x, &wanted_rows(sequences), trace);
        self.interrupt.check()?;
        Ok(logits)
    }

    fn linear(&self, weights: &Linear, x: &[f64]) -> Vec<f64> {
        linear(weights, x, self.interrupt)
    }

    /// The residual stream before the first block, `[tokens, width]`.
    fn embed(&self, rows: &[Row], trace: &mut Tracer) -> Vec<f64> {
        let (config, table) = (&self.model.config, &self.model.weights.token_embd);
        let mut embedded = vec![0.0; rows.len() * config.width];
        for (row, out) in rows.iter().zip(embedded.chunks_exact_mut(config.width)) {
            let token = row.token as usize;
            table.dequantize_rows(token..token + 1, out);
        }
        let mut x: Vec<f64> = embedded.iter().map(|&value| f64::from(value)).collect();
        trace.tensor("embd", config.width, &mut x);
        if config.arch.scale_embeddings {
            let scale = f64::from(config.embedding_scale);
            x.iter_mut().for_each(|value| *value *= scale);
            trace.tensor("inp_scaled", config.width, &mut x);
        }
        x
    }

    /// `x += attention(norm(x))`, with the norm after attention where the architecture has it.
    fn attention_block(
        &mut self,
        layer: usize,
        x: &mut [f64],
        rows: &[Row],
        sequences: &[SequenceStep<'_>],
        trace: &mut Tracer,
    ) {
        let config = &self.model.config;
        let weights: &Layer = &self.model.weights.layers[layer];
        let (width, head_dim, eps) = (config.width, config.head_dim, config.rms_eps);
        let (q_width, kv_width) = (config.q_width(), config.kv_width());

        let mut normed = rms_norm(x, &weights.attn_norm, eps);
        trace.tensor("attn_norm", width, &mut normed);
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
        let rope = config.rope(layer);
        rotate(&mut q, rows, config.n_heads, head_dim, rope);
        rotate(&mut k, rows, config.n_kv_heads, head_dim, rope);
        trace.tensor("Qcur", q_width, &mut q);
        trace.tensor("Kcur", kv_width, &mut k);

        self.cache.write(layer, rows, &k, &v);
        let mut mixed = attend(&Attention {
            config,
            layer,
            cache: &self.cache,
            rows,
            sequences,
            q: &q,
            k: &k,
            v: &v,
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
        add(x, &out);
        trace.tensor(sum_name, width, x);
    }

    /// `x += down(activation(gate(norm(x))) * up(norm(x)))`.
    fn feed_forward_block(&self, layer: usize, x: &mut [f64], trace: &mut Tracer) {
        let config = &self.model.config;
        let weights: &Layer = &self.model.weights.layers[layer];
        let (width, ffn, eps) = (config.width, config.ffn_width, config.rms_eps);

        let mut normed = rms_norm(x, &weights.ffn_norm, eps);
        trace.tensor("ffn_norm", width, &mut normed);
        let (mut gate, mut up) = join(
            || self.linear(&weights.ffn_gate, &normed),
            || self.linear(&weights.ffn_up, &normed),
        );
        trace.tensor("ffn_gate", ffn, &mut gate);
        trace.tensor("ffn_up", ffn, &mut up);
        let gated = gated_activation(config.gate_function(), &mut gate, &up);
        trace.tensor(gated, ffn, &mut gate);
        let mut out = self.linear(&weights.ffn_down, &gate);
        trace.tensor("ffn_out", width, &mut out);
        if let Some(post_norm) = &weights.post_ffn_norm {
            out = rms_norm(&out, post_norm, eps);
            trace.tensor("ffn_post_norm", width, &mut out);
        }
        add(x, &out);
        trace.tensor("l_out", width, x);
    }

    /// Logits of the rows `wanted` of the residual stream, `[wanted, vocab]`.
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

    fn n_pages(&self) -> usize {
        self.cache.n_pages()
    }

    fn step(
        &mut self,
        sequences: &[SequenceStep<'_>],
        trace: &mut dyn TraceSink,
    ) -> Result<Vec<Output>, BackendError> {
        let vocab = self.model.vocab();
        check_step(vocab, self.n_pages(), self.max_context(), sequences)?;
        // All of it on a thread of the pool: any other would sleep through each of the hundreds of
        // parallel loops and be woken after it.
        let logits = rayon::scope(|_| self.forward(sequences, &mut Tracer::new(trace)))?;
        Ok(split_outputs(sequences, &logits, vocab))
    }

    fn kv_element_bytes(&self) -> usize {
        size_of::<f32>()
    }

    fn description(&self) -> String {
        format!("cpu, {} threads", rayon::current_num_threads())
    }
}

/// The rows of the step whose logits somebody wants.
fn wanted_rows(sequences: &[SequenceStep<'_>]) -> Vec<usize> {
    let mut first = 0;
    let mut wanted = Vec::new();
    for step in sequences {
        let next = first + step.tokens.len();
        match step.want {
            Want::Nothing => {}
            Want::LastLogits | Want::Argmax | Want::Draw(_) => wanted.push(next - 1),
            Want::AllLogits => wanted.extend(first..next),
        }
        first = next;
    }
    wanted
}

fn split_outputs(sequences: &[SequenceStep<'_>], logits: &[f32], vocab: usize) -> Vec<Output> {
    let mut rest = logits;
    let mut take = |n: usize| {
        let (taken, after) = rest.split_at(n * vocab);
        rest = after;
        taken
    };
    sequences
        .iter()
        .enumerate()
        .map(|(sequence, step)| {
            let (rows, position) = match step.want {
                Want::Nothing => return Output::Nothing,
                Want::AllLogits => (step.tokens.len(), step.start),
                Want::LastLogits | Want::Argmax | Want::Draw(_) => (1, step.end() - 1),
            };
            let output = Output::logits(take(rows).to_vec(), vocab, sequence, position);
            match (output, step.want) {
                (Output::Logits(logits), Want::Argmax) => Output::Token(argmax(&logits)),
                (output, _) => output,
            }
        })
        .collect()
}
