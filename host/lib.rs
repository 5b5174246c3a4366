//! hyperion: an LLM inference engine whose GPU kernels are written in Rust.

pub mod backend;
pub mod cpu;
pub mod engine;
pub mod gguf;
pub mod gpu;
pub mod model;
