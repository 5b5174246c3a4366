//! Installs the system packages that this machine lacks.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use model_cache::Pip;

use crate::device_toolchain;

/// Something a person has to install when we cannot.
struct Missing {
    what: &'static str,
    debian_packages: &'static [&'static str],
    elsewhere: &'static str,
}

/// Finds what is missing and installs it where that is possible without asking: as root on a
/// Debian-like system. Elsewhere the error holds the exact commands.
pub fn install_missing() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let has_apt = succeeds("apt-get", &["--version"]);
    if !has_apt || !is_root() {
        bail!("{}", advice(&missing, has_apt));
    }
    install(&debian_packages(&missing))?;
    match self::missing().first() {
        Some(still) => bail!("{} is still missing after apt-get installed it", still.what),
        None => Ok(()),
    }
}

fn missing() -> Vec<Missing> {
    let mut missing = Vec::new();
    if !device_toolchain::is_present() {
        missing.push(Missing {
            what: "a toolchain that compiles Rust to PTX",
            debian_packages: &device_toolchain::DEBIAN_PACKAGES,
            elsewhere: device_toolchain::RUSTUP_COMMAND,
        });
    }
    if Pip::find().is_err() {
        missing.push(Missing {
            what: "pip, which fetches the models",
            debian_packages: &["python3-pip"],
            elsewhere: "your package manager's Python 3 with pip",
        });
    }
    missing
}

fn debian_packages(missing: &[Missing]) -> Vec<&'static str> {
    missing
        .iter()
        .flat_map(|m| m.debian_packages)
        .copied()
        .collect()
}

fn advice(missing: &[Missing], has_apt: bool) -> String {
    let what: Vec<_> = missing.iter().map(|m| m.what).collect();
    let mut text = format!(
        "this machine lacks {}; install it and try again:",
        what.join(", and ")
    );
    if has_apt {
        let packages = debian_packages(missing).join(" ");
        text.push_str(&format!(
            "\n  sudo apt-get update && sudo apt-get install --no-install-recommends {packages}\nor"
        ));
    }
    for m in missing {
        text.push_str(&format!("\n  {}", m.elsewhere));
    }
    text
}

fn install(packages: &[&str]) -> Result<()> {
    eprintln!("installing {}", packages.join(" "));
    apt_get(&["update", "--quiet"])?;
    apt_get(
        &[
            &["install", "--quiet", "--yes", "--no-install-recommends"],
            packages,
        ]
        .concat(),
    )
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .context("cannot start apt-get")?;
    if !status.success() {
        bail!("`apt-get {}` failed ({status})", arguments.join(" "));
    }
    Ok(())
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_a_command_to_copy() {
        let missing = [Missing {
            what: "a toolchain",
            debian_packages: &["rustc-web", "cargo-web"],
            elsewhere: "rustup target add x",
        }];
        let text = advice(&missing, true);
        assert!(text.contains("apt-get install --no-install-recommends rustc-web cargo-web\n"));
        assert!(text.ends_with("\n  rustup target add x"));
        assert!(!advice(&missing, false).contains("apt-get"));
    }
}
