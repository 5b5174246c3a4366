//! From the residual stream to logits, and to what the host makes of them.

use kernels_gpu::abi::{MatvecEpilogue, MatvecOrder};

use super::choices::Choices;
use super::ops::matvec::{Product, Vectors};
use super::pass::Pass;
use super::scales::stream_epsilon;
use super::workspace::DECODE_SEQUENCES;
use crate::backend::{Output, Pooling, Report, Row, RowResult};
use crate::device::Result;
use crate::sampling::{check_finite, choose_behind};

/// A token whose logits the host needs.
#[derive(Clone, Copy)]
struct Wanted {
    row: usize,
    /// Its place among the step's tokens.
    token: usize,
}

impl Pass<'_> {
    /// The logits of a step of any tokens whose residual stream lies in the workspace: starts the choice of `choices`,
    /// and makes the results of the other rows, `None` for one whose tokens the device chooses.
    pub fn outputs(&self, rows: &[Row<'_>], choices: &Choices) -> Result<Vec<Option<RowResult>>> {
        let wanted = wanted_by_host(rows, choices);
        let few = choices.tokens.len() + wanted.len() <= DECODE_SEQUENCES && !self.is_deterministic;
        let mut traced: Vec<(usize, Vec<f32>)> = Vec::new();
        if choices.choosing().is_any {
            let tokens: Vec<usize> = choices.tokens.iter().map(|&token| token as usize).collect();
            self.logits_of(&tokens, few)?;
            if self.trace.wants("result_output") {
                for (index, &token) in tokens.iter().enumerate() {
                    traced.push((token, self.read_logits(index, 1)?));
                }
            }
            self.choose(tokens.len(), choices.choosing(), false)?;
        }
        let mut logits_of: Vec<Vec<f32>> = vec![Vec::new(); rows.len()];
        for group in wanted.chunks(self.workspace.logit_rows) {
            let tokens: Vec<usize> = group.iter().map(|wanted| wanted.token).collect();
            self.logits_of(&tokens, few)?;
            for (index, wanted) in group.iter().enumerate() {
                let logits = self.read_logits(index, 1)?;
                if self.trace.wants("result_output") {
                    traced.push((wanted.token, logits.clone()));
                }
                logits_of[wanted.row].extend(logits);
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
        for (index, (row, logits)) in rows.iter().zip(logits_of).enumerate() {
            results.push(match choices.of_row(index) {
                Some(_) => None,
                None => Some(self.made_by_host(row, first_token, logits)?),
            });
            first_token += row.tokens.len();
        }
        Ok(results)
    }

    /// What the host makes of a decode step, each of whose tokens has a row of logits. The host chooses for no row that
    /// has drafts.
    pub fn made_of_rows(
        &self,
        rows: &[Row<'_>],
        choices: &Choices,
    ) -> Result<Vec<Option<RowResult>>> {
        if self.trace.wants("result_output") {
            let n_tokens = rows.iter().map(|row| row.tokens.len()).sum();
            let logits = self.read_logits(0, n_tokens)?;
            self.trace
                .values("result_output", self.model.vocab(), &logits);
        }
        let mut token = 0;
        let mut results = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            results.push(match choices.of_row(index) {
                Some(_) => None,
                None => {
                    let logits = match n_logits(row) {
                        0 => Vec::new(),
                        _ => self.read_logits(token, 1)?,
                    };
                    Some(self.made_by_host(row, token, logits)?)
                }
            });
            token += row.tokens.len();
        }
        Ok(results)
    }

    /// The logits of the step's tokens `tokens` to the workspace, by the kernel for decoding where the step has `few`
    /// rows of logits.
    fn logits_of(&self, tokens: &[usize], few: bool) -> Result<()> {
        let (width, w) = (self.config.width, self.workspace);
        let mut copied = 0;
        for run in tokens.chunk_by(|token, next| token + 1 == *next) {
            let bytes = 4 * run.len() * width;
            let from = w.x.slice(4 * run[0] * width, bytes)?;
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
            self.matvec(vectors, &[head], MatvecEpilogue::Store, MatvecOrder::InTurn)?;
        } else {
            let normed = self.norm_rows(&w.last, 0, self.output_norm(), copied)?;
            self.multiply(normed, &[head], false)?;
        }
        self.cap_logits(copied)
    }

    /// The result of `row`, whose first token is `first` of the step, from the logits of its last tokens.
    fn made_by_host(&self, row: &Row<'_>, first: usize, logits: Vec<f32>) -> Result<RowResult> {
        let result = self.made_of_logits(row, logits);
        match row.ask.report {
            Report::Hidden(pooling) => self.with_hidden(row, pooling, first, result),
            _ => Ok(result),
        }
    }

    /// What `row` asks of the logits of its last tokens.
    fn made_of_logits(&self, row: &Row<'_>, logits: Vec<f32>) -> RowResult {
        let vocab = self.model.vocab();
        let mut output = Output::default();
        if let Some(choice) = &row.ask.choose {
            let first = row.first_chosen();
            let chosen_from = &logits[logits.len() - (row.tokens.len() - first) * vocab..];
            let drafts = row.tokens.known().get(first + 1..).unwrap_or_default();
            let place = (row.start + first, drafts);
            output = choose_behind(chosen_from, choice, place, row.ask.report)?;
        }
        if matches!(row.ask.report, Report::Logits | Report::AllLogits) {
            check_finite(&logits, row.end() - logits.len() / vocab, vocab)?;
        }
        match row.ask.report {
            Report::AllLogits => output.logits = logits,
            Report::Logits => output.logits = logits[logits.len() - vocab..].to_vec(),
            Report::Nothing | Report::TopLogprobs(_) | Report::Hidden(_) => {}
        }
        Ok(output)
    }

    /// `result` with the hidden state: the last norm in f64, of which no product follows.
    fn with_hidden(
        &self,
        row: &Row<'_>,
        pooling: Pooling,
        first: usize,
        result: RowResult,
    ) -> Result<RowResult> {
        let end = first + row.tokens.len();
        let tokens = match pooling {
            Pooling::Last => end - 1..end,
            Pooling::Mean => first..end,
        };
        let width = self.config.width;
        let mut x = vec![0f32; tokens.len() * width];
        let from = (self.workspace.x).slice(4 * tokens.start * width, 4 * x.len())?;
        self.launcher
            .device()
            .download(bytemuck::cast_slice_mut(&mut x), from)?;
        let weight = &self.model.weights.output_norm;
        let mut sum = vec![0f64; width];
        for x in x.chunks_exact(width) {
            let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
            let epsilon = f64::from(stream_epsilon(self.config));
            let scale = 1.0 / (squares / width as f64 + epsilon).sqrt();
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

    /// Logits of `rows` rows from `first` on.
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
        Ok(logits)
    }
}

/// How many of a row's last tokens the host needs the logits of.
fn n_logits(row: &Row<'_>) -> usize {
    let chosen = row.tokens.len() - row.first_chosen();
    match row.ask.report {
        Report::AllLogits => row.tokens.len(),
        _ if row.ask.choose.is_some() => chosen,
        Report::Logits => 1,
        _ => 0,
    }
}

/// The tokens of a step whose logits the host needs.
fn wanted_by_host(rows: &[Row<'_>], choices: &Choices) -> Vec<Wanted> {
    let mut end = 0;
    let mut wanted = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        end += row.tokens.len();
        if choices.of_row(index).is_none() {
            let tokens = end - n_logits(row)..end;
            wanted.extend(tokens.map(|token| Wanted { row: index, token }));
        }
    }
    wanted
}
