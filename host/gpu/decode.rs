//! Steps of one new token for each of a few sequences: five launches a block. Those of more sequences are
//! [`decode_q8`](super::decode_q8)'s and [`decode_batch`](super::decode_batch)'s.
//!
//! Positions, token ids and pages are read from device memory, so that a recorded step serves all
//! positions whose attention takes as many blocks.

use kernels_gpu::abi::{MatvecEpilogue, MatvecOrder};
use kernels_gpu::ops::elementwise::{GEGLU_F32, SWIGLU_F32};

use super::graphs::GraphKey;
use super::ops::attention_decode::MixedType;
use super::ops::matvec::{Product, Residual, Vectors};
use super::pass::Pass;
use super::weights::{GpuLinear, GpuNetwork};
use super::workspace::{DECODE_SEQUENCES, Q8_SEQUENCES};
use crate::backend::Row;
use crate::device::{Buffer, Result};
use crate::model::{BlockNorms, GateFunction};

/// The residual stream between two products: where it lies, and what still has to be added to it.
struct Stream<'a> {
    x: &'a Buffer,
    other: &'a Buffer,
    /// A block's output and the weight of its norm.
    pending: Option<(&'a Buffer, &'a Buffer)>,
}

impl<'a> Stream<'a> {
    /// The stream as the input of a product behind `norm`, where there is one; what is pending gets added.
    fn vectors(&mut self, count: usize, norm: Option<&'a Buffer>) -> Vectors<'a> {
        let x = self.x;
        let residual = self.pending.take().map(|(addend, weight)| {
            std::mem::swap(&mut self.x, &mut self.other);
            Residual {
                addend,
                weight,
                sum: self.x,
            }
        });
        Vectors {
            x,
            count,
            norm,
            residual,
        }
    }
}

impl<'a> Pass<'a> {
    /// Sends the kernels of a step of one token for each sequence.
    pub fn send_decode_step(&self, key: GraphKey, rows: &[Row<'_>]) -> Result<()> {
        if self.batches_in_q8 && Q8_SEQUENCES.contains(&key.n) {
            self.send_decode_q8(key, rows)
        } else if key.n <= DECODE_SEQUENCES && !self.is_deterministic {
            self.send_decode(key, rows)
        } else {
            self.send_decode_batch(key, rows)
        }
    }

    fn send_decode(&self, key: GraphKey, rows: &[Row<'_>]) -> Result<()> {
        self.embed(key.n)?;
        self.spread.restart();
        let mut stream = Stream {
            x: &self.workspace.x,
            other: &self.workspace.x_other,
            pending: None,
        };
        for layer in 0..self.config.n_layers {
            self.trace.layer.set(Some(layer));
            self.decode_layer(layer, key, &mut stream, rows)?;
        }
        self.trace.layer.set(None);
        let w = self.workspace;
        let vectors = stream.vectors(key.n, Some(&self.weights.output_norm));
        let head = Product::new(&self.weights.output, &w.logits);
        self.matvec(vectors, &[head], MatvecEpilogue::Store, MatvecOrder::InTurn)?;
        self.cap_logits(key.n)?;
        self.choose(key.n, key.choosing, key.moves_on())?;
        self.trace.layer.set(Some(self.config.n_layers - 1));
        self.trace_post_norm_sum("l_out", &stream)?;
        self.trace.layer.set(None);
        Ok(())
    }

    fn decode_layer(
        &self,
        layer: usize,
        key: GraphKey,
        stream: &mut Stream<'a>,
        rows: &[Row<'_>],
    ) -> Result<()> {
        let (config, w) = (self.config, self.workspace);
        let weights = &self.weights.layers[layer];

        let vectors = stream.vectors(key.n, weights.attn_norm.as_deref());
        let products = [
            Product::new(&weights.q, &w.q),
            Product::new(&weights.k, &w.k),
            Product::new(&weights.v, &w.v),
        ];
        self.products(vectors, &products)?;
        if layer > 0 {
            self.trace.layer.set(Some(layer - 1));
            self.trace_post_norm_sum("l_out", stream)?;
            self.trace.layer.set(Some(layer));
        }
        self.trace.f32("Qcur_raw", config.q_width(), &w.q)?;
        self.trace.f32("Kcur_raw", config.kv_width(), &w.k)?;
        self.trace.f32("Vcur", config.kv_width(), &w.v)?;
        self.norm_projections(layer, key.n)?;

        if key.has_drafts {
            self.rotate_and_cache(layer, 0..key.n)?;
        }
        self.decode_attention(layer, key.splits, MixedType::F32, rows, key.has_drafts)?;
        self.spread.restart();
        self.trace_cache(layer, rows)?;
        self.trace.f32("kqv_out", config.q_width(), &w.mixed)?;
        let post_norm = weights.post_attn_norm.as_deref();
        let names = ["attn_out", "ffn_inp"];
        self.add_output(
            stream,
            &w.mixed,
            &weights.attn_output,
            post_norm,
            key.n,
            names,
        )?;

        match (&weights.experts, &weights.network) {
            (Some(experts), _) => self.decode_experts(layer, experts, stream.x, key.n),
            (None, Some(network)) => self.decode_network(layer, network, key.n, stream),
            (None, None) => Ok(()),
        }
    }

    fn decode_network(
        &self,
        layer: usize,
        network: &'a GpuNetwork,
        count: usize,
        stream: &mut Stream<'a>,
    ) -> Result<()> {
        let (w, weights) = (self.workspace, &self.weights.layers[layer]);
        let vectors = stream.vectors(count, weights.ffn_norm.as_deref());
        self.gated_products(vectors, network)?;
        self.trace_post_norm_sum("sa_out", stream)?;
        self.trace
            .f32(self.gated_name(), self.config.ffn_width, &w.gated)?;
        let post_norm = weights.post_ffn_norm.as_deref();
        let names = ["ffn_out", "l_out"];
        self.add_output(stream, &w.gated, &network.down, post_norm, count, names)
    }

    /// Products of several matrices with the same vectors: together where they have one type, else beside
    /// each other.
    fn products(&self, mut vectors: Vectors<'_>, products: &[Product<'_>]) -> Result<()> {
        let mut rest: Vec<Product<'_>> = products.to_vec();
        let mut before = MatvecOrder::InTurn;
        while let Some(first) = rest.first() {
            let ty = first.linear.matrix.ty;
            let is_same = |product: &Product<'_>| product.linear.matrix.ty == ty;
            let (same, others): (Vec<_>, Vec<_>) = rest.iter().partition(|p| is_same(p));
            let order = match before {
                MatvecOrder::First => MatvecOrder::Beside,
                // The sum that the first launch writes is what the second one reads.
                _ if others.is_empty() || vectors.residual.is_some() => MatvecOrder::InTurn,
                _ => MatvecOrder::First,
            };
            self.matvec(vectors, &same, MatvecEpilogue::Store, order)?;
            if let Some(residual) = vectors.residual.take() {
                vectors.x = residual.sum;
            }
            (before, rest) = (order, others);
        }
        Ok(())
    }

    /// `gated = activation(gate) * up`, in one launch where both matrices have one type.
    pub fn gated_products(&self, vectors: Vectors<'_>, network: &GpuNetwork) -> Result<()> {
        let w = self.workspace;
        let (gate, up) = (&network.gate, &network.up);
        let (epilogue, kernel) = match self.config.gate_function() {
            GateFunction::Silu => (MatvecEpilogue::Silu, SWIGLU_F32),
            GateFunction::GeluTanh => (MatvecEpilogue::Gelu, GEGLU_F32),
        };
        if gate.matrix.ty == up.matrix.ty {
            let products = [Product::new(gate, &w.gated), Product::new(up, &w.gated)];
            return self.matvec(vectors, &products, epilogue, MatvecOrder::InTurn);
        }
        self.products(
            vectors,
            &[Product::new(gate, &w.gate), Product::new(up, &w.up)],
        )?;
        self.gate(&kernel, vectors.count)
    }

    /// Adds a block's last product to the stream, or leaves it pending for its norm.
    #[allow(clippy::too_many_arguments)] // the operands of one sum, and their names
    fn add_output(
        &self,
        stream: &mut Stream<'a>,
        input: &'a Buffer,
        linear: &'a GpuLinear,
        post_norm: Option<&'a Buffer>,
        count: usize,
        [product_name, sum_name]: [&'static str; 2],
    ) -> Result<()> {
        let (width, w) = (self.config.width, self.workspace);
        let vectors = Vectors {
            x: input,
            count,
            norm: None,
            residual: None,
        };
        match post_norm {
            None => {
                let product = Product::new(linear, stream.x);
                self.matvec(
                    vectors,
                    &[product],
                    MatvecEpilogue::Add,
                    MatvecOrder::InTurn,
                )?;
                self.trace_sum(product_name, sum_name, stream.x)
            }
            Some(weight) => {
                let product = Product::new(linear, &w.block_out);
                self.matvec(
                    vectors,
                    &[product],
                    MatvecEpilogue::Store,
                    MatvecOrder::InTurn,
                )?;
                stream.pending = Some((&w.block_out, weight));
                self.trace.f32(product_name, width, &w.block_out)
            }
        }
    }

    /// Reports the stream after a pending output was added by the product that followed.
    fn trace_post_norm_sum(&self, name: &'static str, stream: &Stream<'_>) -> Result<()> {
        match self.config.arch.norms {
            BlockNorms::Before => Ok(()),
            BlockNorms::Around | BlockNorms::Behind => self.trace_stream(name, stream.x),
        }
    }
}
