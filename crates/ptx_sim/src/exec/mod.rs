//! Runs launches: blocks over threads of the host.

mod access;
mod alu;
mod async_copy;
mod atomic;
mod barrier;
mod block;
mod collective;
mod dependence;
mod launch;
mod matrix;
mod race;
mod registers;
mod report;
mod shared;
mod state;
mod step;
mod warp;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::exec::alu::VectorUnit;
use crate::exec::block::Block;
use crate::exec::launch::{Context, check_launch};
use crate::fault::Fault;
use crate::memory::Memory;
use crate::module::Module;

pub use launch::{Config, Launch, LaunchStats};

/// Runs kernels.
#[derive(Clone, Debug)]
pub struct Simulator {
    config: Config,
    vector: VectorUnit,
}

/// Blocks stop when a fault of an earlier block makes theirs irrelevant.
struct Outcome {
    /// The lowest faulting block and its fault.
    fault: Mutex<Option<(u64, Fault)>>,
    lowest: AtomicU64,
}

impl Outcome {
    fn report(&self, block: u64, fault: Fault) {
        let mut slot = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_none_or(|(other, _)| block < *other) {
            *slot = Some((block, fault));
            self.lowest.store(block, Relaxed);
        }
    }
}

impl Simulator {
    /// A simulator with the given checks and limits.
    pub fn new(config: Config) -> Simulator {
        Simulator {
            config,
            vector: VectorUnit::detect(),
        }
    }

    /// Runs a kernel to its end.
    ///
    /// # Errors
    /// The fault of the lowest-numbered block that has one, or [`FaultKind::InvalidLaunch`](crate::FaultKind::InvalidLaunch).
    pub fn launch(
        &self,
        memory: &Memory,
        module: &Module,
        kernel: &str,
        launch: &Launch<'_>,
    ) -> Result<LaunchStats, Fault> {
        let invalid = |reason: String| report::invalid_launch(kernel, reason);
        let found = module.kernel(kernel);
        let found = found.ok_or_else(|| invalid("the module has no such kernel".into()))?;
        check_launch(found, launch).map_err(invalid)?;
        let blocks = launch
            .grid
            .iter()
            .map(|extent| u64::from(*extent))
            .product();
        let (launch_id, overlap) = memory.begin_launch(launch.dependent);
        let addresses = memory.place(module);
        let table = memory.read_table();
        let context = Context {
            config: &self.config,
            module,
            kernel: found,
            table: &table,
            addresses: &addresses,
            launch,
            launch_id,
            overlap,
            vector: self.vector,
            triggers_early: AtomicBool::new(false),
            executed: AtomicU64::new(0),
            blocks,
        };
        let outcome = Outcome {
            fault: Mutex::new(None),
            lowest: AtomicU64::new(u64::MAX),
        };
        self.run(&context, &outcome);
        if !context.triggers_early.load(Relaxed) {
            memory.has_waited(launch_id);
        }
        match outcome
            .fault
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
        {
            Some((_, fault)) => Err(fault),
            None => Ok(LaunchStats {
                instructions: context.executed.into_inner(),
                blocks,
            }),
        }
    }

    fn run(&self, context: &Context<'_>, outcome: &Outcome) {
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if self.config.threads == 0 {
            available()
        } else {
            self.config.threads
        };
        let threads = threads.min(usize::try_from(context.blocks).unwrap_or(usize::MAX));
        let next = AtomicU64::new(0);
        let work = |first: u64| {
            if self.config.co_resident {
                run_in_turns(context, outcome, first, threads as u64);
            } else {
                run_queue(context, outcome, &next);
            }
        };
        if threads <= 1 {
            return work(0);
        }
        std::thread::scope(|scope| {
            for first in 1..threads as u64 {
                let work = &work;
                scope.spawn(move || work(first));
            }
            work(0);
        });
    }
}

fn run_queue(context: &Context<'_>, outcome: &Outcome, next: &AtomicU64) {
    let mut block = Block::new(context);
    loop {
        let index = next.fetch_add(1, Relaxed);
        if index >= context.blocks || index > outcome.lowest.load(Relaxed) {
            return;
        }
        block.start(context, index);
        loop {
            match block.turn(context) {
                Ok(true) => break,
                Ok(false) if index > outcome.lowest.load(Relaxed) => return,
                Ok(false) => {}
                Err(fault) => {
                    outcome.report(index, *fault);
                    return;
                }
            }
        }
    }
}

/// Gives each of this thread's blocks a turn until all have ended.
fn run_in_turns(context: &Context<'_>, outcome: &Outcome, first: u64, stride: u64) {
    let mut blocks: Vec<(u64, Block)> = Vec::new();
    let mut index = first;
    while index < context.blocks {
        let mut block = Block::new(context);
        block.start(context, index);
        blocks.push((index, block));
        index += stride;
    }
    while !blocks.is_empty() {
        if outcome.lowest.load(Relaxed) != u64::MAX {
            return;
        }
        let mut failed = None;
        blocks.retain_mut(|(index, block)| match block.turn(context) {
            Ok(ended) => !ended,
            Err(fault) => {
                failed.get_or_insert((*index, *fault));
                false
            }
        });
        if let Some((index, fault)) = failed {
            outcome.report(index, fault);
            return;
        }
    }
}
