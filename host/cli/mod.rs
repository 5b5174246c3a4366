//! The command line: one file a subcommand, each with its arguments and a `run`.
//!
//! Exit codes: 0 success, also where the reader of stdout has seen enough, 1 a failure at run time, 2 wrong usage,
//! [`INTERRUPTED`] after Ctrl-C.
//! Results go to stdout, all else to stderr.
// `println!` panics when stdout is closed; `writeln!` gives an error that `main` handles.
#![deny(clippy::print_stdout)]

mod advice;
mod batch;
mod bench;
mod bench_requests;
mod chat;
mod completions;
mod count;
mod device;
mod generate;
pub mod inspect;
mod interrupt;
mod models;
mod ptx;
mod pull;
mod run_args;
mod sampling_args;
mod serve;
mod session;
mod speculate_args;
mod tokenize;
mod verify;
mod warnings;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::builder::styling::{AnsiColor, Style};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::escape::escape_lines;

/// Exit code of a command that failed.
pub const FAILED: u8 = 1;

/// Exit code after Ctrl-C, as shells report it: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;

const EXAMPLES: &str = "\
Examples:
  hyperion pull smollm2      Fetch a small model
  hyperion generate smollm2 -p 'Write a haiku about the sea.'
  hyperion chat smollm2      Talk with it
  hyperion models            List the models on this machine

A MODEL is a path to a GGUF file, or the short name of a model that was pulled.
`hyperion help COMMAND` tells more about a command.";

/// Runs large language models from GGUF files.
#[derive(Debug, Parser)]
#[command(name = "hyperion", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Generate text from a prompt
    Generate(generate::GenerateArgs),
    /// Talk with a model
    Chat(chat::ChatArgs),
    /// Answer a file of requests, many at a time
    Batch(batch::BatchArgs),
    /// Answer requests over HTTP, in OpenAI's form
    Serve(serve::ServeArgs),
    /// Fetch a model into this machine's cache
    Pull(pull::PullArgs),
    /// Show what a GGUF file holds
    Inspect(inspect::InspectArgs),
    /// List the models on this machine, and those with a short name
    Models(models::ModelsArgs),
    /// Prove a backend right: its tensors against the reference's, operation by operation
    Verify(verify::VerifyArgs),
    /// Measure how fast a model runs
    Bench(bench::BenchArgs),
    /// List the GPU kernels in this program, or print one
    Ptx(ptx::PtxArgs),
    /// Show the tokens of a text
    Tokenize(tokenize::TokenizeArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// Parses the process's arguments, runs the subcommand, reports its error.
pub fn main() -> ExitCode {
    let parsed = Cli::from_arg_matches(&definition().get_matches());
    let outcome = match parsed.unwrap_or_else(|error| error.exit()).command {
        Command::Generate(args) => generate::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Batch(args) => batch::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Ptx(args) => ptx::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Completions(args) => completions::run(&args),
    };
    outcome.unwrap_or_else(|error| report(&error))
}

/// The command line as it is read.
fn definition() -> clap::Command {
    with_negative_numbers(Cli::command())
}

/// Takes a number behind an option for its value, also a negative one, so that the option says what it may be. To clap
/// it is a flag that there is not.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let of_option = |arg: clap::Arg| match arg.is_positional() || !arg.get_action().takes_values() {
        true => arg,
        false => arg.allow_negative_numbers(true),
    };
    command
        .mut_args(of_option)
        .mut_subcommands(with_negative_numbers)
}

/// What responses call a model: its file's name without what stands behind the last point.
fn model_name(path: &Path) -> String {
    path.file_stem()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

/// Prints the error and its causes on one line.
fn report(error: &anyhow::Error) -> ExitCode {
    // The reader of our stdout has seen enough (`| head -1`).
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    let style = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
    // What files and servers say is escaped where it is quoted; this is for what was forgotten there.
    let message = format!("{error:#}");
    let message = escape_lines(&message);
    // anstream drops the colour where stderr is no terminal or NO_COLOR is set.
    let advice = advice::for_error(error).map_or_else(String::new, |advice| format!(". {advice}"));
    anstream::eprintln!("{style}error:{style:#} {message}{advice}");
    ExitCode::from(FAILED)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        definition().debug_assert();
    }
}
