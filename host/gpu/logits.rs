//! From the residual stream to what a step gives back.

use kernels_gpu::abi::{ChoiceOutputs, DevicePtr, MatvecEpilogue, MatvecOrder, NOT_FINITE};

use super::graphs::Choice;
use super::launcher::at;
use super::ops::matvec::{Product, Vectors};
use super::pass::Pass;
use super::workspace::{DECODE_SEQUENCES, LOGIT_ROWS};
use crate::backend::{NotFinite, Output, SequenceStep, Want};
use crate::device::Result;

impl Pass<'_> {
    /// The outputs of a step whose residual stream lies in the workspace.
    pub fn prefill_outputs(&self, sequences: &[SequenceStep<'_>]) -> Result<Vec<Output>> {
        let ends = sequences.iter().scan(0, |end, step| {
            *end += step.tokens.len();
            Some(*end)
        });
        let ends: Vec<usize> = ends.collect();
        let rows = sequences.iter().map(|step| match step.want {
            Want::Nothing => 0,
            Want::AllLogits => step.tokens.len(),
            Want::LastLogits | Want::Argmax | Want::Draw(_) => 1,
        });
        let few = rows.sum::<usize>() <= DECODE_SEQUENCES;
        let mut outputs = Vec::with_capacity(sequences.len());
        let mut traced = Vec::new();
        while outputs.len() < sequences.len() {
            let first = outputs.len();
            let (step, end) = (&sequences[first], ends[first]);
            match step.want {
                Want::Nothing => outputs.push(Output::Nothing),
                Want::AllLogits => {
                    let logits = self.all_logits(end - step.tokens.len(), end, &mut traced)?;
                    let vocab = self.model.vocab();
                    outputs.push(Output::logits(logits, vocab, first, step.start));
                }
                Want::LastLogits | Want::Argmax | Want::Draw(_) => {
                    let neighbours = sequences[first..].iter().take(LOGIT_ROWS);
                    let together = neighbours
                        .take_while(|step| !matches!(step.want, Want::Nothing | Want::AllLogits))
                        .count();
                    let range = first..first + together;
                    let steps = &sequences[range.clone()];
                    self.last_logits(&ends[range], few)?;
                    let choice = Choice::of(steps, self.draws());
                    self.choose(first, together, choice)?;
                    if self.trace.wants("result_output") {
                        traced.extend(self.read_logits(0, together)?);
                    }
                    outputs.extend(self.chosen(first, steps, choice)?);
                }
            }
        }
        if !traced.is_empty() {
            self.trace
                .values("result_output", self.model.vocab(), &traced);
        }
        Ok(outputs)
    }

    /// Logits of rows `first..end`, in f16 arithmetic like the products before them.
    fn all_logits(&self, first: usize, end: usize, traced: &mut Vec<f32>) -> Result<Vec<f32>> {
        let (vocab, w) = (self.model.vocab(), self.workspace);
        let mut all = Vec::with_capacity((end - first) * vocab);
        for row in (first..end).step_by(LOGIT_ROWS) {
            let rows = LOGIT_ROWS.min(end - row);
            let normed = self.norm_rows(&w.x, row, self.output_norm(), rows)?;
            let head = Product::new(&self.weights.output, &w.logits);
            self.multiply(normed, &[head], false)?;
            all.extend(self.read_logits(0, rows)?);
        }
        traced.extend_from_slice(&all);
        Ok(all)
    }

    /// The logits of the rows before `ends` of the residual stream, by the kernel for decoding where the step
    /// has `few` rows of logits.
    fn last_logits(&self, ends: &[usize], few: bool) -> Result<()> {
        let (width, w) = (self.config.width, self.workspace);
        let mut copied = 0;
        for rows in ends.chunk_by(|end, next| end + 1 == *next) {
            let bytes = 4 * rows.len() * width;
            let from = w.x.slice(4 * (rows[0] - 1) * width, bytes)?;
            let to = w.last.slice(4 * copied * width, bytes)?;
            self.launcher.device().copy(to, from)?;
            copied += rows.len();
        }
        let norm = &self.weights.output_norm;
        let head = Product::new(&self.weights.output, &w.logits);
        if few {
            let vectors = Vectors {
                x: &w.last,
                count: copied,
                norm: Some(norm),
                residual: None,
            };
            return self.matvec(vectors, &[head], MatvecEpilogue::Store, MatvecOrder::InTurn);
        }
        let normed = self.norm_rows(&w.last, 0, self.output_norm(), copied)?;
        self.multiply(normed, &[head], false)
    }

    /// Starts choosing tokens for the `n` sequences from `first` on, whose logits are there.
    pub fn choose(&self, first: usize, n: usize, choice: Choice) -> Result<()> {
        match choice {
            Choice::Host => Ok(()),
            Choice::Argmax => self.send_argmax(n, self.choice_outputs()),
            Choice::Draw => {
                let outputs = ChoiceOutputs {
                    token_of_row: self.inputs.last_tokens(first),
                    ..self.choice_outputs()
                };
                self.send_draw(first, n, outputs)
            }
        }
    }

    /// Starts choosing tokens for the `n` sequences of a step of one token each; the likeliest ones become the
    /// inputs of the step that follows.
    pub fn choose_next(&self, n: usize, choice: Choice) -> Result<()> {
        match choice {
            Choice::Argmax => {
                let outputs = ChoiceOutputs {
                    next_tokens: self.inputs.token_ids(),
                    turns: self.inputs.turns_on_device(),
                    posted: self.posted,
                    ..self.choice_outputs()
                };
                self.send_argmax(n, outputs)
            }
            Choice::Draw => self.send_draw(0, n, self.choice_outputs()),
            Choice::Host => Ok(()),
        }
    }

    /// Tokens for the host to read, of rows that are the step's tokens.
    fn choice_outputs(&self) -> ChoiceOutputs {
        ChoiceOutputs {
            tokens: at(&self.workspace.tokens, 0),
            token_of_row: DevicePtr::NULL,
            positions: self.inputs.positions(),
            next_tokens: DevicePtr::NULL,
            turns: DevicePtr::NULL,
            posted: DevicePtr::NULL,
        }
    }

    /// Waits for a decode step and takes its results.
    pub fn read_outputs(
        &self,
        sequences: &[SequenceStep<'_>],
        choice: Choice,
    ) -> Result<Vec<Output>> {
        if self.trace.wants("result_output") {
            let logits = self.read_logits(0, sequences.len())?;
            self.trace
                .values("result_output", self.model.vocab(), &logits);
        }
        self.chosen(0, sequences, choice)
    }

    /// What each of `sequences`, those of the step from `first` on, wants of the logits, of which each has a row,
    /// or of the chosen tokens.
    fn chosen(
        &self,
        first: usize,
        sequences: &[SequenceStep<'_>],
        choice: Choice,
    ) -> Result<Vec<Output>> {
        let n = sequences.len();
        if choice != Choice::Host {
            return Ok(token_outputs(first, sequences, &self.read_tokens(n)?));
        }
        let mut outputs = Vec::with_capacity(n);
        for (row, step) in sequences.iter().enumerate() {
            if step.want == Want::Nothing {
                outputs.push(Output::Nothing);
                continue;
            }
            let (logits, vocab) = (self.read_logits(row, 1)?, self.model.vocab());
            let output = Output::logits(logits, vocab, first + row, step.end() - 1);
            outputs.push(match (output, step.want) {
                (Output::Logits(logits), Want::Argmax) => {
                    Output::Token(crate::sampling::argmax(&logits))
                }
                (output, _) => output,
            });
        }
        Ok(outputs)
    }

    fn read_tokens(&self, n: usize) -> Result<Vec<u32>> {
        let mut tokens = vec![0u32; n];
        let from = self.workspace.tokens.slice(0, 4 * n)?;
        self.launcher
            .device()
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
        self.launcher
            .device()
            .download(bytemuck::cast_slice_mut(&mut logits), from)?;
        if let Some(cap) = self.config.logit_softcap {
            // The cap would make an infinity look sound.
            for logit in logits.iter_mut().filter(|logit| logit.is_finite()) {
                *logit = cap * (*logit / cap).tanh();
            }
        }
        Ok(logits)
    }
}

/// The tokens that the device chose for `sequences`, those of the step from `first` on.
pub fn token_outputs(first: usize, sequences: &[SequenceStep<'_>], tokens: &[u32]) -> Vec<Output> {
    let rows = sequences.iter().zip(tokens).enumerate();
    rows.map(|(row, (step, &token))| match token {
        NOT_FINITE => Output::NotFinite(NotFinite {
            sequence: first + row,
            position: step.end() - 1,
        }),
        token => Output::Token(token),
    })
    .collect()
}
