//! Recorded steps, and the memory that they read and write: a recording holds addresses, so both live and die
//! together.

use std::collections::HashMap;

use super::cache::{KvCache, RopeTable};
use super::inputs::Inputs;
use super::weights::GpuWeights;
use super::workspace::Workspace;
use crate::backend::{SequenceStep, Want};
use crate::device::{Device, Graph, Mailbox, Result};

/// Everything of a backend that lies on the device.
pub struct Memory {
    /// Matrices and vectors.
    pub weights: GpuWeights,
    /// Keys and values.
    pub cache: KvCache,
    /// Cosines and sines, a table for each rotation.
    pub ropes: Vec<RopeTable>,
    /// What a step tells the kernels.
    pub inputs: Inputs,
    /// Intermediate results.
    pub workspace: Workspace,
    /// Tokens on their way to the host.
    pub mailbox: Box<dyn Mailbox>,
}

/// What a recorded step depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GraphKey {
    /// Sequences.
    pub n: usize,
    /// Blocks that share the context of a sequence.
    pub splits: u32,
    /// How the tokens are chosen.
    pub choice: Choice,
}

/// How a step's tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Choice {
    /// By the host, from the logits.
    Host,
    /// The likeliest ones.
    Argmax,
    /// At random, some of them perhaps the likeliest.
    Draw,
}

impl Choice {
    /// The quickest that gives what all of `sequences` want, on a device that draws or does not.
    pub fn of(sequences: &[SequenceStep<'_>], draws: bool) -> Choice {
        let all = |wanted: fn(Want) -> bool| sequences.iter().all(|step| wanted(step.want));
        if all(|want| want == Want::Argmax) {
            Choice::Argmax
        } else if draws && all(|want| matches!(want, Want::Argmax | Want::Draw(_))) {
            Choice::Draw
        } else {
            Choice::Host
        }
    }
}

/// The memory, and the steps recorded on it.
pub struct Graphs {
    /// Steps that ran, and those of them that were recorded. Dropped first: replays need the memory.
    recorded: HashMap<GraphKey, Option<Box<dyn Graph>>>,
    memory: Memory,
}

impl Graphs {
    /// No step recorded yet.
    pub fn new(memory: Memory) -> Graphs {
        Graphs {
            recorded: HashMap::new(),
            memory,
        }
    }

    /// The memory, none of whose buffers is ever replaced.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The inputs, for the host to fill.
    pub fn inputs(&mut self) -> &mut Inputs {
        &mut self.memory.inputs
    }

    /// The mailbox, for the host to mark.
    pub fn mailbox(&mut self) -> &mut dyn Mailbox {
        &mut *self.memory.mailbox
    }

    /// Runs the step of `key`, which `send` sends. The first one of its kind runs as it is, because looking up kernels
    /// and setting their attributes is not for a recording; the second one is recorded, later ones are replays.
    pub fn run(
        &mut self,
        device: &dyn Device,
        key: GraphKey,
        send: &dyn Fn(&Memory) -> Result<()>,
    ) -> Result<()> {
        if self.replay(key)? {
            return Ok(());
        }
        if !self.recorded.contains_key(&key) {
            send(&self.memory)?;
            self.recorded.insert(key, None);
            return Ok(());
        }
        let graph = device.capture(&mut || send(&self.memory))?;
        self.recorded.insert(key, Some(graph));
        self.replay(key).map(drop)
    }

    /// Replays the step of `key`; false where it is not recorded.
    pub fn replay(&self, key: GraphKey) -> Result<bool> {
        let Some(Some(graph)) = self.recorded.get(&key) else {
            return Ok(false);
        };
        // SAFETY: what was recorded points into this struct's memory, which nobody can replace and which is dropped
        // after the graphs.
        unsafe { graph.replay() }?;
        Ok(true)
    }
}
