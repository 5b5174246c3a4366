//! Recorded steps, and the memory that they read and write: a recording holds addresses, so both live and die
//! together. Recordings take memory themselves, of which there is only so much.

use std::cell::Cell;
use std::collections::HashMap;

use super::cache::{KvCache, RopeTable};
use super::inputs::Inputs;
use super::weights::GpuWeights;
use super::workspace::Workspace;
use crate::device::plan::{GRANULE, LOADED_LATER};
use crate::device::{Buffer, Device, Graph, Mailbox, Result};
use crate::model::{Config, QkNorm};

/// Graphs that the memory plan reserves room for: a text takes one or two for each doubling of its length. Others
/// are recorded where the device has memory to spare.
pub const RESERVED: usize = 8;
/// Most graphs. The one that was not used for longest makes room for the next one.
const MOST: usize = 48;
/// Bytes of device memory that a kernel takes in an instantiated graph, at most: its parameters, its launch and its
/// place in the order. Engines that keep graphs of some 450 kernels report 10 MB for each.
const KERNEL_BYTES: u64 = 32 << 10;
/// Most kernels of a step in a block of the model, and outside the blocks.
const BLOCK_KERNELS: u64 = 16;
/// Of these, more in a block with norms of all heads of Q and of K.
const PROJECTION_NORMS: u64 = 2;
/// And in a block with experts.
const EXPERT_KERNELS: u64 = 12;
const OTHER_KERNELS: u64 = 8;

/// Bytes that a recorded step of a model takes at most.
pub fn graph_bytes(config: &Config) -> u64 {
    let of_block = match config.arch.qk_norm {
        QkNorm::Projection => BLOCK_KERNELS + PROJECTION_NORMS,
        QkNorm::None | QkNorm::Head => BLOCK_KERNELS,
    };
    let of_experts = config.experts.map_or(0, |_| EXPERT_KERNELS);
    let kernels = (of_block + of_experts) * config.n_layers as u64 + OTHER_KERNELS;
    (kernels * KERNEL_BYTES).next_multiple_of(GRANULE)
}

/// How far a step has come to being recorded.
enum Recording {
    /// One has run as it is, so that all of its kernels are loaded.
    Seen,
    /// There was no memory for a graph: such steps run as they are.
    NoRoom,
    /// Its graph, and when it was used last.
    Graph(Box<dyn Graph>, Cell<u64>),
}

/// Whether such steps are recorded. Of small steps all are: the host would take longer to send their kernels
/// than they run. Among many sequences one more or less takes another graph, so that only some numbers of them have
/// one; steps of the others are long enough for the host to send the next one meanwhile.
fn is_recorded(key: GraphKey) -> bool {
    match key.n {
        ..=8 => true,
        // Mostly one sequence with its drafts.
        n @ 9..=17 if key.has_drafts => n % 8 <= 1,
        n @ 9..=64 => n.is_multiple_of(8),
        n => n.is_multiple_of(32),
    }
}

/// Everything of a backend that lies on the device.
pub struct Memory {
    /// Matrices and vectors.
    pub weights: GpuWeights,
    /// Keys and values.
    pub cache: KvCache,
    /// Cosines and sines, a table for each rotation.
    pub ropes: Vec<RopeTable>,
    /// What queries are multiplied by at each position, where they are.
    pub query_factors: Option<Buffer>,
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
    /// Sequences, each draft counted as one.
    pub n: usize,
    /// Blocks that share the context of a sequence.
    pub splits: u32,
    /// How the tokens are chosen.
    pub choosing: Choosing,
    /// Whether some of the tokens are drafts, which see keys and values of the step itself.
    pub has_drafts: bool,
}

impl GraphKey {
    /// Whether the tokens that it chooses are those of the next step: not where some may be wrong.
    pub fn moves_on(&self) -> bool {
        !self.has_drafts
    }
}

