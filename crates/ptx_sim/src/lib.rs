//! Runs PTX kernels on the CPU and reports what a sanitizer would.
//!
//! [`Module::parse`] reads a PTX text, [`Memory`] is the device's memory, and
//! [`Simulator::launch`] runs a kernel or says, as a [`Fault`], which instruction of which thread
//! did what wrong.

#![warn(missing_docs)]

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

pub use error::{ParseError, ParseErrorKind};
pub use exec::{Config, Launch, LaunchStats, Simulator};
pub use fault::{Fault, FaultKind, NearAllocation, RaceKind};
pub use memory::{Memory, MemoryError};
pub use module::{Function, Instruction, Kernel, LaunchBounds, Module, Param};
pub use ty::{Space, Ty};
