//! Launches: blocks over threads of the host.

mod access;
mod alu;
mod async_copy;
mod atomic;
mod barrier;
mod block;
mod collective;
mod dependence;
mod matrix;
mod race;
mod registers;
mod report;
mod shared;
mod step;
mod warp;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::exec::alu::VectorUnit;
use crate::exec::block::Block;
use crate::fault::{Fault, FaultKind};
use crate::memory::{Memory, Table};
use crate::module::{Kernel, Module};

/// How a [`Simulator`] runs and what it checks.
#[derive(Clone, Debug)]
pub struct Config {
    /// Host threads that run blocks; zero for one per processor.
    pub threads: usize,
    /// Thread-instructions that one launch may execute.
    pub instruction_budget: u64,
    /// Whether accesses of a block's threads without a barrier between them are faults.
    pub race_checks: bool,
    /// Whether blocks of a launch that write different values to one place are faults.
    pub block_race_checks: bool,
    /// Whether reads of memory never written and uses of undefined registers are faults.
    pub uninitialised_checks: bool,
    /// Whether all blocks of a launch run in turns, as kernels need that wait for other blocks.
    /// Otherwise a block runs to its end before its thread starts the next.
    pub co_resident: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            threads: 0,
            instruction_budget: 20_000_000_000,
            race_checks: true,
            block_race_checks: true,
            uninitialised_checks: true,
            co_resident: false,
        }
    }
}

/// One launch of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Bytes of the unsized `.extern .shared` array.
    pub dynamic_shared: u32,
    /// The parameters, packed as [`Kernel::params`] lays them out.
    pub params: &'a [u8],
    /// Whether the kernel may begin before the launches ahead of it have ended (programmatic dependent
    /// launch). Then every thread that writes, or reads what they write, must wait before
    /// (`griddepcontrol.wait`), and so must some thread of every block: a later launch waits for this one only.
    pub dependent: bool,
}

/// What a launch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaunchStats {
    /// Thread-instructions executed.
    pub instructions: u64,
    /// Blocks run.
    pub blocks: u64,
}

/// Runs kernels.
#[derive(Clone, Debug)]
pub struct Simulator {
    config: Config,
    vector: VectorUnit,
}

/// What every block of a launch shares.
pub(crate) struct Context<'a> {
    pub config: &'a Config,
    pub module: &'a Module,
    pub kernel: &'a Kernel,
    pub table: &'a Table,
    pub addresses: &'a [u64],
    pub launch: &'a Launch<'a>,
    pub launch_id: u64,
    /// The first launch that may still run when this one begins.
    pub overlap: u64,
    pub vector: VectorUnit,
    /// Whether a thread let the next launch begin before it waited itself.
    pub triggers_early: AtomicBool,
    /// Thread-instructions of all blocks.
    pub executed: AtomicU64,
    /// Number of blocks.
    pub blocks: u64,
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
    /// The fault of the lowest-numbered block that has one, or [`FaultKind::InvalidLaunch`].
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

fn check_launch(kernel: &Kernel, launch: &Launch<'_>) -> Result<(), String> {
    let Launch {
        grid,
        block,
        dynamic_shared,
        params,
        dependent: _,
    } = launch;
    let threads: u64 = block.iter().map(|extent| u64::from(*extent)).product();
    if threads == 0 || threads > 1024 || block[2] > 64 {
        return Err(format!(
            "a block of {block:?} threads; a device allows 1 to 1024"
        ));
    }
    if grid.contains(&0) || grid[0] > i32::MAX as u32 || grid[1] > 65535 || grid[2] > 65535 {
        return Err(format!(
            "a grid of {grid:?} blocks; a device allows 2^31 - 1, 65535, 65535"
        ));
    }
    if params.len() != kernel.param_bytes() as usize {
        return Err(format!(
            "{} bytes of parameters, the kernel has {}",
            params.len(),
            kernel.param_bytes()
        ));
    }
    let bounds = kernel.function().launch_bounds();
    if bounds
        .required_threads
        .is_some_and(|required| required != *block)
    {
        return Err(format!(
            "a block of {block:?}, `.reqntid` is {:?}",
            bounds.required_threads
        ));
    }
    let limit = bounds
        .max_threads
        .map(|most| most.iter().map(|x| u64::from(*x)).product::<u64>());
    if limit.is_some_and(|limit| threads > limit) {
        return Err(format!(
            "{threads} threads, `.maxntid` is {:?}",
            bounds.max_threads
        ));
    }
    if *dynamic_shared != 0 && !kernel.uses_dynamic_shared() {
        return Err("dynamic shared memory for a kernel that names none".into());
    }
    let shared = u64::from(kernel.static_shared_bytes()) + u64::from(*dynamic_shared);
    if shared > 227 << 10 {
        return Err(format!(
            "{shared} bytes of shared memory; a device allows 227 KiB"
        ));
    }
    Ok(())
}

impl From<FaultKind> for Box<report::Trouble> {
    fn from(kind: FaultKind) -> Self {
        Box::new(report::Trouble {
            kind,
            lane: None,
            address: None,
        })
    }
}
