//! hyperion: an LLM inference engine whose GPU kernels are written in Rust.

pub mod anthropic;
pub mod backend;
pub mod batch;
pub mod bench;
pub mod chat;
pub mod cli;
pub mod cpu;
pub mod device;
pub mod engine;
pub mod escape;
pub mod gguf;
pub mod gpu;
pub mod grammar;
pub mod hub;
pub mod model;
pub mod openai;
pub mod ptx;
pub mod sampling;
pub mod server;
pub mod tokenizer;
pub mod verify;
