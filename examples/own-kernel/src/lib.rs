//! The kernels' PTX, for whatever runs it: a GPU in `main.rs`, the simulator in `tests/simulator.rs`.

pub use kernels::THREADS;

/// The text that `build.rs` made. It runs on GPUs of compute capability 8.0 and later.
pub const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

/// Elements whose sums are exact in f32, so that every order of additions gives the same.
pub fn example(n: u32) -> Vec<f32> {
    (0..n).map(|i| (i % 17) as f32).collect()
}

/// What `block_sums` must give.
pub fn expected_sums(x: &[f32]) -> Vec<f32> {
    x.chunks(THREADS as usize)
        .map(|block| block.iter().sum())
        .collect()
}
