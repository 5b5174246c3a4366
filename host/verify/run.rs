//! Runs a prompt and a few tokens behind it through a backend and through the reference.

use super::bounds::{Bounds, Computed};
use super::experts::ExpertChoices;
use super::isolate::{Isolate, Row};
use super::report::{CheckedRow, Report, StepKind, StepReport};
use crate::backend::{
    self, Ask, Backend, BackendError, NewTokens, PAGE_TOKENS, PageId, RecordedTensor, Recorder,
    RowResult, TensorName, TraceSink,
};

/// What to run.
pub struct Plan<'a> {
    /// The prompt.
    pub tokens: &'a [u32],
    /// Prompt tokens of a step.
    pub chunk: usize,
    /// Decode steps behind the prompt.
    pub decode_steps: usize,
    /// Sequences that then decode together for as many steps; below 2 there is no such part.
    pub batch: usize,
}

impl Plan<'_> {
    /// Pages that each backend must have.
    pub fn pages(&self) -> usize {
        self.prompts().map(|prompt| self.pages_of(prompt)).sum()
    }

    /// The prompt, then shorter and shorter beginnings of it for the other sequences of a batch.
    fn prompts(&self) -> impl Iterator<Item = &[u32]> {
        let batch = self.batch.max(1);
        (0..batch).map(move |index| {
            let len = self.tokens.len() * (batch - index) / batch;
            &self.tokens[..len.max(1)]
        })
    }

    /// Pages for one sequence.
    fn pages_of(&self, prompt: &[u32]) -> usize {
        (prompt.len() + 2 * self.decode_steps).div_ceil(PAGE_TOKENS)
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
/// [`Plan::pages`] pages, and holds every operation against `bounds`. `observe` sees the subject's tensors of every step.
pub fn verify(
    subject: &mut dyn Backend,
    reference: &mut dyn Backend,
    plan: &Plan<'_>,
    bounds: &Bounds,
    observe: &mut dyn FnMut(&ObservedStep<'_>),
) -> Result<Report, BackendError> {
    let n_pages = plan.pages() as PageId;
    // From the last page on, so that a page table which is not followed shows.
    let (mut subject_pages, mut reference_pages) = ((0..n_pages).rev(), 0..n_pages);
    let sequences = plan.prompts().map(|prompt| {
        let n = plan.pages_of(prompt);
        State {
            position: 0,
            next: None,
            subject_pages: subject_pages.by_ref().take(n).collect(),
            reference_pages: reference_pages.by_ref().take(n).collect(),
        }
    });
    let mut run = Run {
        sequences: sequences.collect(),
        subject,
        reference,
        bounds,
        steps: Vec::new(),
        observe,
    };
    for (index, prompt) in plan.prompts().enumerate() {
        let n_chunks = prompt.chunks(plan.chunk.max(1)).len();
        for (chunk_index, chunk) in prompt.chunks(plan.chunk.max(1)).enumerate() {
            let ask = match chunk_index + 1 == n_chunks {
                true => Ask::LOGITS,
                false => Ask::NOTHING,
            };
            run.step(StepKind::Prefill, &[(index, chunk)], ask)?;
        }
    }
    for _ in 0..plan.decode_steps {
        run.decode(StepKind::Decode, 1)?;
    }
    if plan.batch > 1 {
        for _ in 0..plan.decode_steps {
            run.decode(StepKind::Batch, plan.batch)?;
        }
    }
    Ok(Report {
        steps: run.steps,
        backend: subject.description(),
        reference: reference.description(),
        prompt_tokens: plan.tokens.len(),
    })
}

/// One sequence in both caches.
struct State {
    position: usize,
    /// The token that the reference goes on with.
    next: Option<u32>,
    subject_pages: Vec<PageId>,
    reference_pages: Vec<PageId>,
}

struct Run<'a> {
    subject: &'a mut dyn Backend,
    reference: &'a mut dyn Backend,
    sequences: Vec<State>,
    bounds: &'a Bounds,
    steps: Vec<StepReport>,
    observe: &'a mut dyn FnMut(&ObservedStep<'_>),
}

