//! Runs a prompt and a few tokens behind it through a backend and through the reference.

use super::bounds::{Bounds, Computed};
use super::isolate::{Isolate, Row};
use super::report::{CheckedRow, Report, StepKind, StepReport};
use crate::backend::{
    Backend, BackendError, Output, PAGE_TOKENS, PageId, RecordedTensor, Recorder, SequenceStep,
    TensorName, TraceSink, Want,
};

/// What to run.
pub struct Plan<'a> {
    /// The prompt.
    pub tokens: &'a [u32],
    /// Prompt tokens of a step.
    pub chunk: usize,
    /// Decode steps behind the prompt.
    pub decode_steps: usize,
    /// How far operations may be off.
    pub bounds: &'a Bounds,
}

impl Plan<'_> {
    /// Pages that each backend must have.
    pub fn pages(&self) -> usize {
        (self.tokens.len() + self.decode_steps).div_ceil(PAGE_TOKENS)
    }
}

/// What the verified backend reported of one step.
pub struct ObservedStep<'a> {
    /// Its kind.
    pub kind: StepKind,
    /// Its tokens.
    pub tokens: &'a [u32],
    /// The backend's tensors.
    pub tensors: &'a [RecordedTensor],
    /// What bounds depend on.
    pub computed: &'a Computed,
}

/// Runs `plan` on `subject` and `reference`, which both start with an empty cache of at least
/// [`Plan::pages`] pages. `observe` sees the subject's tensors of every step.
pub fn verify(
    subject: &mut dyn Backend,
    reference: &mut dyn Backend,
    plan: &Plan<'_>,
    observe: &mut dyn FnMut(&ObservedStep<'_>),
) -> Result<Report, BackendError> {
    let mut run = Run {
        // From the last page on, so that a page table which is not followed shows.
        subject_pages: (0..plan.pages() as PageId).rev().collect(),
        reference_pages: (0..plan.pages() as PageId).collect(),
        subject,
        reference,
        bounds: plan.bounds,
        position: 0,
        steps: Vec::new(),
        observe,
    };
    let mut next = None;
    let n_chunks = plan.tokens.chunks(plan.chunk.max(1)).len();
    for (index, chunk) in plan.tokens.chunks(plan.chunk.max(1)).enumerate() {
        let want = match index + 1 == n_chunks {
            true => Want::LastLogits,
            false => Want::Nothing,
        };
        next = run.step(StepKind::Prefill, chunk, want)?;
    }
    for _ in 0..plan.decode_steps {
        let Some(token) = next else { break };
        next = run.step(StepKind::Decode, &[token], Want::LastLogits)?;
    }
    Ok(Report {
        steps: run.steps,
        backend: subject.description(),
        reference: reference.description(),
        prompt_tokens: plan.tokens.len(),
    })
}

struct Run<'a> {
    subject: &'a mut dyn Backend,
    reference: &'a mut dyn Backend,
    subject_pages: Vec<PageId>,
    reference_pages: Vec<PageId>,
    bounds: &'a Bounds,
    position: usize,
    steps: Vec<StepReport>,
    observe: &'a mut dyn FnMut(&ObservedStep<'_>),
}

impl Run<'_> {
    /// One step of both; gives the token that the reference would go on with.
    fn step(
        &mut self,
        kind: StepKind,
        tokens: &[u32],
        want: Want,
    ) -> Result<Option<u32>, BackendError> {
        let n_pages = (self.position + tokens.len()).div_ceil(PAGE_TOKENS);
        let start = self.position;
        fn sequence<'s>(
            tokens: &'s [u32],
            start: usize,
            pages: &'s [PageId],
            want: Want,
        ) -> [SequenceStep<'s>; 1] {
            [SequenceStep {
                tokens,
                start,
                pages,
                want,
            }]
        }

        let mut recorder = Recorder::new(|_| true);
        let step = sequence(tokens, start, &self.subject_pages[..n_pages], want);
        let outputs = self.subject.step(&step, &mut recorder)?;
        let mut recorded = recorder.tensors;
        add_logits(&mut recorded, outputs);
        let mut comparison = Comparison {
            isolate: Isolate::new(&recorded),
            recorded: &recorded,
            bounds: self.bounds,
            last_length: 0,
            computed: Computed {
                reported: recorded.iter().map(|tensor| tensor.name).collect(),
                ..Computed::default()
            },
            missing: Vec::new(),
        };
        let step = sequence(tokens, start, &self.reference_pages[..n_pages], want);
        let outputs = self.reference.step(&step, &mut comparison)?;
        let Comparison {
            isolate,
            computed,
            missing,
            ..
        } = comparison;
        let n_wanted = usize::from(want != Want::Nothing);
        let rows = isolate.rows.into_iter().map(|row| {
            let n_rows = match row.name.layer {
                None if row.name.base == "result_output" => n_wanted,
                _ => tokens.len(),
            };
            check(row, n_rows, self.bounds, &computed)
        });
        let rows = rows.collect();
        (self.observe)(&ObservedStep {
            kind,
            tokens,
            tensors: &recorded,
            computed: &computed,
        });
        self.steps.push(StepReport {
            kind,
            start,
            tokens: tokens.len(),
            rows,
            missing,
        });
        self.position += tokens.len();
        Ok(outputs.first().and_then(most_probable))
    }
}

