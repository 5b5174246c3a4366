//! Where NVIDIA's command line tools are.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use model_cache::{Cache, known_tools};

use super::error::{PtxError, Result};

/// Path of a tool. First the one that `cargo xtask setup` fetched, whose version is known to know every
/// architecture, then those of `CUDA_HOME` and `CUDA_PATH`, of `PATH`, and of the usual places of a toolkit.
///
/// # Errors
/// There is none; says how to get it.
pub fn find(name: &'static str) -> Result<PathBuf> {
    let cached = || {
        let cache = Cache::from_env().ok()?;
        let tool = known_tools().iter().find(|tool| tool.name == name)?;
        cache.holds_tool(tool).then(|| cache.path_of_tool(tool))
    };
    let installed = || {
        let file = format!("{name}{}", env::consts::EXE_SUFFIX);
        let mut paths = folders(|name| env::var_os(name)).into_iter();
        paths.find_map(|folder| Some(folder.join(&file)).filter(|path| path.is_file()))
    };
    cached().or_else(installed).ok_or(PtxError::NoTool { name })
}

/// Folders of installed tools.
fn folders(var: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let set = |name| var(name).filter(|value| !value.is_empty());
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(set);
    let mut folders: Vec<PathBuf> = toolkits
        .map(|root| PathBuf::from(root).join("bin"))
        .collect();
    folders.extend(env::split_paths(&var("PATH").unwrap_or_default()));
    folders.extend(["/usr/local/cuda/bin", "/opt/cuda/bin"].map(PathBuf::from));
    folders
}

/// What a run of a tool wrote.
pub(super) struct Written {
    /// To standard output.
    pub out: String,
    /// To standard error.
    pub messages: String,
}

/// Runs a tool.
///
/// # Errors
/// There is no such tool, it cannot be started, or it fails: with its first complaint.
pub(super) fn run(name: &'static str, arguments: &[OsString]) -> Result<Written> {
    let path = find(name)?;
    let failed = |reason| PtxError::Tool { name, reason };
    let output = Command::new(&path)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("cannot start {}: {error}", path.display())))?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let written = Written {
        out: text(&output.stdout),
        messages: text(&output.stderr),
    };
    if output.status.success() {
        return Ok(written);
    }
    Err(failed(match complaint(&written.messages) {
        Some(line) => line.to_owned(),
        None => format!("{} ended with {}", path.display(), output.status),
    }))
}

/// The first line of the messages that says what is wrong.
fn complaint(messages: &str) -> Option<&str> {
    let is_error = |line: &&str| line.contains("error") || line.contains("fatal");
    let mut lines = messages.lines().map(str::trim);
    lines
        .clone()
        .find(is_error)
        .or_else(|| lines.find(|line| !line.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolkit_that_is_named_comes_before_the_path() {
        let folders = folders(|name| match name {
            "CUDA_HOME" => Some("/home/cuda".into()),
            "CUDA_PATH" => Some(OsString::new()),
            "PATH" => env::join_paths(["/a", "/b"]).ok(),
            _ => None,
        });
        let expected = [
            "/home/cuda/bin",
            "/a",
            "/b",
            "/usr/local/cuda/bin",
            "/opt/cuda/bin",
        ];
        assert_eq!(folders, expected.map(PathBuf::from));
    }

    #[test]
    fn a_missing_tool_says_how_to_get_it() {
        let error = find("no-such-tool").unwrap_err().to_string();
        assert!(error.contains("`no-such-tool`"), "{error}");
        assert!(error.contains("cargo xtask setup"), "{error}");
    }

    #[test]
    fn complaints_are_found_among_other_messages() {
        let messages =
            "ptxas info : 0 bytes\nptxas x.ptx, line 3; error : what\nptxas fatal : aborted\n";
        assert_eq!(
            complaint(messages),
            Some("ptxas x.ptx, line 3; error : what")
        );
        assert_eq!(complaint("\n odd \n"), Some("odd"));
        assert_eq!(complaint(""), None);
    }
}
