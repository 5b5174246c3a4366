//! From the residual stream to what a step gives back.

use kernels_gpu::abi::{ArgmaxParams, MatvecEpilogue, SampleParams};
use kernels_gpu::ops::argmax::ARGMAX;
use kernels_gpu::ops::sample::SAMPLE;

use super::GpuBackend;
use super::decode::Choice;
use super::launcher::{Geometry, at};
use super::matvec::{Product, Vectors};
use super::prefill::dense;
use super::trace::DeviceTracer;
use super::workspace::{DECODE_SEQUENCES, LOGIT_ROWS};
use crate::backend::{Backend, Output, SequenceStep, Want};
use crate::gpu::Result;

impl GpuBackend {
    /// The outputs of a step whose residual stream lies in the workspace.
    pub(super) fn prefill_outputs(
        &self,
        sequences: &[SequenceStep<'_>],
        trace: &mut DeviceTracer<'_>,
    ) -> Result<Vec<Output>> {
        let mut outputs = Vec::with_capacity(sequences.len());
        let mut traced = Vec::new();
        let mut first = 0;
        for (index, step) in sequences.iter().enumerate() {
            let end = first + step.tokens.len();
            outputs.push(match step.want {
                Want::Nothing => Output::Nothing,
                Want::AllLogits => Output::Logits(self.all_logits(first, end, &mut traced)?),
                Want::LastLogits | Want::Argmax | Want::Draw(_) => {
                    self.last_output(index, end - 1, step.want, &mut traced, trace)?
                }
            });
            first = end;
        }
        if !traced.is_empty() {
            trace.values("result_output", self.model.vocab(), &traced);
        }
        Ok(outputs)
    }

    /// Logits of rows `first..end`, in f16 arithmetic like the products before them.
    fn all_logits(&self, first: usize, end: usize, traced: &mut Vec<f32>) -> Result<Vec<f32>> {
        let (vocab, w) = (self.model.vocab(), &self.workspace);
        let mut all = Vec::with_capacity((end - first) * vocab);
        for row in (first..end).step_by(LOGIT_ROWS) {
            let rows = LOGIT_ROWS.min(end - row);
            self.norm_rows(&w.x, row, &self.weights.output_norm, rows)?;
            let output = &self.weights.output.matrix;
            self.product(output, &w.normed, rows, dense(&w.logits, vocab))?;
            all.extend(self.read_logits(0, rows)?);
        }
        traced.extend_from_slice(&all);
        Ok(all)
    }

    fn last_output(
        &self,
        sequence: usize,
        row: usize,
        want: Want,
        traced: &mut Vec<f32>,
        trace: &DeviceTracer<'_>,
    ) -> Result<Output> {
        let (width, w) = (self.model.config.width, &self.workspace);
        let device = &*self.launcher.device;
        let from = w.x.slice(4 * row * width, 4 * width)?;
        device.copy(w.last.slice(0, 4 * width)?, from)?;
        let vectors = Vectors {
            x: &w.last,
            count: 1,
            norm: Some(&self.weights.output_norm),
            residual: None,
        };
        let head = Product::new(&self.weights.output, &w.logits);
        self.matvec(vectors, &[head], MatvecEpilogue::Store)?;
        if trace.wants("result_output") {
            traced.extend(self.read_logits(0, 1)?);
        }
        match want {
            Want::Argmax => self.send_argmax(1)?,
            Want::Draw(_) if self.draws() => self.send_draw(sequence, 1)?,
            _ => return Ok(Output::Logits(self.read_logits(0, 1)?)),
        }
        Ok(Output::Token(self.read_tokens(1)?[0]))
    }

    /// Starts choosing the likeliest token of each of `rows` rows of logits.
    pub(super) fn send_argmax(&self, rows: usize) -> Result<()> {
        /// Logits of a block: several for each of its 256 threads, to be worth its start.
        const BLOCK_LOGITS: u32 = 4096;
        let (vocab, w) = (self.model.vocab() as u32, &self.workspace);
        let params = ArgmaxParams {
            logits: at(&w.logits, 0),
            tokens: at(&w.tokens, 0),
            best: at(&w.best, 0),
            arrived: at(&w.best_arrived, 0),
            vocab,
            stride: vocab,
        };
        let geometry = Geometry::new([vocab.div_ceil(BLOCK_LOGITS), rows as u32, 1], 256);
        // SAFETY: logits, tokens and scratch have `LOGIT_ROWS` rows, of which `rows` are written.
        unsafe { self.launcher.launch(&ARGMAX, geometry, &params) }
    }

    /// Starts choosing a token for each of `rows` rows of logits, as the sequences from `first` on want.
    pub(super) fn send_draw(&self, first: usize, rows: usize) -> Result<()> {
        let (vocab, w) = (self.model.vocab() as u32, &self.workspace);
        let params = SampleParams {
            logits: at(&w.logits, 0),
            tokens: at(&w.tokens, 0),
            settings: self.inputs.settings(first),
            vocab,
            stride: vocab,
        };
        let geometry = Geometry::new([rows as u32, 1, 1], SAMPLE.max_threads);
        // SAFETY: logits and tokens have `LOGIT_ROWS` rows; every sequence of the step has settings.
        unsafe { self.launcher.launch(&SAMPLE, geometry, &params) }
    }

    /// Waits for a decode step and takes its results.
    pub(super) fn read_outputs(
        &self,
        sequences: &[SequenceStep<'_>],
        choice: Choice,
        trace: &mut DeviceTracer<'_>,
    ) -> Result<Vec<Output>> {
        debug_assert!(sequences.len() <= DECODE_SEQUENCES);
        let n = sequences.len();
        let vocab = self.model.vocab();
        if trace.wants("result_output") {
            let logits = self.read_logits(0, n)?;
            trace.values("result_output", vocab, &logits);
        }
        if choice != Choice::Host {
            let tokens = self.read_tokens(n)?;
            return Ok(tokens.into_iter().map(Output::Token).collect());
        }
        let mut outputs = Vec::with_capacity(n);
        for (row, step) in sequences.iter().enumerate() {
            outputs.push(match step.want {
                Want::Nothing => Output::Nothing,
                Want::Argmax => {
                    let logits = self.read_logits(row, 1)?;
                    Output::Token(crate::sampling::argmax(&logits))
                }
                Want::LastLogits | Want::AllLogits | Want::Draw(_) => {
                    Output::Logits(self.read_logits(row, 1)?)
                }
            });
        }
        Ok(outputs)
    }

    fn read_tokens(&self, n: usize) -> Result<Vec<u32>> {
        let mut tokens = vec![0u32; n];
        let from = self.workspace.tokens.slice(0, 4 * n)?;
        self.device()
            .download(bytemuck::cast_slice_mut(&mut tokens), from)?;
        Ok(tokens)
    }

    /// Logits of `rows` rows from `first` on, with the model's soft cap.
    fn read_logits(&self, first: usize, rows: usize) -> Result<Vec<f32>> {
        let vocab = self.model.vocab();
        let mut logits = vec![0f32; rows * vocab];
        let from = self
            .workspace
            .logits
            .slice(4 * first * vocab, 4 * rows * vocab)?;
        self.device()
            .download(bytemuck::cast_slice_mut(&mut logits), from)?;
        if let Some(cap) = self.model.config.logit_softcap {
            for logit in &mut logits {
                *logit = cap * (*logit / cap).tanh();
            }
        }
        Ok(logits)
    }
}
