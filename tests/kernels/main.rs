//! Every kernel against a reference in f64, over ragged, minimal and typical shapes.
//!
//! The kernels run on the simulator; with `HYPERION_TEST_DEVICE=cuda` the same tests run on a GPU
//! (and need nothing but this binary there). One file a family of operations, named as in
//! `kernels-gpu/src/ops`; [`harness`] says what a test consists of, [`seeded_bugs`] that bugs are found, and
//! [`coverage`] that no kernel is left out.

mod adjust_logits;
mod argmax;
mod attention_decode;
mod attention_prefill;
mod choice;
mod coverage;
mod dequantize;
mod device;
mod elementwise;
mod embed;
mod expert_products;
mod experts;
mod gated_rows;
mod gather_tokens;
mod group_maxima;
mod harness;
mod launch_bounds;
mod logprobs;
mod matmul;
mod matmul_q8;
mod matvec;
mod norm;
mod paged;
mod q8_rows;
mod q8_vectors;
mod rope_kv;
mod sample;
mod sampling;
mod seeded_bugs;
mod segments;
mod soft_cap;
mod weights;
