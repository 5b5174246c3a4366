//! Steps of one new token for each sequence, recorded in a graph; and how those of a few sequences run: five
//! launches a block. Those of more sequences are [`decode_batch`](super::decode_batch)'s.
//!
//! Positions, token ids and pages are read from device memory, so that a recorded step serves all
//! positions whose attention takes as many blocks.

use kernels_gpu::abi::{MatvecEpilogue, MatvecOrder};
use kernels_gpu::ops::elementwise::{GEGLU_F32, SWIGLU_F32};

use super::GpuBackend;
use super::decode_attention::MixedType;
use super::graphs::Recording;
use super::matvec::{Product, Residual, Vectors};
use super::trace::DeviceTracer;
use super::weights::{GpuLayer, GpuLinear};
use super::workspace::DECODE_SEQUENCES;
use crate::backend::{Backend, NoTrace, Output, SequenceStep, Want};
use crate::device::{Buffer, Result};
use crate::model::Activation;

/// What a recorded step depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GraphKey {
    /// Sequences.
    pub n: usize,
    /// Blocks that share the context of a sequence.
    pub splits: u32,
    /// How the tokens are chosen.
    pub choice: Choice,
}

/// How a step's tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Choice {
    /// By the host, from the logits.
    Host,
    /// The likeliest ones.
    Argmax,
    /// At random, some of them perhaps the likeliest.
    Draw,
}

impl Choice {
    /// The quickest that gives what all of `sequences` want, on a device that draws or does not.
    pub fn of(sequences: &[SequenceStep<'_>], draws: bool) -> Choice {
        let all = |wanted: fn(Want) -> bool| sequences.iter().all(|step| wanted(step.want));
        if all(|want| want == Want::Argmax) {
            Choice::Argmax
        } else if draws && all(|want| matches!(want, Want::Argmax | Want::Draw(_))) {
            Choice::Draw
        } else {
            Choice::Host
        }
    }
}

/// The residual stream between two products: where it lies, and what still has to be added to it.
struct Stream<'a> {
    x: &'a Buffer,
    other: &'a Buffer,
    /// A block's output and the weight of its norm.
    pending: Option<(&'a Buffer, &'a Buffer)>,
}

impl<'a> Stream<'a> {
    /// The stream as the input of a product with the norm `norm`; what is pending gets added.
    fn vectors(&mut self, count: usize, norm: &'a Buffer) -> Vectors<'a> {
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
            norm: Some(norm),
            residual,
        }
    }
}

