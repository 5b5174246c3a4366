//! The `hyperion` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    hyperion::cli::main()
}
