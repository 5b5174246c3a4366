//! What becomes of a step: its inputs go to the device, and it is sent, recorded or replayed.

use super::GpuBackend;
use super::choices::Choices;
use super::graphs::GraphKey;
use super::ops::attention_decode::attention_splits;
use super::ops::matmul::MATMUL_MAX_VECTORS;
use super::pass::Pass;
use super::trace::DeviceTracer;
use super::under_way::{Chosen, Pending, Source};
use crate::backend::{
    BackendError, IN_FLIGHT, NewTokens, NoTrace, Row, RowError, Ticket, TraceSink,
};
use crate::device::Result;

impl GpuBackend {
    /// Sends a step that was checked.
    pub(super) fn send(
        &mut self,
        rows: &[Row<'_>],
        sink: &mut dyn TraceSink,
    ) -> Result<Ticket, BackendError> {
        if self.under_way.len() >= IN_FLIGHT {
            return Err(BackendError::InFlight);
        }
        let sources = self.sources(rows)?;
        let device = |error| BackendError::Device(Box::new(error));
        // What is known by now is like any other token.
        let resolved = rows.iter().zip(&sources).map(|(row, source)| Row {
            tokens: match source {
                Some(Source::Token(token)) => NewTokens::Known(std::slice::from_ref(token)),
                _ => row.tokens,
            },
            ..*row
        });
        let resolved: Vec<Row<'_>> = resolved.collect();
        let on_device = sources.iter().map(|source| match source {
            Some(Source::Logits(row)) => Some(*row),
            _ => None,
        });
        let on_device: Vec<Option<usize>> = on_device.collect();
        let sent = self.run(&resolved, &on_device, sink).and_then(|pending| {
            let mark = self.under_way.next_mark(&pending);
            if let Some(mark) = mark {
                self.graphs.mailbox().mark(mark)?;
            }
            Ok((pending, mark))
        });
        match sent {
            Ok((pending, mark)) => Ok(self.under_way.push(pending, mark)),
            Err(error) => {
                // How much of the step ran is not known, and what a step before it posted could be overwritten.
                self.under_way.settle(&*self.graphs.memory().mailbox);
                self.graphs.inputs().forget();
                Err(device(error))
            }
        }
    }

    /// Where the tokens come from that earlier steps choose.
    fn sources(&self, rows: &[Row<'_>]) -> Result<Vec<Option<Source>>, BackendError> {
        let sources = rows.iter().map(|row| match row.tokens {
            NewTokens::Known(_) => Ok(None),
            NewTokens::ChosenBy(ticket, row) => self.under_way.source(ticket, row).map(Some),
        });
        sources.collect()
    }

    /// Sends a step: what becomes of each of `rows`.
    fn run(
        &mut self,
        rows: &[Row<'_>],
        sources: &[Option<usize>],
        sink: &mut dyn TraceSink,
    ) -> Result<Vec<Pending>> {
        let n_tokens: usize = rows.iter().map(|row| row.tokens.len()).sum();
        if n_tokens > MATMUL_MAX_VECTORS && self.wants_copies {
            // Before a graph is recorded.
            self.wants_copies = false;
            let trace = DeviceTracer::new(self.setup.launcher.device(), sink, n_tokens);
            self.pass(&trace).copy_matrices()?;
        }
        if rows.iter().all(|row| row.first_chosen() == 0) {
            let choices = Choices::of(rows, self.limits);
            if choices.is_of_each {
                return self.decode(rows, sources, &choices, sink);
            }
        }
        // On the device those of one token come first, for which there is attention of their own. Traces show
        // tensors in the order of the rows, and queries where attention over many tokens leaves them.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        let mut n_decode = 0;
        let splits_rows = !sink.is_active() && !self.setup.is_deterministic;
        if splits_rows || sources.iter().any(Option::is_some) {
            // Tokens are gathered for the first rows of a step.
            order.sort_by_key(|&index| rows[index].tokens.len() > 1);
        }
        if splits_rows {
            n_decode = rows.iter().filter(|row| row.tokens.len() == 1).count();
        }
        let ordered: Vec<Row<'_>> = order.iter().map(|&index| rows[index]).collect();
        let sources: Vec<Option<usize>> = order.iter().map(|&index| sources[index]).collect();
        let choices = Choices::of(&ordered, self.limits);
        let gathers = self.upload(&ordered, &sources, &choices)?;
        let turns = self.graphs.memory().inputs.turns().to_vec();
        let trace = DeviceTracer::new(self.setup.launcher.device(), sink, n_tokens);
        let longest = ordered[..n_decode].iter().map(Row::end).max().unwrap_or(1);
        let splits = self.splits(n_decode, longest);
        let pass = self.pass(&trace);
        if gathers {
            let n_single = ordered.iter().filter(|row| row.tokens.len() == 1).count();
            pass.gather_tokens(n_single)?;
        }
        let made = pass.mixed(&ordered, n_decode, splits, &choices)?;
        let n_chosen = if choices.choosing().is_any {
            choices.tokens.len()
        } else {
            0
        };
        self.graphs.inputs().was_sent(&ordered, n_chosen, false);
        let mut pending = pending(&ordered, made, &choices, &turns);
        let mut placed: Vec<Option<Pending>> = pending.iter().map(|_| None).collect();
        for (index, pending) in order.into_iter().zip(pending.drain(..)) {
            placed[index] = Some(in_row(index, pending));
        }
        Ok(placed.into_iter().flatten().collect())
    }

    /// Sends a step of one token for each sequence, and perhaps drafts behind it. To the kernels a draft is a sequence
    /// of its own, with the pages of the one that it belongs to.
    fn decode(
        &mut self,
        rows: &[Row<'_>],
        sources: &[Option<usize>],
        choices: &Choices,
        sink: &mut dyn TraceSink,
    ) -> Result<Vec<Pending>> {
        let with_sources = rows.iter().zip(sources);
        let (positions, sources): (Vec<Row<'_>>, Vec<Option<usize>>) = with_sources
            .flat_map(|(row, source)| row.positions().map(|position| (position, *source)))
            .unzip();
        let n = positions.len();
        let longest = rows.iter().map(Row::end).max().unwrap_or(1);
        let key = GraphKey {
            n,
            splits: self.splits(n, longest),
            choosing: choices.choosing(),
            has_drafts: n > rows.len(),
        };
        let is_observed = sink.is_active() || self.setup.launcher.is_noting();
        let gathers = self.upload(&positions, &sources, choices)?;
        let turns = self.graphs.memory().inputs.turns().to_vec();
        if gathers {
            let mut unheard = NoTrace;
            let trace = DeviceTracer::new(self.setup.launcher.device(), &mut unheard, n);
            self.pass(&trace).gather_tokens(n)?;
        }
        if !is_observed {
            self.run_step(key, &positions)?;
        }
        let trace = DeviceTracer::new(self.setup.launcher.device(), sink, n);
        let pass = self.pass(&trace);
        if is_observed {
            pass.send_decode_step(key, &positions)?;
        }
        let made = pass.made_of_rows(rows, choices)?;
        let n_chosen = if key.choosing.is_any { n } else { 0 };
        let inputs = self.graphs.inputs();
        inputs.was_sent(&positions, n_chosen, key.moves_on());
        let pending = pending(rows, made, choices, &turns);
        let placed = pending.into_iter().enumerate();
        Ok(placed
            .map(|(index, pending)| in_row(index, pending))
            .collect())
    }

    /// Blocks that share the context of each of `n` sequences, the longest of which has `longest` tokens.
    fn splits(&self, n: usize, longest: usize) -> u32 {
        if self.setup.is_deterministic {
            return 1;
        }
        let multiprocessors = self.device().info().multiprocessors;
        attention_splits(&self.setup.model.config, multiprocessors, n, longest)
    }

    /// Sends the inputs of a step; true where tokens have to be gathered.
    fn upload(
        &mut self,
        rows: &[Row<'_>],
        sources: &[Option<usize>],
        choices: &Choices,
    ) -> Result<bool> {
        let device = self.setup.launcher.device();
        self.graphs.inputs().upload(device, rows, sources, choices)
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

/// What becomes of `rows`: what the host made of them, or what the device chooses, posted to these halves.
fn pending(
    rows: &[Row<'_>],
    made: Vec<Option<crate::backend::RowResult>>,
    choices: &Choices,
    turns: &[u32],
) -> Vec<Pending> {
    let pending = rows
        .iter()
        .zip(made)
        .enumerate()
        .map(|(index, (row, made))| match (made, choices.of_row(index)) {
            (None, Some(logits)) => Pending::Chosen(Chosen::new(row, logits, turns)),
            (made, _) => Pending::Made(made.unwrap_or_else(|| Ok(Default::default()))),
        });
    pending.collect()
}

/// The same, an error naming its row.
fn in_row(row: usize, pending: Pending) -> Pending {
    match pending {
        Pending::Made(Err(RowError::NotFinite(mut error))) => {
            error.sequence = row;
            Pending::Made(Err(error.into()))
        }
        pending => pending,
    }
}
