//! Proof that a backend is right: its tensors against the reference's, operation by operation.

pub mod against;
mod bounds;
mod difference;
pub mod divergence;
mod experts;
mod explain;
mod gated_noise;
pub mod gemm;
pub mod html;
mod isolate;
pub mod kl;
mod noise;
mod products;
mod report;
mod run;
mod saturation;
pub mod trace_file;
pub mod weights;

pub use bounds::{Bound, Bounds, Computed};
pub use difference::Difference;
pub use experts::ExpertChoices;
pub use explain::depends_on;
pub use isolate::{Isolate, Row};
pub use products::{Product, products};
pub use report::{CheckedRow, Fault, Report, StepKind, StepReport};
pub use run::{ObservedStep, Plan, verify};
