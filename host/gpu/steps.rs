//! What becomes of a step: its inputs go to the device, and it is sent, recorded or replayed.

use super::GpuBackend;
use super::graphs::GraphKey;
use super::logits::{choosing_order, device_choice};
use super::ops::attention_decode::attention_splits;
use super::pass::Pass;
use super::trace::DeviceTracer;
use crate::backend::{NoTrace, Row, RowError, RowResult, TraceSink};
use crate::device::Result;

impl GpuBackend {
    /// Runs a step: a result for each of `rows`.
    pub(super) fn run(
        &mut self,
        rows: &[Row<'_>],
        sink: &mut dyn TraceSink,
    ) -> Result<Vec<RowResult>> {
        let n_tokens: usize = rows.iter().map(|row| row.tokens.len()).sum();
        if n_tokens == rows.len() {
            return self.decode(rows, sink);
        }
        // On the device those of one token come first, for which there is attention of their own. Traces show
        // tensors in the order of the rows, and queries where attention over many tokens leaves them.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        let mut n_decode = 0;
        if !sink.is_active() && !self.setup.is_deterministic {
            order.sort_by_key(|&index| rows[index].tokens.len() > 1);
            n_decode = rows.iter().filter(|row| row.tokens.len() == 1).count();
        }
        let ordered: Vec<Row<'_>> = order.iter().map(|&index| rows[index]).collect();
        self.upload(&ordered)?;
        let trace = DeviceTracer::new(self.device(), sink, n_tokens);
        let longest = ordered[..n_decode].iter().map(Row::end).max().unwrap_or(1);
        let splits = self.splits(n_decode, longest);
        let results = self.pass(&trace).mixed(&ordered, n_decode, splits)?;
        let mut placed: Vec<(usize, RowResult)> = order.into_iter().zip(results).collect();
        placed.sort_by_key(|&(index, _)| index);
        Ok(placed.into_iter().map(in_row).collect())
    }

    /// Runs a step of one token for each sequence.
    fn decode(&mut self, rows: &[Row<'_>], sink: &mut dyn TraceSink) -> Result<Vec<RowResult>> {
        let n = rows.len();
        let longest = rows.iter().map(Row::end).max().unwrap_or(1);
        let key = GraphKey {
            n,
            splits: self.splits(n, longest),
            choice: device_choice(&self.setup.model.config, rows),
        };
        let is_observed = sink.is_active() || self.setup.launcher.is_noting();
        self.upload(rows)?;
        if !is_observed {
            self.run_step(key, rows)?;
        }
        let trace = DeviceTracer::new(self.setup.launcher.device(), sink, n);
        let pass = self.pass(&trace);
        if is_observed {
            pass.send_decode_step(key, rows)?;
        }
        let results = pass.read_outputs(rows)?;
        Ok(results.into_iter().enumerate().map(in_row).collect())
    }

    /// Blocks that share the context of each of `n` sequences, the longest of which has `longest` tokens.
    fn splits(&self, n: usize, longest: usize) -> u32 {
        if self.setup.is_deterministic {
            return 1;
        }
        let multiprocessors = self.device().info().multiprocessors;
        attention_splits(&self.setup.model.config, multiprocessors, n, longest)
    }

    /// Sends the inputs of a step.
    fn upload(&mut self, rows: &[Row<'_>]) -> Result<()> {
        let device = self.setup.launcher.device();
        let choosing = choosing_order(&self.setup.model.config, rows);
        self.graphs.inputs().upload(device, rows, &choosing)
    }

    /// Runs the step of `key`, from its recording where there is one.
    fn run_step(&mut self, key: GraphKey, rows: &[Row<'_>]) -> Result<()> {
        let (setup, device) = (&self.setup, self.setup.launcher.device());
        self.graphs.run(device, key, &|memory| {
            let mut unheard = NoTrace;
            let trace = DeviceTracer::new(device, &mut unheard, key.n);
            Pass::new(setup, memory, &trace).send_decode_step(key, rows)
        })
    }

    /// A step in this backend's memory.
    pub(super) fn pass<'a>(&'a self, trace: &'a DeviceTracer<'a>) -> Pass<'a> {
        Pass::new(&self.setup, self.graphs.memory(), trace)
    }
}

/// A result whose error names its row.
fn in_row((row, result): (usize, RowResult)) -> RowResult {
    result.map_err(|error| match error {
        RowError::NotFinite(mut error) => {
            error.sequence = row;
            error.into()
        }
        error => error,
    })
}
