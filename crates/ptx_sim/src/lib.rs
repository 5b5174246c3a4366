#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod dependence;
mod error;
mod exec;
mod fault;
mod lower;
mod memory;
mod module;
mod numeric;
mod op;
mod parse;
mod special;
mod ty;

pub use dependence::BeforeWait;
pub use error::{ParseError, ParseErrorKind};
pub use exec::{Config, Launch, LaunchStats, Simulator};
pub use fault::{Fault, FaultKind, NearAllocation, RaceKind};
pub use memory::{Memory, MemoryError};
pub use module::{Function, Instruction, Kernel, LaunchBounds, Module, Param};
pub use ty::{Space, Ty};
