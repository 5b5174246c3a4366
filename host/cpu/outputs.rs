//! From logits and hidden states to what the rows of a step asked for.

use crate::backend::{NotFinite, Output, Pooling, Report, Row, RowError, RowResult};
use crate::sampling::{check_finite, choose_behind};

/// Indices, among all tokens of a step, of those whose logits somebody wants.
pub fn wanted_tokens(rows: &[Row<'_>]) -> Vec<usize> {
    let mut first = 0;
    let mut wanted = Vec::new();
    for row in rows {
        let end = first + row.tokens.len();
        wanted.extend(end - n_logits(row)..end);
        first = end;
    }
    wanted
}

/// How many of a row's last tokens need logits.
fn n_logits(row: &Row<'_>) -> usize {
    let reported = match row.ask.report {
        Report::AllLogits => row.tokens.len(),
        Report::Logits => 1,
        Report::Nothing | Report::TopLogprobs(_) | Report::Hidden(_) => 0,
    };
    let chosen = row.ask.choose.map_or(0, |choice| 1 + choice.drafts.len());
    reported.max(chosen)
}

/// What a step computed.
pub struct Computed<'a> {
    /// Of the tokens that [`wanted_tokens`] names.
    pub logits: Vec<f32>,
    /// Logits of a token.
    pub vocab: usize,
    /// The hidden state of a token of the step.
    pub hidden: &'a dyn Fn(usize) -> Vec<f64>,
}

impl Computed<'_> {
    /// A result for each of `rows`, whose tokens are `ids`.
    pub fn results(&self, rows: &[Row<'_>], ids: &[Vec<u32>]) -> Vec<RowResult> {
        let (mut first_token, mut first_logits) = (0, 0);
        let mut results = Vec::with_capacity(rows.len());
        for (index, (row, ids)) in rows.iter().zip(ids).enumerate() {
            let n_logits = n_logits(row);
            let logits = &self.logits[first_logits * self.vocab..][..n_logits * self.vocab];
            let result = self.result(row, ids, logits, first_token);
            results.push(result.map_err(|error| in_row(error, index)));
            first_token += ids.len();
            first_logits += n_logits;
        }
        results
    }

    fn result(&self, row: &Row<'_>, ids: &[u32], logits: &[f32], first_token: usize) -> RowResult {
        let mut output = Output::default();
        if let Some(choice) = &row.ask.choose {
            let first = row.first_chosen();
            let chosen_from = &logits[logits.len() - (ids.len() - first) * self.vocab..];
            let place = (row.start + first, &ids[first + 1..]);
            output = choose_behind(chosen_from, choice, place, row.ask.report)?;
        }
        if matches!(row.ask.report, Report::Logits | Report::AllLogits) {
            check_finite(logits, row.end() - logits.len() / self.vocab, self.vocab)?;
        }
        let last = logits.len().saturating_sub(self.vocab);
        match row.ask.report {
            Report::Nothing | Report::TopLogprobs(_) => {}
            Report::Logits => output.logits = logits[last..].to_vec(),
            Report::AllLogits => output.logits = logits.to_vec(),
            Report::Hidden(pooling) => {
                let end = first_token + ids.len();
                output.hidden = match pooling {
                    Pooling::Last => self.mean_hidden(end - 1..end),
                    Pooling::Mean => self.mean_hidden(first_token..end),
                };
            }
        }
        Ok(output)
    }

    fn mean_hidden(&self, tokens: std::ops::Range<usize>) -> Vec<f32> {
        let n = tokens.len() as f64;
        let sum = tokens.map(self.hidden).reduce(|mut sum, next| {
            sum.iter_mut()
                .zip(next)
                .for_each(|(sum, next)| *sum += next);
            sum
        });
        let sum = sum.unwrap_or_default();
        sum.into_iter().map(|sum| (sum / n) as f32).collect()
    }
}

/// `error` with the row that it belongs to.
fn in_row(error: RowError, row: usize) -> RowError {
    match error {
        RowError::NotFinite(error) => NotFinite {
            sequence: row,
            ..error
        }
        .into(),
        error => error,
    }
}
