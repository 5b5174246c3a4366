//! The PTX that the binary embeds: its modules, what their text says of each kernel, and what NVIDIA's
//! compiler makes of them.
//!
//! - [`modules`]: the embedded modules; [`select`]: which image a GPU runs.
//! - [`facts`]: instructions and shared memory of a kernel, read from its text.
//! - [`ptxas`], [`tools`], [`occupancy`]: registers, spills and machine code for an architecture.

mod error;
pub mod facts;
mod images;
mod modules;
pub mod occupancy;
pub mod ptxas;
pub mod tools;

pub use error::{PtxError, Result};
pub use images::{NoImage, PtxImage, PtxText, embedded, select};
pub use modules::{KernelEntry, KernelTexts, PtxModule, modules};