/// Which kernels the choice of a step's tokens takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Choosing {
    /// Whether there is anything to choose.
    pub is_any: bool,
    /// Whether some are drawn.
    pub draws: bool,
    /// Whether logits change before.
    pub adjusts: bool,
    /// Whether log-probabilities are reported.
    pub logprobs: bool,
}

/// The memory, and the steps recorded on it.
pub struct Graphs {
    /// By what they depend on. Dropped first: replays need the memory.
    recordings: HashMap<GraphKey, Recording>,
    /// Replays so far.
    clock: Cell<u64>,
    /// Bytes that a recording takes at most.
    bytes: u64,
    memory: Memory,
}

impl Graphs {
    /// No step recorded yet; a recording will take `bytes` at most.
    pub fn new(memory: Memory, bytes: u64) -> Graphs {
        Graphs {
            recordings: HashMap::new(),
            clock: Cell::new(0),
            bytes,
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
    /// and setting their attributes is not for a recording; the second one is recorded, if there is memory for it,
    /// and later ones are replays.
    pub fn run(
        &mut self,
        device: &dyn Device,
        key: GraphKey,
        send: &dyn Fn(&Memory) -> Result<()>,
    ) -> Result<()> {
        if !is_recorded(key) {
            return send(&self.memory);
        }
        match self.recordings.get(&key) {
            Some(Recording::Graph(..)) => return self.replay(key).map(drop),
            Some(Recording::NoRoom) => return send(&self.memory),
            None => {
                send(&self.memory)?;
                self.recordings.insert(key, Recording::Seen);
                return Ok(());
            }
            Some(Recording::Seen) => {}
        }
        self.make_room(device)?;
        if self.has_room(device)? {
            match self.record(device, key, send) {
                // Neither recording nor a refused start has run anything.
                Err(error) if error.is_out_of_memory() => {}
                recorded => return recorded,
            }
        }
        self.recordings.insert(key, Recording::NoRoom);
        send(&self.memory)
    }

    /// Records the step of `key` and runs it.
    fn record(
        &mut self,
        device: &dyn Device,
        key: GraphKey,
        send: &dyn Fn(&Memory) -> Result<()>,
    ) -> Result<()> {
        let graph = device.capture(&mut || send(&self.memory))?;
        // SAFETY: as in `replay`.
        unsafe { graph.replay() }?;
        let used = Cell::new(self.clock.get());
        self.recordings.insert(key, Recording::Graph(graph, used));
        Ok(())
    }

    /// Drops the graph that was not used for longest, if there are as many as there may be.
    fn make_room(&mut self, device: &dyn Device) -> Result<()> {
        let graphs = self
            .recordings
            .iter()
            .filter_map(|(key, recording)| match recording {
                Recording::Graph(_, used) => Some((used.get(), *key)),
                _ => None,
            });
        let graphs: Vec<(u64, GraphKey)> = graphs.collect();
        let oldest = graphs.iter().min_by_key(|(used, _)| *used);
        if let (MOST.., Some((_, oldest))) = (graphs.len(), oldest) {
            // It may be running.
            device.synchronize()?;
            self.recordings.insert(*oldest, Recording::Seen);
        }
        Ok(())
    }

    /// Whether another graph may be recorded: it is among those reserved, or leaves the memory that kernels still to
    /// be loaded need.
    fn has_room(&self, device: &dyn Device) -> Result<bool> {
        let all = self.recordings.values();
        let graphs = all.filter(|recording| matches!(recording, Recording::Graph(..)));
        Ok(graphs.count() < RESERVED || device.memory()?.free >= self.bytes + LOADED_LATER)
    }

    /// Replays the step of `key`; false where it is not recorded.
    pub fn replay(&self, key: GraphKey) -> Result<bool> {
        let Some(Recording::Graph(graph, used)) = self.recordings.get(&key) else {
            return Ok(false);
        };
        self.clock.set(self.clock.get() + 1);
        used.set(self.clock.get());
        // SAFETY: what was recorded points into this struct's memory, which nobody can replace and which is dropped
        // after the graphs.
        unsafe { graph.replay() }?;
        Ok(true)
    }
}
