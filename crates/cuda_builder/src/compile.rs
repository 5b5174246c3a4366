//! One run of cargo for the device.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{CoreLibrary, CudaBuilderError, NvvmArch, Toolchain};

const TARGET: &str = "nvptx64-nvidia-cuda";

/// How LLVM optimizes.
///
/// The first three: no pass may copy code into both sides of a branch. A barrier, shuffle or vote in
/// inline PTX must be reached by all threads at one place, and rustc cannot mark it so (LLVM's
/// `convergent`).
///
/// The last two: loops of constant length unroll fully up to a larger size, because an array that a
/// rolled loop indexes goes to local memory; other loops are unrolled as by default for this target.
const LLVM_ARGS: &str = "-Cllvm-args=-jump-threading-threshold=0 -unswitch-threshold=0 \
                         -simplifycfg-max-small-block-size=0 \
                         -unroll-threshold=5000 -unroll-partial-threshold=75";

pub(crate) struct Job<'a> {
    pub toolchain: &'a Toolchain,
    pub crate_path: &'a Path,
    pub arch: NvvmArch,
    pub line_info: bool,
    pub target_dir: &'a Path,
}

pub(crate) struct Compiled {
    /// The PTX as the compiler wrote it.
    pub ptx: String,
    /// The files that it depends on.
    pub sources: Vec<PathBuf>,
}

/// Compiles the crate with everything it uses into one PTX text.
pub(crate) fn compile(job: &Job) -> Result<Compiled, CudaBuilderError> {
    let status = command(job).status().map_err(CudaBuilderError::io(format!(
        "starting {}",
        job.toolchain.cargo.display()
    )))?;
    if !status.success() {
        return Err(CudaBuilderError::BuildFailed {
            crate_path: job.crate_path.to_owned(),
            arch: job.arch,
            status,
        });
    }
    let release = job.target_dir.join(TARGET).join("release");
    let name = crate_name(job.crate_path)?;
    let ptx_path = release.join("deps").join(format!("{name}.s"));
    let ptx = read(&ptx_path)?;
    let mut sources = dependencies(&read(&release.join(format!("{name}.d")))?);
    sources.push(job.crate_path.join("Cargo.toml"));
    Ok(Compiled { ptx, sources })
}

fn command(job: &Job) -> Command {
    let mut command = Command::new(&job.toolchain.cargo);
    for (name, _) in std::env::vars_os() {
        if is_of_the_outer_build(&name) {
            command.env_remove(name);
        }
    }
    command
        .current_dir(job.crate_path)
        .env("RUSTC", &job.toolchain.rustc)
        // Unlocks `abi_ptx` and `asm_experimental_arch`, and `-Zbuild-std`, on a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        // No linker: the PTX is written by the compiler, and distributions ship no bitcode linker.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Clinker=true")
        // Fat LTO makes the last crate's assembly whole: functions of other crates that are not
        // inlined are in it. Set here so that the workspace's profiles do not reach the device.
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false")
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "false")
        .env(
            "CARGO_PROFILE_RELEASE_DEBUG",
            if job.line_info {
                "line-directives-only"
            } else {
                "none"
            },
        )
        .stdin(Stdio::null())
        // A build script's standard output is cargo's instructions.
        .stdout(Stdio::null())
        .args([
            "rustc",
            "--release",
            "--lib",
            "--crate-type",
            "cdylib",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(job.target_dir);
    if job.toolchain.core == CoreLibrary::Source {
        command.arg("-Zbuild-std=core");
    }
    // The architecture is given to the last crate only, whose code generation covers everything.
    command
        .arg("--")
        .arg("--emit=asm")
        .arg(format!("-Ctarget-cpu={}", job.arch))
        .arg(format!("-Ctarget-feature={}", job.arch.ptx_feature()))
        .arg(LLVM_ARGS);
    command
}

/// Whether the variable tells the outer cargo, rustc or build script how to work.
fn is_of_the_outer_build(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let name = name.as_ref();
    match name {
        "CARGO_HOME" | "CARGO_NET_OFFLINE" | "CARGO_TERM_COLOR" => false,
        "TARGET" | "HOST" | "OUT_DIR" | "NUM_JOBS" | "OPT_LEVEL" | "PROFILE" | "DEBUG" => true,
        // The outer toolchain's libraries.
        "LD_LIBRARY_PATH" => true,
        "MAKEFLAGS" | "MFLAGS" => true,
        _ => [
            "CARGO",
            "RUSTC",
            "RUSTFLAGS",
            "RUSTDOC",
            "RUSTUP_TOOLCHAIN",
            "DEP_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix)),
    }
}

fn crate_name(crate_path: &Path) -> Result<String, CudaBuilderError> {
    let manifest = read(&crate_path.join("Cargo.toml"))?;
    let name = manifest
        .lines()
        .skip_while(|line| line.trim() != "[package]")
        .find_map(|line| line.strip_prefix("name")?.trim_start().strip_prefix('='))
        .map(|value| value.trim().trim_matches('"').replace('-', "_"));
    name.ok_or_else(|| CudaBuilderError::Io {
        what: format!(
            "{}: no package name",
            crate_path.join("Cargo.toml").display()
        ),
        source: std::io::ErrorKind::InvalidData.into(),
    })
}

/// The files after the colon of cargo's dependency file; blanks in names are escaped.
fn dependencies(text: &str) -> Vec<PathBuf> {
    let Some((_, files)) = text.lines().next().and_then(|line| line.split_once(": ")) else {
        return Vec::new();
    };
    files
        .replace("\\ ", "\0")
        .split_whitespace()
        .map(|file| PathBuf::from(file.replace('\0', " ")))
        .collect()
}

fn read(path: &Path) -> Result<String, CudaBuilderError> {
    fs::read_to_string(path).map_err(CudaBuilderError::io(format!("reading {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependency_files_are_split_at_unescaped_blanks() {
        let text = "/out/libk.so: /src/a.rs /src/with\\ blank.rs /src/c.rs\n\n/src/a.rs:\n";
        let expected = ["/src/a.rs", "/src/with blank.rs", "/src/c.rs"].map(PathBuf::from);
        assert_eq!(dependencies(text), expected);
        assert!(dependencies("").is_empty());
    }

    #[test]
    fn the_outer_builds_variables_are_removed_and_no_others() {
        for name in [
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "TARGET",
            "OUT_DIR",
            "DEP_X_Y",
            "CARGO_PROFILE_DEV_DEBUG",
        ] {
            assert!(is_of_the_outer_build(name.as_ref()), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "CARGO_HOME",
            "RUSTUP_HOME",
            "HTTPS_PROXY",
            "RUST_LOG",
        ] {
            assert!(!is_of_the_outer_build(name.as_ref()), "{name}");
        }
    }
}
