//! Project tasks, started as `cargo xtask TASK`.
//!
//! This package must not depend on `hyperion`, whose build script compiles the GPU kernels and so
//! needs the device toolchain that the tasks here install.

mod device_toolchain;
mod system;

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use model_cache::{Cache, KNOWN_MODELS, KnownModel, known_tools};

const HELP: &str = "\
Usage: cargo xtask TASK

Tasks:
  demo   Set up, build, and let the default model write a haiku
  test   Set up and run every test
  setup  Install what is missing on this machine, fetch the models of the tests and NVIDIA's ptxas";

/// A prompt that the default model answers with three lines, and flags under which it always does:
/// a model this small may ramble when its tokens are drawn.
const DEMO_PROMPT: &str = "Write a haiku about the moon in three lines.";
const DEMO_FLAGS: [&str; 4] = ["--temp", "0", "-n", "64"];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let task = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["demo"] => demo,
        ["test"] => test,
        ["setup"] => set_up_tests,
        ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match task() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    let model = &KNOWN_MODELS[0];
    set_up(std::slice::from_ref(model))?;
    cargo(&["build", "--release", "--bin", "hyperion"])?;
    let flags = DEMO_FLAGS.join(" ");
    eprintln!(
        "> hyperion generate {} -p {DEMO_PROMPT:?} {flags}",
        model.name
    );
    let run = ["run", "--quiet", "--release", "--bin", "hyperion", "--"];
    let generate = ["generate", model.name, "-p", DEMO_PROMPT];
    cargo(&[&run[..], &generate, &DEMO_FLAGS].concat())
}

fn test() -> Result<()> {
    set_up_tests()?;
    cargo(&["test", "--workspace"])
}

/// Brings a fresh machine to where all tests run.
fn set_up_tests() -> Result<()> {
    set_up(KNOWN_MODELS)?;
    let cache = Cache::from_env()?;
    for tool in known_tools() {
        let path = cache.fetch_tool(tool)?;
        eprintln!("tool {}: {}", tool.name, path.display());
    }
    if known_tools().is_empty() {
        eprintln!("no ptxas for this machine: what needs it is not tested");
    }
    Ok(())
}

/// Brings a fresh machine to where hyperion builds, with the given models in the user's cache.
fn set_up(models: &[KnownModel]) -> Result<()> {
    system::install_missing()?;
    let cache = Cache::from_env()?;
    for model in models {
        let path = cache.fetch(model)?;
        eprintln!("model {}: {}", model.name, path.display());
    }
    Ok(())
}

/// Runs cargo in the workspace.
fn cargo(arguments: &[&str]) -> Result<()> {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace());
    // What the outer cargo says about this package would reach the build scripts of others, which
    // would then run again whenever cargo is started in another way.
    for (name, _) in env::vars_os() {
        let own = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        });
        if own {
            command.env_remove(name);
        }
    }
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("`cargo {}` failed ({status})", arguments.join(" "));
    }
    Ok(())
}

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