impl GpuBackend {
    /// Runs a step of one token for each sequence.
    pub(super) fn decode(
        &mut self,
        sequences: &[SequenceStep<'_>],
        trace: &mut DeviceTracer<'_>,
    ) -> Result<Vec<Output>> {
        let n = sequences.len();
        let choice = Choice::of(sequences, self.draws());
        let longest = sequences.iter().map(SequenceStep::end).max().unwrap_or(1);
        let key = self.graph_key(n, longest, choice);
        let is_observed = trace.is_active() || self.launcher.is_noting();
        if choice == Choice::Argmax && !is_observed {
            return self.decode_greedily(key, sequences);
        }
        self.ahead.forget();
        let device = self.launcher.device.clone();
        self.inputs.upload(&*device, sequences)?;
        match is_observed {
            true => self.send_step(key, sequences, trace)?,
            false => self.run_step(key, sequences)?,
        }
        if choice == Choice::Argmax {
            self.inputs.moved_on(n);
        }
        self.read_outputs(sequences, choice, trace)
    }

    /// What a step for `n` sequences depends on, the longest of which will have `longest` tokens.
    pub(super) fn graph_key(&self, n: usize, longest: usize, choice: Choice) -> GraphKey {
        GraphKey {
            n,
            splits: self.attention_splits(n, longest),
            choice,
        }
    }

    /// Runs the step of `key`, from its recording where there is one.
    pub(super) fn run_step(&mut self, key: GraphKey, sequences: &[SequenceStep<'_>]) -> Result<()> {
        let mut none = NoTrace;
        let device = self.launcher.device.clone();
        let mut none = DeviceTracer::new(&*device, &mut none, key.n);
        match self.graphs.get(key) {
            // The first step of its kind runs as it is, because looking up kernels and setting their
            // attributes is not for a recording.
            Recording::Unseen => {
                self.send_step(key, sequences, &mut none)?;
                self.graphs.insert(key, Recording::Seen);
            }
            Recording::Seen if self.graphs.has_room(&*device)? => {
                let record = &mut || self.send_step(key, sequences, &mut none);
                let recorded = device.capture(record).and_then(|graph| {
                    // SAFETY: the recorded buffers are this backend's, which drops its graphs first.
                    unsafe { graph.replay() }?;
                    Ok(graph)
                });
                match recorded {
                    Ok(graph) => self.graphs.insert(key, Recording::Graph(graph)),
                    // Neither recording nor a refused start has run anything.
                    Err(error) if error.is_out_of_memory() => {
                        self.graphs.insert(key, Recording::NoRoom);
                        self.send_step(key, sequences, &mut none)?;
                    }
                    Err(error) => return Err(error),
                }
            }
            Recording::Seen => {
                self.graphs.insert(key, Recording::NoRoom);
                self.send_step(key, sequences, &mut none)?;
            }
            Recording::NoRoom => self.send_step(key, sequences, &mut none)?,
            // SAFETY: as above.
            Recording::Graph(graph) => unsafe { graph.replay() }?,
        }
        Ok(())
    }

    fn send_step(
        &self,
        key: GraphKey,
        sequences: &[SequenceStep<'_>],
        trace: &mut DeviceTracer<'_>,
    ) -> Result<()> {
        match key.n <= DECODE_SEQUENCES {
            true => self.send_decode(key, sequences, trace),
            false => self.send_decode_batch(key, sequences, trace),
        }
    }

    fn send_decode(
        &self,
        key: GraphKey,
        sequences: &[SequenceStep<'_>],
        trace: &mut DeviceTracer<'_>,
    ) -> Result<()> {
        self.embed(key.n, trace)?;
        self.spread.restart();
        let mut stream = Stream {
            x: &self.workspace.x,
            other: &self.workspace.x_other,
            pending: None,
        };
        for layer in 0..self.model.config.n_layers {
            trace.layer = Some(layer);
            self.decode_layer(layer, key, &mut stream, sequences, trace)?;
        }
        trace.layer = None;
        let w = &self.workspace;
        let vectors = stream.vectors(key.n, &self.weights.output_norm);
        let head = Product::new(&self.weights.output, &w.logits);
        self.matvec(vectors, &[head], MatvecEpilogue::Store, MatvecOrder::InTurn)?;
        self.choose_next(key.n, key.choice)?;
        trace.layer = Some(self.model.config.n_layers - 1);
        self.trace_post_norm_sum("l_out", &stream, trace)?;
        trace.layer = None;
        Ok(())
    }

    fn decode_layer<'a>(
        &'a self,
        layer: usize,
        key: GraphKey,
        stream: &mut Stream<'a>,
        sequences: &[SequenceStep<'_>],
        trace: &mut DeviceTracer<'_>,
    ) -> Result<()> {
        let (config, w) = (&self.model.config, &self.workspace);
        let weights = &self.weights.layers[layer];

        let vectors = stream.vectors(key.n, &weights.attn_norm);
        let products = [
            Product::new(&weights.q, &w.q),
            Product::new(&weights.k, &w.k),
            Product::new(&weights.v, &w.v),
        ];
        self.products(vectors, &products)?;
        if layer > 0 {
            trace.layer = Some(layer - 1);
            self.trace_post_norm_sum("l_out", stream, trace)?;
            trace.layer = Some(layer);
        }
        trace.f32("Qcur_raw", config.q_width(), &w.q)?;
        trace.f32("Kcur_raw", config.kv_width(), &w.k)?;
        trace.f32("Vcur", config.kv_width(), &w.v)?;

        self.decode_attention(layer, key, MixedType::F32, sequences)?;
        self.spread.restart();
        self.trace_cache(layer, sequences, trace)?;
        trace.f32("kqv_out", config.q_width(), &w.mixed)?;
        let post_norm = weights.post_attn_norm.as_deref();
        let names = ["attn_out", "ffn_inp"];
        self.add_output(
            stream,
            &w.mixed,
            &weights.attn_output,
            post_norm,
            key.n,
            names,
            trace,
        )?;

        let vectors = stream.vectors(key.n, &weights.ffn_norm);
        self.gated_products(vectors, weights)?;
        self.trace_post_norm_sum("sa_out", stream, trace)?;
        let gated = match config.activation() {
            Activation::Silu => "ffn_swiglu",
            Activation::GeluTanh => "ffn_geglu",
        };
        trace.f32(gated, config.ffn_width, &w.gated)?;
        let post_norm = weights.post_ffn_norm.as_deref();
        let names = ["ffn_out", "l_out"];
        self.add_output(
            stream,
            &w.gated,
            &weights.ffn_down,
            post_norm,
            key.n,
            names,
            trace,
        )
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
    fn gated_products(&self, vectors: Vectors<'_>, weights: &GpuLayer) -> Result<()> {
        let w = &self.workspace;
        let (gate, up) = (&weights.ffn_gate, &weights.ffn_up);
        let (epilogue, kernel) = match self.model.config.activation() {
            Activation::Silu => (MatvecEpilogue::Silu, SWIGLU_F32),
            Activation::GeluTanh => (MatvecEpilogue::Gelu, GEGLU_F32),
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
    fn add_output<'a>(
        &'a self,
        stream: &mut Stream<'a>,
        input: &'a Buffer,
        linear: &'a GpuLinear,
        post_norm: Option<&'a Buffer>,
        count: usize,
        [product_name, sum_name]: [&'static str; 2],
        trace: &mut DeviceTracer<'_>,
    ) -> Result<()> {
        let (width, w) = (self.model.config.width, &self.workspace);
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
                trace.residual_and_addend(product_name, sum_name, width, stream.x)
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
                trace.f32(product_name, width, &w.block_out)
            }
        }
    }

    /// Reports the stream after a pending output was added by the product that followed.
    fn trace_post_norm_sum(
        &self,
        name: &'static str,
        stream: &Stream<'_>,
        trace: &mut DeviceTracer<'_>,
    ) -> Result<()> {
        match self.model.config.arch.post_norms {
            true => trace.residual(name, self.model.config.width, stream.x),
            false => Ok(()),
        }
    }
}
