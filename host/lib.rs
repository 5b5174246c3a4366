//! hyperion: an LLM inference engine whose GPU kernels are written in Rust.

pub mod cli;
pub mod gguf;
pub mod hub;
