//! What a launch can end with instead of a result.

use std::fmt;

use crate::ty::Space;

/// A kernel's error, with everything known about where it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What went wrong.
    pub kind: FaultKind,
    /// The kernel's name.
    pub kernel: Box<str>,
    /// One-based line of the PTX text; zero where no instruction is to blame.
    pub line: u32,
    /// That line.
    pub text: Box<str>,
    /// `%ctaid` of the thread.
    pub block: [u32; 3],
    /// `%tid` of the thread; the first of several.
    pub thread: [u32; 3],
    /// The state space and address of the access.
    pub address: Option<(Space, u64)>,
    /// The allocation that the address belongs to.
    pub allocation: Option<Box<NearAllocation>>,
}

/// An allocation near a faulting address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearAllocation {
    /// The label it was allocated with.
    pub label: String,
    /// Its size in bytes.
    pub size: usize,
    /// Distance of the address from its start; negative before it.
    pub offset: i64,
}

/// The conflicting pair of a race: the earlier access, then the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaceKind {
    /// A thread reads what another wrote.
    ReadAfterWrite,
    /// A thread overwrites what another read.
    WriteAfterRead,
    /// Two threads write different values.
    WriteAfterWrite,
}

/// The kinds of [`Fault`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// An access outside of every allocation, or of the block's or thread's own memory.
    OutOfBounds {
        /// Length of the access.
        bytes: u32,
    },
    /// An access to freed memory.
    UseAfterFree {
        /// Length of the access.
        bytes: u32,
    },
    /// An address that is not a multiple of the access's length.
    Misaligned {
        /// The alignment needed.
        bytes: u32,
    },
    /// A read of memory that nothing wrote.
    UninitialisedRead {
        /// Length of the access.
        bytes: u32,
    },
    /// A read of shared memory that a `cp.async` still fills: a `wait_group` is missing.
    AsyncPending {
        /// Length of the access.
        bytes: u32,
    },
    /// A register used before it has a value.
    UninitialisedRegister {
        /// The register's name, or what it was used for.
        register: String,
    },
    /// Accesses of two threads of one block without a barrier between them.
    Race {
        /// Which accesses.
        kind: RaceKind,
        /// `%tid` of the thread that came first.
        other: [u32; 3],
    },
    /// Two blocks of one launch write different values to one place.
    BlockRace {
        /// Linear number of the block that came first.
        other: u64,
    },
    /// A non-coherent load (`ld.global.nc`) of memory that the same launch wrote.
    StaleRead,
    /// A read, before `griddepcontrol.wait`, of what a launch wrote that may still run.
    EarlyRead,
    /// A write before `griddepcontrol.wait`: launches that may still run use the memory.
    EarlyWrite,
    /// A block of a dependent launch ended without `griddepcontrol.wait`: who waits for it would not wait
    /// for the launches before it.
    NoGridWait,
    /// A store to kernel parameters or constants.
    ReadOnly,
    /// A barrier that not all threads of a warp reach together.
    DivergentBarrier,
    /// A warp operation (`shfl.sync`, `mma.sync`, …) that named lanes never reach.
    DivergentWarp {
        /// The lanes that are missing.
        missing: u32,
    },
    /// Threads wait at barriers that will never complete.
    BarrierDeadlock,
    /// The launch executed more instructions than its budget: an endless loop, perhaps.
    BudgetExceeded {
        /// The budget, in thread-instructions.
        budget: u64,
    },
    /// `trap`, which is what a Rust panic becomes.
    Trap,
    /// An instruction with values that have no defined meaning.
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// A launch that the kernel or device does not allow.
    InvalidLaunch {
        /// What is wrong.
        reason: String,
    },
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBounds { bytes } => write!(f, "out-of-bounds access of {bytes} bytes"),
            Self::UseAfterFree { bytes } => write!(f, "access of {bytes} bytes after free"),
            Self::Misaligned { bytes } => write!(f, "address not aligned to {bytes} bytes"),
            Self::UninitialisedRead { bytes } => {
                write!(f, "read of {bytes} bytes that were never written")
            }
            Self::AsyncPending { bytes } => {
                write!(
                    f,
                    "read of {bytes} bytes that an unfinished cp.async writes"
                )
            }
            Self::UninitialisedRegister { register } => {
                write!(f, "use of {register} before it has a value")
            }
            Self::Race { kind, other } => {
                let what = match kind {
                    RaceKind::ReadAfterWrite => "reads what thread",
                    RaceKind::WriteAfterRead => "overwrites what thread",
                    RaceKind::WriteAfterWrite => "overwrites, differently, what thread",
                };
                let done = if *kind == RaceKind::WriteAfterRead {
                    "read"
                } else {
                    "wrote"
                };
                write!(f, "race: {what} {other:?} {done}, with no barrier between")
            }
            Self::BlockRace { other } => {
                write!(
                    f,
                    "race: block {other} of this launch wrote another value here"
                )
            }
            Self::StaleRead => f.write_str("non-coherent load of memory that this launch writes"),
            Self::EarlyRead => {
                f.write_str("read of what an earlier launch writes, before griddepcontrol.wait")
            }
            Self::EarlyWrite => f.write_str("write before griddepcontrol.wait"),
            Self::NoGridWait => f.write_str("block ended without griddepcontrol.wait"),
            Self::ReadOnly => f.write_str("store to read-only memory"),
            Self::DivergentBarrier => {
                f.write_str("barrier that only some threads of the warp reach")
            }
            Self::DivergentWarp { missing } => {
                write!(f, "warp operation that lanes {missing:#010x} do not reach")
            }
            Self::BarrierDeadlock => f.write_str("threads wait at a barrier forever"),
            Self::BudgetExceeded { budget } => {
                write!(f, "more than {budget} thread-instructions: endless loop?")
            }
            Self::Trap => f.write_str("trap"),
            Self::Invalid { reason } => write!(f, "invalid instruction: {reason}"),
            Self::InvalidLaunch { reason } => write!(f, "invalid launch: {reason}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel `{}`", self.kernel)?;
        if self.line != 0 {
            write!(f, ", PTX line {} (`{}`)", self.line, self.text.trim())?;
            write!(f, ", block {:?}, thread {:?}", self.block, self.thread)?;
        }
        write!(f, ": {}", self.kind)?;
        if let Some((space, address)) = self.address {
            write!(f, " at {space} address {address:#x}")?;
        }
        if let Some(near) = &self.allocation {
            write!(
                f,
                " (byte {} of `{}`, {} bytes)",
                near.offset, near.label, near.size
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}
