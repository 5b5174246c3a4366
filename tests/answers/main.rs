//! Answers under a grammar: calls of tools in each form, thoughts, and JSON by a schema.

#[path = "../support/mod.rs"]
mod support;

mod engine;
mod forms;
mod masks;
mod requests;
mod schemas;
mod templates;
mod vocabulary;
mod walk;
