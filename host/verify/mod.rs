//! Proof that a backend is right: its tensors against the reference's, operation by operation.

mod difference;
pub mod divergence;
mod explain;
mod isolate;
pub mod trace_file;

pub use difference::Difference;
pub use explain::depends_on;
pub use isolate::{Isolate, Row};
