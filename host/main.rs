//! The `hyperion` command.
fn main() {}
