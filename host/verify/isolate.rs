//! Operation by operation: the reference recomputes each operation from the other backend's own
//! inputs, so that an error shows where it arises and not in everything behind it.

use std::collections::HashMap;

use super::difference::Difference;
use super::saturation::{saturated, saturated_values};
use crate::backend::{RecordedTensor, TensorName, TraceSink};

/// A trace sink for the reference: compares each tensor with the recorded one of another backend,
/// then makes the reference go on with the recorded one.
pub struct Isolate<'a> {
    recorded: HashMap<TensorName, &'a RecordedTensor>,
    /// One row for each tensor that both have, in the reference's order of execution.
    pub rows: Vec<Row>,
}

/// One operation's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The tensor that it wrote.
    pub name: TensorName,
    /// Elements of a token.
    pub elements: usize,
    /// How far it is from the reference.
    pub difference: Difference,
    /// A shape that differs from the reference's, as numbers of values.
    pub lengths: Option<(usize, usize)>,
    /// Elements of queries, keys or values that are beyond f16.
    pub saturated: usize,
}

impl<'a> Isolate<'a> {
    /// Compares with `recorded`, all tensors of the same step.
    pub fn new(recorded: &'a [RecordedTensor]) -> Isolate<'a> {
        let recorded = recorded
            .iter()
            .map(|tensor| (tensor.name, tensor))
            .collect();
        Isolate {
            recorded,
            rows: Vec::new(),
        }
    }
}

impl Isolate<'_> {
    fn saturated(&self, name: TensorName, values: &[f32], reference: &[f32]) -> usize {
        let cached_values = TensorName {
            base: "Vcur",
            ..name
        };
        match (name.base, self.recorded.get(&cached_values)) {
            ("Qcur" | "Kcur", _) => saturated(values, reference),
            // Attention is the first operation that reads values from the cache.
            ("kqv_out", Some(values)) => saturated_values(&values.data),
            _ => 0,
        }
    }
}

impl TraceSink for Isolate<'_> {
    fn wants(&self, name: TensorName) -> bool {
        self.recorded.contains_key(&name)
    }

    fn record(&mut self, name: TensorName, elements: usize, reference: &[f32]) {
        let values = &self.recorded[&name].data;
        let lengths = (values.len() != reference.len()).then_some((values.len(), reference.len()));
        let difference = match lengths {
            None => Difference::of(values, reference),
            Some(_) => Difference::of(&[f32::NAN], &[0.0]),
        };
        let saturated = self.saturated(name, values, reference);
        self.rows.push(Row {
            name,
            elements,
            difference,
            lengths,
            saturated,
        });
    }

    fn forced(&self, name: TensorName) -> Option<&[f32]> {
        let row = self.rows.iter().rfind(|row| row.name == name)?;
        // Values that are not finite or too few would only hide what comes behind them.
        let usable = row.lengths.is_none() && row.difference.non_finite == 0;
        usable.then(|| self.recorded[&name].data.as_slice())
    }
}
