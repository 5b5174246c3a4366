//! Steps of one new token for each of many sequences: products in f16 on tensor cores, which read a matrix once
//! for all of them, and decoding's attention. Recorded in graphs as the steps of few sequences are.

use super::GpuBackend;
use super::decode::GraphKey;
use super::decode_attention::MixedType;
use super::matvec::Product;
use super::operations::Norm;
use super::trace::DeviceTracer;
use crate::backend::SequenceStep;
use crate::device::Result;

impl GpuBackend {
    /// Sends the kernels of a step of one token for each sequence.
    pub(super) fn send_decode_batch(
        &self,
        key: GraphKey,
        sequences: &[SequenceStep<'_>],
        trace: &mut DeviceTracer<'_>,
    ) -> Result<()> {
        let (n, w) = (key.n, &self.workspace);
        self.embed(n, trace)?;
        for layer in 0..self.model.config.n_layers {
            trace.layer = Some(layer);
            self.project(layer, n, trace)?;
            self.decode_attention(layer, key, MixedType::F16, sequences)?;
            self.trace_cache(layer, sequences, trace)?;
            self.add_attention(layer, n, trace)?;
            self.feed_forward(layer, n, trace)?;
        }
        trace.layer = None;
        let norm = Norm {
            x_scales: self.stream_scales(self.model.config.n_layers, n),
            ..self.output_norm()
        };
        let normed = self.norm_rows(&w.x, 0, norm, n)?;
        let head = Product::new(&self.weights.output, &w.logits);
        self.multiply(normed, &[head], false)?;
        self.choose_next(n, key.choice)
    }
}
