//! `hyperion completions`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  hyperion completions bash > ~/.local/share/bash-completion/completions/hyperion
  hyperion completions zsh > \"${fpath[1]}/_hyperion\"
  hyperion completions fish > ~/.config/fish/completions/hyperion.fish";

/// Arguments of `hyperion completions`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the completion script.
///
/// # Errors
/// stdout cannot be written.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    // Into memory first: the generator panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut super::definition(),
        "hyperion",
        &mut script,
    );
    io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