impl Run<'_> {
    /// One token for each of the first `n` sequences.
    fn decode(&mut self, kind: StepKind, n: usize) -> Result<(), BackendError> {
        let next = self.sequences[..n].iter().map(|sequence| sequence.next);
        let tokens: Vec<u32> = next.map(Option::unwrap_or_default).collect();
        let parts: Vec<(usize, &[u32])> = tokens
            .iter()
            .map(std::slice::from_ref)
            .enumerate()
            .collect();
        self.step(kind, &parts, Ask::LOGITS)
    }

    /// One step of both with new tokens for some sequences.
    fn step(
        &mut self,
        kind: StepKind,
        parts: &[(usize, &[u32])],
        ask: Ask<'static>,
    ) -> Result<(), BackendError> {
        let steps = |pages: fn(&State) -> &[PageId]| -> Vec<backend::Row<'_>> {
            let steps = parts.iter().map(|&(index, tokens)| {
                let sequence = &self.sequences[index];
                backend::Row {
                    tokens: NewTokens::Known(tokens),
                    start: sequence.position,
                    pages: pages(sequence),
                    ask,
                }
            });
            steps.collect()
        };
        let tokens = parts.iter().flat_map(|(_, tokens)| *tokens);
        let tokens: Vec<u32> = tokens.copied().collect();
        let vocab = self.reference.model().vocab();

        let mut recorder = Recorder::new(|_| true);
        let outputs = (self.subject).step(&steps(|state| &state.subject_pages), &mut recorder)?;
        let mut recorded = recorder.tensors;
        add_logits(&mut recorded, vocab, &outputs);
        let mut comparison = Comparison {
            isolate: Isolate::new(&recorded),
            recorded: &recorded,
            bounds: self.bounds,
            last_length: 0,
            computed: Computed {
                is_decode: tokens.len() == parts.len(),
                reported: recorded.iter().map(|tensor| tensor.name).collect(),
                ..Computed::default()
            },
            missing: Vec::new(),
            scores: Vec::new(),
            choices: ExpertChoices::default(),
            wrong_choices: Vec::new(),
        };
        let outputs =
            (self.reference).step(&steps(|state| &state.reference_pages), &mut comparison)?;
        let Comparison {
            isolate,
            computed,
            missing,
            choices,
            wrong_choices,
            ..
        } = comparison;
        let n_wanted = match ask {
            Ask::NOTHING => 0,
            _ => parts.len(),
        };
        let rows = isolate.rows.into_iter().map(|row| {
            let n_rows = match row.name.layer {
                None if row.name.base == "result_output" => n_wanted,
                _ => tokens.len(),
            };
            let has_wrong = wrong_choices.contains(&row.name);
            let is_choice = row.name.base == "ffn_moe_topk";
            let row = check(row, n_rows, self.bounds, &computed);
            // Numbers of experts are no measure.
            let passed = match is_choice {
                true => row.lengths.is_none() && !has_wrong,
                false => row.passed,
            };
            CheckedRow { passed, ..row }
        });
        let rows = rows.collect();
        (self.observe)(&ObservedStep {
            kind,
            tokens: &tokens,
            tensors: &recorded,
            computed: &computed,
        });
        self.steps.push(StepReport {
            kind,
            start: self.sequences[parts[0].0].position,
            tokens: tokens.len(),
            rows,
            missing,
            choices,
        });
        for (&(index, tokens), output) in parts.iter().zip(&outputs) {
            let sequence = &mut self.sequences[index];
            sequence.position += tokens.len();
            sequence.next = most_probable(output);
        }
        Ok(())
    }
}

/// A backend that does not trace its logits still gives them.
fn add_logits(recorded: &mut Vec<RecordedTensor>, vocab: usize, results: &[RowResult]) {
    let name = TensorName {
        base: "result_output",
        layer: None,
    };
    if recorded.iter().any(|tensor| tensor.name == name) {
        return;
    }
    let outputs = results.iter().flatten();
    let logits = outputs.flat_map(|output| output.logits.iter().copied());
    recorded.push(RecordedTensor {
        name,
        elements: vocab,
        data: logits.collect(),
    });
}

fn most_probable(result: &RowResult) -> Option<u32> {
    let logits = &result.as_ref().ok()?.logits;
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map(|(index, _)| index as u32)
}

fn check(row: Row, n_rows: usize, bounds: &Bounds, computed: &Computed) -> CheckedRow {
    let mut bound = bounds.of(row.name, n_rows, computed);
    let is_whole = row.lengths.is_none() && row.saturated == 0;
    if is_whole && !row.difference.within(bound.relative) {
        // The errors of the factors may not have told what they do to the product.
        let gated = bounds.of_gated(row.name, n_rows, computed);
        let gated = gated.filter(|gated| gated.relative > bound.relative);
        bound = gated.unwrap_or(bound);
    }
    let passed = is_whole && row.difference.within(bound.relative);
    CheckedRow {
        name: row.name,
        elements: row.elements,
        difference: row.difference,
        lengths: row.lengths,
        saturated: row.saturated,
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
    /// The router's scores of the block that runs, the reference's own.
    scores: Vec<f32>,
    choices: ExpertChoices,
    /// Those of experts whose scores are too far apart.
    wrong_choices: Vec<TensorName>,
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
        match (name.base, found) {
            ("ffn_moe_logits", _) => self.scores = data.to_vec(),
            ("ffn_moe_topk", Some(ids)) => {
                let choices = self.bounds.choices(&self.scores, ids);
                if choices.beyond > 0 {
                    self.wrong_choices.push(name);
                }
                self.choices.add(choices);
            }
            _ => {}
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
