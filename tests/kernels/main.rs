//! Every kernel against a reference in f64, over ragged, minimal and typical shapes.
//!
//! The kernels run on the simulator; with `HYPERION_TEST_DEVICE=cuda` the same tests run on a GPU
//! (and need nothing but this binary there). One file a family of operations, named as in
//! `kernels-gpu/src/ops`; [`harness`] says what a test consists of.

mod argmax;
mod attention_decode;
mod attention_prefill;
mod dequantize;
mod elementwise;
mod embed;
mod harness;
mod matmul;
mod matvec;
mod norm;
mod paged;
mod rope_kv;
mod sample;
mod weights;
