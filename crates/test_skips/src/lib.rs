//! No test is left out silently: one that cannot run, wholly or in part, calls [`report`], and `cargo xtask test`
//! counts the reports.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::{env, thread};

/// The variable that names the file to which each report is appended as a line.
pub const FILE: &str = "HYPERION_TEST_SKIPS";

/// Says on standard error, and in the file that [`FILE`] names, that the calling test is left out and why.
///
/// # Panics
/// The file cannot be written: the report would be lost.
pub fn report(reason: &str) {
    let thread = thread::current();
    // The test's name, by which libtest calls its thread.
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test"));
    // Not `eprintln`, whose text libtest keeps back where a test passes. A closed standard error is no loss.
    let _ = io::stderr().write_all(format!("skipped: {line}").as_bytes());
    if let Some(path) = env::var_os(FILE) {
        append(Path::new(&path), &line);
    }
}

/// One write, so that lines of several processes do not mix.
fn append(path: &Path, line: &str) {
    let file = OpenOptions::new().append(true).create(true).open(path);
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_lines_behind_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("skips");
        append(&path, "a: no GPU\n");
        append(&path, "b: no tool\n");
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text, "a: no GPU\nb: no tool\n");
    }
}
