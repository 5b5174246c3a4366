//! What a verification found.

use std::fmt;

use serde::Serialize;

use super::difference::Difference;
use super::experts::ExpertChoices;
use super::explain::depends_on;
use super::saturation::describe;
use crate::backend::TensorName;

/// What kind of step ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    /// A chunk of the prompt.
    Prefill,
    /// One token behind the prompt.
    Decode,
    /// One token of each of several sequences.
    Batch,
}

impl StepKind {
    /// All of them in the order in which they run.
    pub const ALL: [StepKind; 3] = [StepKind::Prefill, StepKind::Decode, StepKind::Batch];
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            StepKind::Prefill => "prefill",
            StepKind::Decode => "decode",
            StepKind::Batch => "batch",
        })
    }
}

/// One operation of one step, held against its bound.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedRow {
    /// The tensor that it wrote.
    #[serde(rename = "tensor", serialize_with = "as_text")]
    pub name: TensorName,
    /// Elements of a token.
    pub elements: usize,
    /// How far it is from the reference.
    #[serde(flatten)]
    pub difference: Difference,
    /// A number of values that differs from the reference's: the backend's and the reference's.
    pub lengths: Option<(usize, usize)>,
    /// Elements of queries, keys or values that are beyond f16, and saturated in it.
    pub saturated: usize,
    /// The largest relative error that passes.
    pub bound: f64,
    /// What the bound follows from.
    pub why: String,
    /// Whether it is within the bound.
    pub passed: bool,
}

fn as_text<S: serde::Serializer>(name: &TensorName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}

impl CheckedRow {
    /// The error in units of the bound; what is not finite is infinitely far off.
    pub fn severity(&self) -> f64 {
        let severity = self.difference.relative / self.bound;
        if self.difference.non_finite > 0 || severity.is_nan() {
            f64::INFINITY
        } else {
            severity
        }
    }

    /// Token of the step and element with the largest error.
    pub fn worst_place(&self) -> (usize, usize) {
        let elements = self.elements.max(1);
        let worst = self.difference.worst;
        (worst / elements, worst % elements)
    }
}

/// One step of both backends.
#[derive(Debug, Clone, Serialize)]
pub struct StepReport {
    /// Its kind.
    pub kind: StepKind,
    /// Position of its first token, in its first sequence.
    pub start: usize,
    /// Its tokens.
    pub tokens: usize,
    /// Its operations in order of execution.
    pub rows: Vec<CheckedRow>,
    /// Tensors without which nothing is proved, and which the backend did not report.
    #[serde(serialize_with = "as_texts")]
    pub missing: Vec<TensorName>,
    /// Choices of experts.
    pub choices: ExpertChoices,
}

fn as_texts<S: serde::Serializer>(names: &[TensorName], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(ToString::to_string))
}

/// A whole verification.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The backend that was verified.
    pub backend: String,
    /// What it was held against.
    pub reference: String,
    /// The prompt's length.
    pub prompt_tokens: usize,
    /// All steps in order.
    pub steps: Vec<StepReport>,
}

/// The first thing that is wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Fault {
    /// Its step.
    pub step: usize,
    /// The tensor.
    pub tensor: String,
    /// What is wrong with it.
    pub what: String,
    /// What the operation that writes it depends on.
    pub depends_on: String,
}

impl Report {
    /// Whether every operation was reported and is within its bound.
    pub fn passed(&self) -> bool {
        self.first_fault().is_none()
    }

    /// The first operation that is out of bounds or not reported.
    pub fn first_fault(&self) -> Option<Fault> {
        let fault = self.steps.iter().enumerate().find_map(|(index, step)| {
            let row = step.rows.iter().find(|row| !row.passed);
            let (name, what) = match (row, step.missing.first()) {
                (Some(row), _) => (row.name, what_is_wrong(row)),
                (None, Some(&name)) => (name, "the backend did not report it".to_owned()),
                (None, None) if step.rows.is_empty() => {
                    return Some(Fault {
                        step: index,
                        tensor: "none".to_owned(),
                        what: "the backend reported no tensor at all".to_owned(),
                        depends_on: "the backend's tracing".to_owned(),
                    });
                }
                (None, None) => return None,
            };
            Some(Fault {
                step: index,
                tensor: name.to_string(),
                what,
                depends_on: depends_on(name),
            })
        });
        fault.or_else(|| self.too_many_swaps())
    }

    /// All choices of experts.
    pub fn choices(&self) -> ExpertChoices {
        let mut all = ExpertChoices::default();
        self.steps.iter().for_each(|step| all.add(step.choices));
        all
    }

    fn too_many_swaps(&self) -> Option<Fault> {
        let name = TensorName {
            base: "ffn_moe_topk",
            layer: None,
        };
        let choices = self.choices();
        choices.are_too_many().then(|| Fault {
            step: 0,
            tensor: name.to_string(),
            what: format!(
                "of {} choices of experts {} are others than the reference's, more than one in a hundred",
                choices.total, choices.swapped
            ),
            depends_on: depends_on(name),
        })
    }

    /// All operations of all steps.
    pub fn rows(&self) -> impl Iterator<Item = (&StepReport, &CheckedRow)> {
        let steps = self.steps.iter();
        steps.flat_map(|step| step.rows.iter().map(move |row| (step, row)))
    }
}

fn what_is_wrong(row: &CheckedRow) -> String {
    let difference = &row.difference;
    let (token, element) = row.worst_place();
    if let Some((found, expected)) = row.lengths {
        return format!("{found} values where the reference has {expected}");
    }
    if difference.non_finite > 0 {
        return format!(
            "{} values are not finite, the first is element {element} of token {token}",
            difference.non_finite
        );
    }
    if row.name.base == "ffn_moe_topk" {
        return format!(
            "experts whose scores are farther from the best than a router may be off; one is that of rank {element} \
             of token {token}"
        );
    }
    let saturated = match row.saturated {
        0 => String::new(),
        count => format!("{}; ", describe(row.name.base, count)),
    };
    format!(
        "{saturated}relative error {:.2e}, bound {:.1e} ({}); worst at element {element} of token {token}",
        difference.relative, row.bound, row.why
    )
}
