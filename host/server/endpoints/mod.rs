//! What a server answers, one file for each group of paths.

pub mod completions;
pub mod embeddings;
pub mod health;
pub mod messages;
pub mod metrics;
pub mod models;
pub mod openapi;
pub mod page;
pub mod responses;
pub mod tokens;