/// A backend that does not trace its logits still gives them.
fn add_logits(recorded: &mut Vec<RecordedTensor>, outputs: Vec<Output>) {
    let name = TensorName {
        base: "result_output",
        layer: None,
    };
    if recorded.iter().any(|tensor| tensor.name == name) {
        return;
    }
    if let Some(Output::Logits(data)) = outputs.into_iter().next() {
        recorded.push(RecordedTensor {
            name,
            elements: data.len(),
            data,
        });
    }
}

fn most_probable(output: &Output) -> Option<u32> {
    match output {
        Output::Logits(logits) => {
            let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            best.map(|(index, _)| index as u32)
        }
        Output::Token(token) => Some(*token),
        Output::Nothing => None,
    }
}

fn check(row: Row, n_rows: usize, bounds: &Bounds, computed: &Computed) -> CheckedRow {
    let bound = bounds.of(row.name, n_rows, computed);
    let passed = row.lengths.is_none() && row.difference.within(bound.relative);
    CheckedRow {
        name: row.name,
        elements: row.elements,
        difference: row.difference,
        lengths: row.lengths,
        bound: bound.relative,
        why: bound.why,
        passed,
    }
}

/// [`Isolate`] that notes what bounds depend on, and which tensors the backend should have reported
/// and did not. All others may lie inside a fused operation.
struct Comparison<'a> {
    isolate: Isolate<'a>,
    recorded: &'a [RecordedTensor],
    bounds: &'a Bounds,
    /// Values of the reference's tensor that was recorded last.
    last_length: usize,
    computed: Computed,
    missing: Vec<TensorName>,
}

impl Comparison<'_> {
    const REQUIRED: [&'static str; 5] = ["Kcur", "Vcur", "kqv_out", "l_out", "result_output"];
}

impl TraceSink for Comparison<'_> {
    fn wants(&self, name: TensorName) -> bool {
        // Computed for traces alone.
        name.base != "norm" || self.isolate.wants(name)
    }

    fn record(&mut self, name: TensorName, elements: usize, data: &[f32]) {
        self.last_length = data.len();
        let found = self.recorded.iter().find(|tensor| tensor.name == name);
        let found = found.map(|tensor| tensor.data.as_slice());
        let rows = match found {
            // A backend may norm only those rows whose logits somebody wants: here the last ones.
            Some(found) if name.base == "result_norm" => {
                &data[data.len().saturating_sub(found.len())..]
            }
            _ => data,
        };
        // Nothing where nobody wants logits.
        if rows.is_empty() {
            return;
        }
        let square: f64 = rows.iter().map(|&value| f64::from(value).powi(2)).sum();
        self.computed.norms.insert(name, square.sqrt());
        if self.bounds.is_input(name) {
            let input = found.unwrap_or(rows);
            self.computed.inputs.insert(name, input.to_vec());
        }
        if found.is_some() {
            self.isolate.record(name, elements, rows);
        } else if Self::REQUIRED.contains(&name.base) {
            self.missing.push(name);
        }
    }

    fn forced(&self, name: TensorName) -> Option<&[f32]> {
        // Tensors of which only the last rows were compared are too short to go on with.
        let whole = |data: &&[f32]| data.len() == self.last_length;
        self.isolate.forced(name).filter(whole)
    }
}
