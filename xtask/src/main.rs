//! Project tasks, started as `cargo xtask TASK`.
//!
//! This package must not depend on `hyperion` or `kernels_ptx`, whose build script compiles the GPU kernels and so
//! needs the device toolchain that the tasks here install.

mod device_toolchain;
mod system;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use model_cache::{Cache, KNOWN_MODELS, KnownModel, known_tools};

const HELP: &str = "\
Usage: cargo xtask TASK

Tasks:
  demo   Set up, build, and let the default model write a haiku
  test   Set up and run every test; with --skipped N, fail where not exactly N are left out
  cluster
         Set up, build, and try three servers behind the router SMG
  setup  Install what is missing on this machine, fetch the models of the tests, NVIDIA's ptxas and
         the clients of the server";

/// The variable that names the file in which tests say that they are left out: see `crates/test_skips`.
const SKIPS: &str = "HYPERION_TEST_SKIPS";

/// The Python packages that `tests/clients.rs` runs.
const CLIENTS: &str = "tests/clients/requirements.txt";

/// The router that `tests/tools/cluster.py` puts before servers.
const ROUTER: &str = "tests/tools/cluster-requirements.txt";

/// A prompt that the default model answers with three lines, and flags under which it always does:
/// a model this small may ramble when its tokens are drawn.
const DEMO_PROMPT: &str = "Write a haiku about the moon in three lines.";
const DEMO_FLAGS: [&str; 4] = ["--temp", "0", "-n", "64"];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let task = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["demo"] => demo,
        ["test"] => return exit_code(test(None)),
        ["test", "--skipped", count] if count.parse::<usize>().is_ok() => {
            return exit_code(test(count.parse().ok()));
        }
        ["cluster"] => cluster,
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
    exit_code(task())
}

fn exit_code(outcome: Result<()>) -> ExitCode {
    match outcome {
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
    let hyperion = build()?;
    let flags = DEMO_FLAGS.join(" ");
    eprintln!(
        "> hyperion generate {} -p {DEMO_PROMPT:?} {flags}",
        model.name
    );
    run(Command::new(&hyperion)
        .args(["generate", model.name, "-p", DEMO_PROMPT])
        .args(DEMO_FLAGS))
}

/// Tries three servers with the default model behind a router.
fn cluster() -> Result<()> {
    let model = &KNOWN_MODELS[0];
    set_up(std::slice::from_ref(model))?;
    let packages = fetch_python(ROUTER)?;
    let hyperion = build()?;
    run(Command::new("python3")
        .arg(workspace().join("tests/tools/cluster.py"))
        .args([hyperion.as_os_str(), model.name.as_ref()])
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1"))
}

/// Builds hyperion with the tests' profile and, because a test is asked for as well, with the features of all their
/// dependencies: so `cargo xtask test` finds everything built. It is not for `cargo run`, which would build it again
/// with fewer features.
fn build() -> Result<PathBuf> {
    let build = ["build", "--workspace", "--bin", "hyperion"];
    cargo(&[&build[..], &["--test", "fixtures"]].concat(), &[])?;
    // It lies beside this program.
    let mut hyperion = env::current_exe().context("the place of this program")?;
    hyperion.set_file_name(format!("hyperion{}", env::consts::EXE_SUFFIX));
    Ok(hyperion)
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        bail!("{program} failed ({status})");
    }
    Ok(())
}

/// Runs all tests. `n_skipped` is how many may be left out, where that is known.
fn test(n_skipped: Option<usize>) -> Result<()> {
    set_up_tests()?;
    let skips = workspace().join("target/skipped-tests");
    fs::create_dir_all(workspace().join("target"))?;
    fs::write(&skips, "").with_context(|| format!("cannot write {}", skips.display()))?;
    cargo(&["test", "--workspace"], &[(SKIPS, skips.as_os_str())])?;
    test_own_kernel()?;

    let skips = fs::read_to_string(skips).context("the list of skipped tests")?;
    let count = skips.lines().count();
    eprintln!("{count} tests could not run here, wholly or in part");
    eprint!("{skips}");
    if n_skipped.is_some_and(|expected| expected != count) {
        bail!(
            "{count} tests were left out, not {}",
            n_skipped.unwrap_or(0)
        );
    }
    Ok(())
}

/// The example of a kernel of one's own is a workspace outside of ours. Its program is checked and not linked: that
/// takes the driver's library.
fn test_own_kernel() -> Result<()> {
    let manifest = ["--manifest-path", "examples/own-kernel/Cargo.toml"];
    let target = workspace().join("target/own-kernel");
    let target = [("CARGO_TARGET_DIR", target.as_os_str())];
    cargo(&[&["test"][..], &manifest].concat(), &target)?;
    cargo(
        &[&["check", "--features", "cuda"][..], &manifest].concat(),
        &target,
    )
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
    let path = fetch_python(CLIENTS)?;
    eprintln!("clients of the server: {}", path.display());
    Ok(())
}

/// Makes sure that the packages of the file `requirements` are in the cache: the folder in which they lie.
fn fetch_python(requirements: &'static str) -> Result<PathBuf> {
    let list = fs::read_to_string(workspace().join(requirements)).context(requirements)?;
    Ok(Cache::from_env()?.fetch_python(&list)?)
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

/// Runs cargo in the workspace, with additional variables.
fn cargo(arguments: &[&str], variables: &[(&str, &OsStr)]) -> Result<()> {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace());
    command.envs(variables.iter().copied());
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
