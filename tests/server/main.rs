//! `hyperion serve` as its clients use it, and as those misuse it who should not.

mod access;
mod cancel;
mod client;
mod device;
mod embeddings;
mod endpoints;
mod hostile;
mod in_process;
mod lifecycle;
mod limits;
mod load;
mod page;
mod server;
mod streams;
#[path = "../support/mod.rs"]
mod support;
