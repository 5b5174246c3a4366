//! What becomes of a step: its inputs go to the device, and it is sent, recorded or replayed.

use super::GpuBackend;
use super::graphs::{Choice, GraphKey};
use super::ops::attention_decode::attention_splits;
use super::pass::Pass;
use super::trace::DeviceTracer;
use super::workspace::MAX_SEQUENCES;
use crate::backend::{Backend, NoTrace, Output, SequenceStep, TraceSink};
use crate::device::{DeviceError, Result};

impl GpuBackend {
    /// Runs a step.
    pub(super) fn run(
        &mut self,
        sequences: &[SequenceStep<'_>],
        sink: &mut dyn TraceSink,
    ) -> Result<Vec<Output>> {
        let n_tokens: usize = sequences.iter().map(|step| step.tokens.len()).sum();
        let most_tokens = self.limits.max_tokens.max(MAX_SEQUENCES);
        if n_tokens > most_tokens || sequences.len() > MAX_SEQUENCES {
            return Err(DeviceError::Unsupported(format!(
                "a step of {n_tokens} tokens of {} sequences is over this backend's {most_tokens} and \
                 {MAX_SEQUENCES}",
                sequences.len()
            )));
        }
        if n_tokens == sequences.len() {
            return self.decode(sequences, sink);
        }
        self.ahead.forget();
        self.upload(sequences)?;
        let trace = DeviceTracer::new(self.device(), sink, n_tokens);
        self.pass(&trace).prefill(sequences)
    }

    /// Runs a step of one token for each sequence.
    fn decode(
        &mut self,
        sequences: &[SequenceStep<'_>],
        sink: &mut dyn TraceSink,
    ) -> Result<Vec<Output>> {
        let n = sequences.len();
        let choice = Choice::of(sequences, self.draws());
        let longest = sequences.iter().map(SequenceStep::end).max().unwrap_or(1);
        let key = self.graph_key(n, longest, choice);
        let is_observed = sink.is_active() || self.setup.launcher.is_noting();
        if choice == Choice::Argmax && !is_observed {
            return self.decode_greedily(key, sequences);
        }
        self.ahead.forget();
        self.upload(sequences)?;
        if !is_observed {
            self.run_step(key, sequences)?;
        }
        let trace = DeviceTracer::new(self.setup.launcher.device(), sink, n);
        let pass = self.pass(&trace);
        if is_observed {
            pass.send_decode_step(key, sequences)?;
        }
        let outputs = pass.read_outputs(sequences, choice)?;
        if choice == Choice::Argmax {
            self.graphs.inputs().moved_on(n);
        }
        Ok(outputs)
    }

    /// What a step for `n` sequences depends on, the longest of which will have `longest` tokens.
    pub(super) fn graph_key(&self, n: usize, longest: usize, choice: Choice) -> GraphKey {
        let multiprocessors = self.device().info().multiprocessors;
        GraphKey {
            n,
            splits: attention_splits(&self.setup.model.config, multiprocessors, n, longest),
            choice,
        }
    }

    /// Sends the inputs of a step.
    pub(super) fn upload(&mut self, sequences: &[SequenceStep<'_>]) -> Result<()> {
        let device = self.setup.launcher.device();
        self.graphs.inputs().upload(device, sequences)
    }

    /// Runs the step of `key`, from its recording where there is one.
    pub(super) fn run_step(&mut self, key: GraphKey, sequences: &[SequenceStep<'_>]) -> Result<()> {
        let (setup, device) = (&self.setup, self.setup.launcher.device());
        self.graphs.run(device, key, &|memory| {
            let mut unheard = NoTrace;
            let trace = DeviceTracer::new(device, &mut unheard, key.n);
            Pass::new(setup, memory, &trace).send_decode_step(key, sequences)
        })
    }

    /// A step in this backend's memory.
    pub(super) fn pass<'a>(&'a self, trace: &'a DeviceTracer<'a>) -> Pass<'a> {
        Pass::new(&self.setup, self.graphs.memory(), trace)
    }
}
