//! What a launch is: how it is asked for, what it may be, and what all its blocks know.

use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::exec::alu::VectorUnit;
use crate::memory::Table;
use crate::module::{Kernel, Module};

/// How a [`Simulator`](crate::Simulator) runs and what it checks.
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

/// `%tid` of a thread by its linear number.
pub(crate) fn thread_of(linear: u32, extent: [u32; 3]) -> [u32; 3] {
    [
        linear % extent[0],
        linear / extent[0] % extent[1],
        linear / extent[0] / extent[1],
    ]
}

/// Whether the kernel and a device allow the launch.
pub(super) fn check_launch(kernel: &Kernel, launch: &Launch<'_>) -> Result<(), String> {
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
