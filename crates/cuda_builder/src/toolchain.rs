//! Which rustc compiles for the GPU.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::CudaBuilderError;

/// Variables that name the rustc to use, the first that is set.
pub(crate) const OVERRIDES: [&str; 2] = ["HYPERION_DEVICE_RUSTC", "CUDA_BUILDER_RUSTC"];

/// Where distributions put their rustc, and with it `core`'s source.
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

/// How a toolchain has the device's `core`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreLibrary {
    /// Compiled, as `rustup target add` installs it.
    Prebuilt,
    /// As source: cargo compiles it along.
    Source,
}

/// A rustc that can compile for the GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// The cargo of the same version.
    pub cargo: PathBuf,
    /// How it has `core`.
    pub core: CoreLibrary,
}

impl Toolchain {
    /// The first usable one of:
    ///
    /// 1. the rustc named by `HYPERION_DEVICE_RUSTC` or `CUDA_BUILDER_RUSTC` (and then no other);
    /// 2. the rustc that runs this build;
    /// 3. the distribution's, `/usr/bin/rustc`.
    ///
    /// Usable is one that has the target `nvptx64-nvidia-cuda` or `core`'s source, and a cargo beside
    /// it.
    pub fn find() -> Result<Self, CudaBuilderError> {
        let named = OVERRIDES
            .iter()
            .find_map(|name| Some((*name, env::var_os(name).filter(|value| !value.is_empty())?)));
        let candidates = match named {
            Some((variable, rustc)) => vec![Candidate::ask(variable, rustc.into())],
            None => vec![
                Candidate::ask(
                    "this build's",
                    env::var_os("RUSTC")
                        .unwrap_or_else(|| "rustc".into())
                        .into(),
                ),
                Candidate::ask("the distribution's", DISTRIBUTION_RUSTC.into()),
            ],
        };
        choose(&candidates)
    }
}

/// A rustc to look at, and the root of its installation where it could be asked.
struct Candidate {
    origin: &'static str,
    rustc: PathBuf,
    sysroot: Option<PathBuf>,
}

impl Candidate {
    fn ask(origin: &'static str, rustc: PathBuf) -> Self {
        let sysroot = Command::new(&rustc)
            .args(["--print", "sysroot"])
            .output()
            .ok()
            .filter(|output| output.status.success())
            .and_then(|output| String::from_utf8(output.stdout).ok())
            .map(|path| PathBuf::from(path.trim()));
        Self {
            origin,
            rustc,
            sysroot,
        }
    }
}

fn choose(candidates: &[Candidate]) -> Result<Toolchain, CudaBuilderError> {
    let mut reasons = Vec::new();
    for candidate in candidates {
        match candidate
            .sysroot
            .as_deref()
            .map_or(Err("it does not run".to_owned()), inspect)
        {
            Ok(toolchain) => return Ok(toolchain),
            Err(reason) => reasons.push(format!(
                "  {} ({}): {reason}",
                candidate.rustc.display(),
                candidate.origin
            )),
        }
    }
    Err(CudaBuilderError::NoToolchain(format!(
        "no Rust compiler here can compile for the GPU (target nvptx64-nvidia-cuda):\n{}\n\
         Install one of:\n  \
         rustup target add nvptx64-nvidia-cuda     (where rustup is online)\n  \
         rustup component add rust-src             (the same, as source)\n  \
         apt-get install --no-install-recommends rustc-web rust-web-src cargo-web     (Debian 12)\n\
         or name a rustc that has the target or the source of core in {}.",
        reasons.join("\n"),
        OVERRIDES[0],
    )))
}

/// What an installation offers, or why it will not do.
fn inspect(sysroot: &Path) -> Result<Toolchain, String> {
    let rustlib = sysroot.join("lib/rustlib");
    let core = if rustlib.join("nvptx64-nvidia-cuda/lib").is_dir() {
        CoreLibrary::Prebuilt
    } else if rustlib.join("src/rust/library/core/Cargo.toml").is_file() {
        CoreLibrary::Source
    } else {
        return Err(format!(
            "neither the target nor core's source is in {}",
            rustlib.display()
        ));
    };
    let bin = sysroot.join("bin");
    let cargo = bin.join("cargo");
    if !cargo.is_file() {
        return Err(format!("there is no cargo in {}", bin.display()));
    }
    Ok(Toolchain {
        rustc: bin.join("rustc"),
        cargo,
        core,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn installation(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    fn candidate(origin: &'static str, sysroot: Option<&Path>) -> Candidate {
        Candidate {
            origin,
            rustc: PathBuf::from(format!("/{origin}/rustc")),
            sysroot: sysroot.map(Path::to_owned),
        }
    }

    const SOURCE: &str = "lib/rustlib/src/rust/library/core/Cargo.toml";
    const PREBUILT: &str = "lib/rustlib/nvptx64-nvidia-cuda/lib/libcore.rlib";

    #[test]
    fn a_prebuilt_core_is_preferred_to_source() {
        let root = tempfile::tempdir().unwrap();
        installation(root.path(), &["bin/cargo", SOURCE, PREBUILT]);
        let found = choose(&[candidate("pinned", Some(root.path()))]).unwrap();
        assert_eq!(found.core, CoreLibrary::Prebuilt);
        assert_eq!(found.cargo, root.path().join("bin/cargo"));
        assert_eq!(found.rustc, root.path().join("bin/rustc"));
    }

    #[test]
    fn the_first_usable_candidate_wins() {
        let root = tempfile::tempdir().unwrap();
        let (bare, first, second) = (
            root.path().join("bare"),
            root.path().join("first"),
            root.path().join("second"),
        );
        installation(&bare, &["bin/cargo"]);
        installation(&first, &["bin/cargo", SOURCE]);
        installation(&second, &["bin/cargo", PREBUILT]);
        let found = choose(&[
            candidate("missing", None),
            candidate("bare", Some(&bare)),
            candidate("first", Some(&first)),
            candidate("second", Some(&second)),
        ])
        .unwrap();
        assert_eq!(found.core, CoreLibrary::Source);
        assert_eq!(found.cargo, first.join("bin/cargo"));
    }

    #[test]
    fn source_without_cargo_is_not_usable() {
        let root = tempfile::tempdir().unwrap();
        installation(root.path(), &[SOURCE]);
        let error = choose(&[candidate("pinned", Some(root.path()))])
            .unwrap_err()
            .to_string();
        assert!(error.contains("there is no cargo in"), "{error}");
    }

    #[test]
    fn the_message_names_what_was_tried_and_what_to_install() {
        let root = tempfile::tempdir().unwrap();
        let error = choose(&[
            candidate("pinned", Some(root.path())),
            candidate("system", None),
        ])
        .unwrap_err()
        .to_string();
        for part in [
            "/pinned/rustc (pinned): neither the target nor core's source is in",
            "/system/rustc (system): it does not run",
            "rustup target add nvptx64-nvidia-cuda",
            "rustup component add rust-src",
            "apt-get install --no-install-recommends rustc-web rust-web-src cargo-web",
            "HYPERION_DEVICE_RUSTC",
        ] {
            assert!(error.contains(part), "{part:?} is not in:\n{error}");
        }
    }
}
