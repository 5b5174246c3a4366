//! Steps of one new token for each sequence, recorded in a graph; and how those of a few sequences run: five
//! launches a block. Those of more sequences are [`decode_batch`](super::decode_batch)'s.
//!
//! Positions, token ids and pages are read from device memory, so that a recorded step serves all
//! positions whose attention takes as many blocks.

use kernels_gpu::abi::{
    AttentionDecodeParams, DECODE_MAX_SPLITS, KernelDef, MatvecEpilogue, MatvecOrder,
    decode_grid_y, decode_shared_bytes, decode_threads,
};
use kernels_gpu::ops::attention_decode::*;
use kernels_gpu::ops::elementwise::{GEGLU_F32, SWIGLU_F32};

use super::GpuBackend;
use super::launcher::{Geometry, at, untyped};
use super::matvec::{Product, Residual, Vectors};
use super::trace::DeviceTracer;
use super::weights::{GpuLayer, GpuLinear, optional};
use super::workspace::{DECODE_SEQUENCES, SHARED_BLOCKS, grid_y};
use crate::backend::{Backend, NoTrace, Output, PAGE_TOKENS, SequenceStep, Want};
use crate::gpu::{Buffer, GpuError, Result};
use crate::model::Activation;

/// Pages that one block attends to as quickly as several do.
const UNSHARED_PAGES: u32 = 4;

/// What a recorded step depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GraphKey {
    /// Sequences.
    pub n: usize,
    /// Blocks that share the context of a sequence.
    splits: u32,
    /// How the tokens are chosen.
    pub choice: Choice,
}

