//! Launches of the kernels, a file for each file of `kernels-gpu/src/ops`: parameters and geometry from what a
//! [`Pass`](super::pass::Pass) borrows.

pub(super) mod attention_decode;
mod attention_prefill;
mod choose;
mod dequantize;
mod elementwise;
mod embed;
pub(super) mod expert_products;
pub(super) mod experts;
mod gated_rows;
pub mod matmul;
pub mod matmul_q8;
pub(super) mod matvec;
pub(super) mod norm;
pub(super) mod q8_rows;
mod rope_kv;
