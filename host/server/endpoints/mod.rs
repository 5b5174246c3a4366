//! What a server answers, one file for each group of paths.

pub mod completions;
pub mod health;
pub mod messages;
pub mod models;
pub mod responses;
