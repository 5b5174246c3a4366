//! A backend's tensors against those of a file.

use std::collections::HashSet;

use super::difference::Difference;
use super::experts::ExpertChoices;
use super::report::{CheckedRow, Report, StepKind, StepReport};
use super::trace_file::TraceFile;
use crate::backend::{
    Ask, Backend, BackendError, NewTokens, PAGE_TOKENS, RecordedTensor, Recorder, Row, TensorName,
};

/// The tensors and the logits of one forward over a prompt.
pub struct Forward {
    /// In order of execution.
    pub tensors: Vec<RecordedTensor>,
    /// Of the positions that were asked for, `[positions, vocab]`.
    pub logits: Vec<f32>,
}

/// Runs `tokens` in one step on `backend`, whose cache is empty, and keeps the tensors that `wanted`
/// names.
pub fn forward<'a>(
    backend: &mut dyn Backend,
    tokens: &[u32],
    ask: Ask<'_>,
    wanted: impl Fn(TensorName) -> bool + Send + 'a,
) -> Result<Forward, BackendError> {
    let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE_TOKENS) as u32).collect();
    let row = Row {
        tokens: NewTokens::Known(tokens),
        start: 0,
        pages: &pages,
        ask,
    };
    let mut recorder = Recorder::new(wanted);
    let mut logits = Vec::new();
    for result in backend.step(&[row], &mut recorder)? {
        logits = result?.logits;
    }
    Ok(Forward {
        tensors: recorder.tensors,
        logits,
    })
}

/// What came of a comparison with a file.
pub struct Comparison {
    /// The tensors that both have, as the one step of a report.
    pub report: Report,
    /// Tensors of the file that the backend does not report.
    pub unknown: Vec<String>,
}

/// Runs the tokens of `file` on `backend` and holds every tensor that both have against the file's.
/// Errors pile up from block to block here, so all share one `bound`, justified by `why`.
pub fn compare(
    backend: &mut dyn Backend,
    file: &TraceFile,
    file_name: &str,
    bound: f64,
    why: &str,
) -> Result<Comparison, BackendError> {
    let all = file.tensors.contains_key("logits");
    let ask = if all { Ask::ALL_LOGITS } else { Ask::LOGITS };
    let in_file = |name: TensorName| file.tensors.contains_key(&name.to_string());
    let forward = forward(backend, &file.tokens, ask, in_file)?;
    let logits = RecordedTensor {
        name: TensorName {
            base: if all { "logits" } else { "logits_last" },
            layer: None,
        },
        elements: backend.model().vocab(),
        data: forward.logits,
    };
    let mut compared = HashSet::new();
    let mut rows = Vec::new();
    for tensor in forward.tensors.iter().chain([&logits]) {
        let name = tensor.name.to_string();
        if let Some(expected) = file.tensors.get(&name) {
            rows.push(check(tensor, expected, bound, why));
            compared.insert(name);
        }
    }
    // A file of ours or of llama.cpp may hold results of a generation as well.
    let of_a_forward = |name: &&String| !name.starts_with("greedy");
    let unknown = file.tensors.keys().filter(of_a_forward);
    Ok(Comparison {
        unknown: unknown
            .filter(|name| !compared.contains(*name))
            .cloned()
            .collect(),
        report: Report {
            backend: backend.description(),
            reference: file_name.to_owned(),
            prompt_tokens: file.tokens.len(),
            steps: vec![StepReport {
                kind: StepKind::Prefill,
                start: 0,
                tokens: file.tokens.len(),
                rows,
                missing: Vec::new(),
                choices: ExpertChoices::default(),
            }],
        },
    })
}

fn check(tensor: &RecordedTensor, expected: &[f32], bound: f64, why: &str) -> CheckedRow {
    let (found, wanted) = (tensor.data.len(), expected.len());
    let lengths = (found != wanted).then_some((found, wanted));
    let difference = match lengths {
        None => Difference::of(&tensor.data, expected),
        Some(_) => Difference::of(&[f32::NAN], &[0.0]),
    };
    CheckedRow {
        name: tensor.name,
        elements: tensor.elements,
        passed: lengths.is_none() && difference.within(bound),
        difference,
        lengths,
        saturated: 0,
        bound,
        why: why.to_owned(),
    }
}
