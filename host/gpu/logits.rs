//! From the residual stream to what a step gives back.

use kernels_gpu::abi::{DevicePtr, MatvecEpilogue, MatvecOrder, NOT_FINITE};

use super::graphs::Choice;
use super::ops::matvec::{Product, Vectors};
use super::pass::Pass;
use super::workspace::DECODE_SEQUENCES;
use crate::backend::{NotFinite, Output, Pooling, Report, Row, RowResult};
use crate::device::Result;
use crate::model::Config;
use crate::sampling::{choose, logprobs};

/// How the device chooses the tokens of `rows`, as far as it can.
pub fn device_choice(config: &Config, rows: &[Row<'_>]) -> Choice {
    let chosen = rows.iter().filter(|row| is_chosen_there(config, row));
    let draws = chosen.map(|row| row.ask.choose.is_some_and(|choice| choice.draw.is_some()));
    match draws.max() {
        None => Choice::Nothing,
        Some(false) => Choice::Argmax,
        Some(true) => Choice::Draw,
    }
}

/// The rows of a step in the order in which the device chooses their tokens: in a step of one token for each all of
/// them, otherwise those that it chooses for.
pub fn choosing_order(config: &Config, rows: &[Row<'_>]) -> Vec<usize> {
    let is_decode = rows.iter().all(|row| row.tokens.len() == 1);
    let chosen = |&row: &usize| is_decode || is_chosen_there(config, &rows[row]);
    (0..rows.len()).filter(chosen).collect()
}

/// Whether the device chooses the row's token: the kernels choose from the logits as they are.
fn is_chosen_there(config: &Config, row: &Row<'_>) -> bool {
    let Some(choice) = &row.ask.choose else {
        return false;
    };
    let is_plain = !choice.adjusts() && choice.drafts == 0 && config.logit_softcap.is_none();
    is_plain
        && choice.draw.is_none_or(|draw| draw.typical_p >= 1.0)
        && row.ask.report == Report::Nothing
}

/// A token whose logits a row needs.
#[derive(Clone, Copy)]
struct Wanted {
    row: usize,
    /// Its place among the step's tokens.
    token: usize,
}

impl Pass<'_> {
    /// The results of a step whose residual stream lies in the workspace.
    pub fn outputs(&self, rows: &[Row<'_>]) -> Result<Vec<RowResult>> {
        let mut wanted = wanted(rows);
        // All of those that the device chooses from are in the first group.
        let on_host = |wanted: &Wanted| !is_chosen_there(self.config, &rows[wanted.row]);
        wanted.sort_by_key(on_host);
        let few = wanted.len() <= DECODE_SEQUENCES && !self.is_deterministic;
        let mut logits_of: Vec<Vec<f32>> = vec![Vec::new(); rows.len()];
        let mut tokens = vec![None; rows.len()];
        let mut traced = Vec::new();
        for group in wanted.chunks(self.workspace.logit_rows) {
            self.logits_of(group, few)?;
            let chosen = group.partition_point(|wanted| !on_host(wanted));
            if chosen > 0 {
                self.choose(chosen, device_choice(self.config, rows))?;
                for (wanted, token) in group.iter().zip(self.read_tokens(chosen)?) {
                    tokens[wanted.row] = Some(token);
                }
            }
            let is_traced = self.trace.wants("result_output");
            for (index, wanted) in group.iter().enumerate() {
                if is_traced || on_host(wanted) {
                    let logits = self.read_logits(index, 1)?;
                    if is_traced {
                        traced.push((wanted.token, logits.clone()));
                    }
                    if on_host(wanted) {
                        logits_of[wanted.row].extend(logits);
                    }
                }
            }
        }
        if !traced.is_empty() {
            traced.sort_by_key(|&(token, _)| token);
            let traced: Vec<f32> = traced.into_iter().flat_map(|(_, logits)| logits).collect();
            self.trace
                .values("result_output", self.model.vocab(), &traced);
        }
        let mut first_token = 0;
        let mut results = Vec::with_capacity(rows.len());
        for ((row, logits), token) in rows.iter().zip(logits_of).zip(tokens) {
            let result = match token {
                Some(token) if is_chosen_there(self.config, row) => chosen(row, token),
                _ => self.from_logits(row, logits),
            };
            results.push(self.with_hidden(row, first_token, result)?);
            first_token += row.tokens.len();
        }
        Ok(results)
    }

    /// Waits for a decode step and takes its results.
    pub fn read_outputs(&self, rows: &[Row<'_>]) -> Result<Vec<RowResult>> {
        if self.trace.wants("result_output") {
            let logits = self.read_logits(0, rows.len())?;
            self.trace
                .values("result_output", self.model.vocab(), &logits);
        }
        let tokens = match device_choice(self.config, rows) {
            Choice::Nothing => vec![0; rows.len()],
            _ => self.read_tokens(rows.len())?,
        };
        let mut results = Vec::with_capacity(rows.len());
        for (index, (row, token)) in rows.iter().zip(tokens).enumerate() {
            let result = if is_chosen_there(self.config, row) {
                chosen(row, token)
            } else if needs_logits(row) {
                self.from_logits(row, self.read_logits(index, 1)?)
            } else {
                Ok(Output::default())
            };
            results.push(self.with_hidden(row, index, result)?);
        }
        Ok(results)
    }

    /// The logits of `group` to the workspace, by the kernel for decoding where the step has `few` rows of logits.
    fn logits_of(&self, group: &[Wanted], few: bool) -> Result<()> {
        let (width, w) = (self.config.width, self.workspace);
        let mut copied = 0;
        for run in group.chunk_by(|wanted, next| wanted.token + 1 == next.token) {
            let bytes = 4 * run.len() * width;
            let from = w.x.slice(4 * run[0].token * width, bytes)?;
            let to = w.last.slice(4 * copied * width, bytes)?;
            self.launcher.device().copy(to, from)?;
            copied += run.len();
        }
        let head = Product::new(&self.weights.output, &w.logits);
        if few {
            let vectors = Vectors {
                x: &w.last,
                count: copied,
                norm: Some(&self.weights.output_norm),
                residual: None,
            };
            return self.matvec(vectors, &[head], MatvecEpilogue::Store, MatvecOrder::InTurn);
        }
        let normed = self.norm_rows(&w.last, 0, self.output_norm(), copied)?;
        self.multiply(normed, &[head], false)
    }

    /// Starts choosing tokens for the first `n` rows of logits.
    pub fn choose(&self, n: usize, choice: Choice) -> Result<()> {
        match choice {
            Choice::Nothing => Ok(()),
            Choice::Argmax => self.send_argmax(n, [DevicePtr::NULL; 3]),
            Choice::Draw => self.send_draw(n),
        }
    }

    /// What `row` asks of the logits of its last tokens.
    fn from_logits(&self, row: &Row<'_>, logits: Vec<f32>) -> RowResult {
        let vocab = self.model.vocab();
        let first_position = row.end() - logits.len() / vocab;
        if let Some(index) = logits.iter().position(|logit| !logit.is_finite()) {
            let position = first_position + index / vocab;
            let sequence = 0;
            return Err(NotFinite { sequence, position }.into());
        }
        let mut output = Output::default();
        if let Some(choice) = &row.ask.choose {
            for at in row.first_chosen()..row.tokens.len() {
                let position = row.start + at;
                let logits = &logits[(position - first_position) * vocab..][..vocab];
                let token = choose(logits, choice, position)?;
                output.tokens.push(token);
                if let Report::TopLogprobs(most) = row.ask.report {
                    output.logprobs.push(logprobs(logits, token, most));
                }
                if row.tokens.known().get(at + 1) != Some(&token) {
                    break;
                }
            }
        }
        match row.ask.report {
            Report::AllLogits => output.logits = logits,
            Report::Logits => output.logits = logits[logits.len() - vocab..].to_vec(),
            Report::Nothing | Report::TopLogprobs(_) | Report::Hidden(_) => {}
        }
        Ok(output)
    }

    /// `result` with the hidden state, where `row`, whose first token is `first` of the step, asks for it: the last
    /// norm in f64, of which no product follows.
    fn with_hidden(&self, row: &Row<'_>, first: usize, result: RowResult) -> Result<RowResult> {
        let Report::Hidden(pooling) = row.ask.report else {
            return Ok(result);
        };
        let end = first + row.tokens.len();
        let tokens = match pooling {
            Pooling::Last => end - 1..end,
            Pooling::Mean => first..end,
        };
        let width = self.config.width;
        let mut x = vec![0f32; tokens.len() * width];
        let from = self.workspace.x.slice(4 * tokens.start * width, 4 * x.len())?;
        self.launcher
            .device()
            .download(bytemuck::cast_slice_mut(&mut x), from)?;
        let weight = &self.model.weights.output_norm;
        let mut sum = vec![0f64; width];
        for x in x.chunks_exact(width) {
            let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
            let scale = 1.0 / (squares / width as f64 + f64::from(self.config.rms_eps)).sqrt();
            for ((sum, &x), &weight) in sum.iter_mut().zip(x).zip(weight) {
                *sum += f64::from(x) * scale * f64::from(weight);
            }
        }
        let n = tokens.len() as f64;
        Ok(result.map(|output| Output {
            hidden: sum.into_iter().map(|sum| (sum / n) as f32).collect(),
            ..output
        }))
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

/// Whether a row gives something that follows from logits.
fn needs_logits(row: &Row<'_>) -> bool {
    row.ask.choose.is_some() || matches!(row.ask.report, Report::Logits | Report::AllLogits)
}

/// The tokens of a step whose logits are needed.
fn wanted(rows: &[Row<'_>]) -> Vec<Wanted> {
    let mut first = 0;
    let mut wanted = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let n = row.tokens.len();
        let begin = match row.ask.report {
            Report::AllLogits => 0,
            _ if row.ask.choose.is_some() => row.first_chosen(),
            Report::Logits => n - 1,
            _ => n,
        };
        wanted.extend((begin..n).map(|at| Wanted {
            row: index,
            token: first + at,
        }));
        first += n;
    }
    wanted
}

/// The result of a row for which the device chose `token`.
fn chosen(row: &Row<'_>, token: u32) -> RowResult {
    match token {
        NOT_FINITE => Err(NotFinite {
            sequence: 0,
            position: row.end() - 1,
        }
        .into()),
        token => Ok(Output {
            tokens: vec![token],
            ..Output::default()
        }),
    }
}