/// The type of attention's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MixedType {
    /// For the matrix-vector kernels.
    F32,
    /// For products in f16.
    F16,
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
        match self.graphs.get(&key) {
            // The first step of its kind runs as it is, because looking up kernels and setting their
            // attributes is not for a recording.
            None => {
                self.send_step(key, sequences, &mut none)?;
                self.graphs.insert(key, None);
            }
            Some(None) => {
                let record = &mut || self.send_step(key, sequences, &mut none);
                let graph = device.capture(record)?;
                // SAFETY: the recorded buffers are this backend's, which drops its graphs first.
                unsafe { graph.replay() }?;
                self.graphs.insert(key, Some(graph));
            }
            // SAFETY: as above.
            Some(Some(graph)) => unsafe { graph.replay() }?,
        }
        Ok(())
    }

    /// Blocks that share the context of a sequence: a power of two, so that few graphs serve all
    /// lengths, of at least two pages each, because to begin and to put the parts together takes as long, and
    /// together no more than run at the same time.
    fn attention_splits(&self, n: usize, longest: usize) -> u32 {
        let pages = longest.div_ceil(PAGE_TOKENS) as u32;
        let config = &self.model.config;
        if pages <= UNSHARED_PAGES {
            return 1;
        }
        // Blocks of a multiprocessor, which the registers limit.
        let resident = match config.head_dim {
            ..=64 => 4,
            65..=128 => 2,
            _ => 1,
        };
        let others = grid_y(config) * n as u32;
        let at_once = resident * self.launcher.device.info().multiprocessors;
        splits(pages, at_once, others)
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

    /// Bytes of keys and values that a layer's attention reads.
    fn cache_bytes(&self, layer: usize, sequences: &[SequenceStep<'_>]) -> usize {
        let config = &self.model.config;
        let window = config.layers[layer].window.unwrap_or(usize::MAX);
        let tokens: usize = sequences.iter().map(|step| step.end().min(window)).sum();
        2 * tokens * config.kv_width() * self.kv_element_bytes()
    }

    /// Attention from Q, K and V as the products left them, to `mixed` in type `ty`.
    pub(super) fn decode_attention(
        &self,
        layer: usize,
        key: GraphKey,
        ty: MixedType,
        sequences: &[SequenceStep<'_>],
    ) -> Result<()> {
        let (config, w) = (&self.model.config, &self.workspace);
        let weights = &self.weights.layers[layer];
        let rope = &self.ropes[config.layers[layer].rope];
        // A block that has a short context for itself takes its pages side by side; of those that share a long
        // one, more fit on the device the fewer threads they have.
        let block = match key.splits {
            1 => decode_threads(config.head_dim as u32),
            _ => 128,
        };
        let params = AttentionDecodeParams {
            q: at(&w.q, 0),
            k: at(&w.k, 0),
            v: at(&w.v, 0),
            q_norm: optional(&weights.q_norm),
            k_norm: optional(&weights.k_norm),
            rope: at(&rope.table, 0),
            kv: self.cache.layer(layer),
            page_table: self.inputs.page_table(),
            positions: self.inputs.positions(),
            out: untyped(&w.mixed),
            partial: at(&w.partial, 0),
            arrived: at(&w.arrived, 0),
            n_heads: config.n_heads as u32,
            n_kv_heads: config.n_kv_heads as u32,
            pairs: rope.pairs,
            pairing: self.pairing(layer),
            q_stride: config.q_width() as u32,
            kv_stride: config.kv_width() as u32,
            max_pages: self.inputs.max_pages(),
            page_stride: self.cache.page_stride,
            window: self.window(layer),
            scale: config.attention_scale,
            epsilon: config.rms_eps,
            out_f16: (ty == MixedType::F16).into(),
        };
        let (n_heads, n_kv_heads) = (config.n_heads as u32, config.n_kv_heads as u32);
        let geometry = Geometry {
            grid: [key.splits, decode_grid_y(n_heads, n_kv_heads), key.n as u32],
            block,
            shared_bytes: decode_shared_bytes(config.head_dim as u32, block),
        };
        let kernel = decode_kernel(config.head_dim)?;
        self.launcher.moves(self.cache_bytes(layer, sequences));
        // SAFETY: the workspace has room for these sequences and splits; `check_step` saw to pages.
        unsafe { self.launcher.launch(&kernel, geometry, &params) }
    }
}

/// Blocks that share a context of `pages` pages, where `at_once` blocks run at the same time and there are
/// `others` contexts or heads.
fn splits(pages: u32, at_once: u32, others: u32) -> u32 {
    let room = at_once.min(SHARED_BLOCKS) / others;
    let most = 1 << room.clamp(1, DECODE_MAX_SPLITS).ilog2();
    pages.div_ceil(2).next_power_of_two().min(most)
}

fn decode_kernel(head_dim: usize) -> Result<KernelDef<AttentionDecodeParams>> {
    Ok(match head_dim {
        32 => ATTENTION_DECODE_32,
        64 => ATTENTION_DECODE_64,
        80 => ATTENTION_DECODE_80,
        96 => ATTENTION_DECODE_96,
        128 => ATTENTION_DECODE_128,
        256 => ATTENTION_DECODE_256,
        other => {
            return Err(GpuError::Unsupported(format!(
                "heads of {other} elements have no attention kernel"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_share_contexts_have_room_for_their_parts() {
        for pages in [5, 6, 64, 512, 2048] {
            for at_once in [1, 8, 264, 528, 1_000_000] {
                for others in 1..=64 * 128 {
                    let splits = splits(pages, at_once, others);
                    assert!(splits.is_power_of_two() && splits <= DECODE_MAX_SPLITS);
                    // One block alone has no parts.
                    let all = splits * others;
                    assert!(splits == 1 || all <= SHARED_BLOCKS.min(at_once));
                }
            }
        }
    }

    #[test]
    fn contexts_are_shared_as_far_as_blocks_run_at_once() {
        // 132 multiprocessors with two blocks each, and 8 KV heads.
        let of = |sequences: u32| splits(512, 264, 8 * sequences);
        assert_eq!([1, 4, 8, 16, 17, 64].map(of), [32, 8, 4, 2, 1, 1]);
        assert_eq!(splits(5, 264, 8), 4);
    }
}
