//! The recorded steps of one token for each sequence, and how much memory they may take.

use std::collections::HashMap;

use super::decode::GraphKey;
use crate::device::plan::{GRANULE, LOADED_LATER};
use crate::device::{Device, Graph, Result};
use crate::model::Config;

/// Graphs that the memory plan reserves room for: a text takes one or two for each doubling of its length. Others
/// are recorded where the device has memory to spare.
pub const RESERVED: usize = 8;
/// Bytes of device memory that a kernel takes in an instantiated graph, at most: its parameters, its launch and its
/// place in the order. Engines that keep graphs of some 450 kernels report 10 MB for each.
const KERNEL_BYTES: u64 = 32 << 10;
/// Most kernels of a step in a block of the model, and outside the blocks.
const BLOCK_KERNELS: u64 = 16;
const OTHER_KERNELS: u64 = 8;

/// Bytes that a recorded step of a model takes at most.
pub fn graph_bytes(config: &Config) -> u64 {
    let kernels = BLOCK_KERNELS * config.n_layers as u64 + OTHER_KERNELS;
    (kernels * KERNEL_BYTES).next_multiple_of(GRANULE)
}

/// How far a step has come to being recorded.
pub enum Recording {
    /// No such step has run.
    Unseen,
    /// One has run as it is, so that all of its kernels are loaded.
    Seen,
    /// There was no memory for a graph: such steps run as they are.
    NoRoom,
    /// Its graph.
    Graph(Box<dyn Graph>),
}

/// Recordings by what they depend on.
pub struct Graphs {
    recordings: HashMap<GraphKey, Recording>,
    /// Of one graph, at most.
    bytes: u64,
}

impl Graphs {
    /// No recordings, of `bytes` each at most.
    pub fn new(bytes: u64) -> Graphs {
        Graphs {
            recordings: HashMap::new(),
            bytes,
        }
    }

    /// What there is of the step of `key`.
    pub fn get(&self, key: GraphKey) -> &Recording {
        self.recordings.get(&key).unwrap_or(&Recording::Unseen)
    }

    /// Notes what there is of the step of `key`.
    pub fn insert(&mut self, key: GraphKey, recording: Recording) {
        self.recordings.insert(key, recording);
    }

    /// Whether another graph may be recorded: it is among those reserved, or leaves the memory that kernels still to
    /// be loaded need.
    pub fn has_room(&self, device: &dyn Device) -> Result<bool> {
        let all = self.recordings.values();
        let graphs = all.filter(|recording| matches!(recording, Recording::Graph(_)));
        Ok(graphs.count() < RESERVED || device.memory()?.free >= self.bytes + LOADED_LATER)
    }
}
