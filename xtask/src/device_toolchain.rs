//! Whether this machine can compile Rust to PTX.
//!
//! That takes a `core` library for `nvptx64-nvidia-cuda`: rustup's prebuilt one, or `core`'s source
//! beside a recent enough rustc, from rustup or from the distribution.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::workspace;

/// Debian packages that together are a device toolchain.
pub const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "cargo-web"];

/// The command for people whose toolchain comes from rustup.
pub const RUSTUP_COMMAND: &str = "rustup target add nvptx64-nvidia-cuda";

/// The distribution's rustc must not be older: minor version of Rust 1.x.
const OLDEST_MINOR: u32 = 95;

/// Whether `cuda_builder` will find a toolchain.
pub fn is_present() -> bool {
    pinned_has_core() || distribution_has_core()
}

/// The toolchain that `rust-toolchain.toml` pins.
fn pinned_has_core() -> bool {
    let Some(sysroot) = print_sysroot("rustc") else {
        return false;
    };
    let rustlib = sysroot.join("lib/rustlib");
    rustlib.join("nvptx64-nvidia-cuda/lib").is_dir() || has_core_source(&rustlib)
}

fn distribution_has_core() -> bool {
    let recent = version_minor("/usr/bin/rustc").is_some_and(|minor| minor >= OLDEST_MINOR);
    let source = || {
        let sysroot = print_sysroot("/usr/bin/rustc");
        sysroot.is_some_and(|sysroot| has_core_source(&sysroot.join("lib/rustlib")))
    };
    recent && Path::new("/usr/bin/cargo").exists() && source()
}

fn has_core_source(rustlib: &Path) -> bool {
    rustlib.join("src/rust/library/core/Cargo.toml").is_file()
}

fn print_sysroot(rustc: &str) -> Option<PathBuf> {
    Some(PathBuf::from(
        output(rustc, &["--print", "sysroot"])?.trim_end(),
    ))
}

fn version_minor(rustc: &str) -> Option<u32> {
    parse_minor(&output(rustc, &["--version"])?)
}

/// Minor version out of `rustc 1.96.0 (...)`.
fn parse_minor(version: &str) -> Option<u32> {
    version
        .strip_prefix("rustc 1.")?
        .split('.')
        .next()?
        .parse()
        .ok()
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    // In the workspace, so that rustup's proxy obeys the pinned version.
    let output = Command::new(program)
        .args(arguments)
        .current_dir(workspace())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(
            parse_minor("rustc 1.96.0 (ac68faa20 2026-06-20)\n"),
            Some(96)
        );
        assert_eq!(parse_minor("rustc 1.63.0\n"), Some(63));
        assert_eq!(parse_minor("clang 14"), None);
    }
}
