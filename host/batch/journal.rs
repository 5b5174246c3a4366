//! The file of results: lines are appended whole, and what a killed run left behind is found out.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::result_line::HEAD;

/// What a power failure may cost.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// Why results cannot be appended.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process writes it.
    #[error("{} is being written by another process", .0.display())]
    Locked(PathBuf),
    /// A pipe or a device, which cannot be read again.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// The file holds something else.
    #[error(
        "{}, line {line}, is not a result of these requests by this model with these options; it is left as it is",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// A result that is there twice.
    #[error("{}, line {line}, is the second result of one request; it is left as it is", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
}

/// An open file of results, which no other process writes.
pub struct Journal {
    file: File,
    path: PathBuf,
    synced: Instant,
}

/// The part of a line that says whose result it is.
#[derive(Deserialize)]
struct Name {
    id: String,
}

impl Journal {
    /// Opens or creates the results at `path`, and tells which of those called `ids` are there already. A line at the
    /// end that a killed run did not finish is cut off. Blank lines, as editors leave them, are no results. A file with
    /// anything else in it is not touched.
    ///
    /// # Errors
    /// A file that another process writes, or that holds other results.
    pub fn open(path: &Path, ids: &[String]) -> Result<(Journal, Vec<bool>), JournalError> {
        let failed = |doing| {
            move |source| JournalError::Io {
                doing,
                path: path.to_owned(),
                source,
            }
        };
        // A pipe would be waited for.
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Err(JournalError::NotAFile(path.to_owned()));
        }
        let mut options = OpenOptions::new();
        let options = options.read(true).append(true).create(true);
        let file = options.open(path).map_err(failed("opening"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed("locking")(error)),
        }
        let found = read(&file, ids).map_err(failed("reading"))?;
        let (done, whole) = found.map_err(|problem| match problem {
            Problem::Foreign(line) => JournalError::Foreign {
                path: path.to_owned(),
                line,
            },
            Problem::Twice(line) => JournalError::Twice {
                path: path.to_owned(),
                line,
            },
        })?;
        if file.metadata().map_err(failed("reading"))?.len() > whole {
            file.set_len(whole)
                .map_err(failed("cutting a torn line off"))?;
        }
        let journal = Journal {
            file,
            path: path.to_owned(),
            synced: Instant::now(),
        };
        Ok((journal, done))
    }

    /// Appends `line`, which ends in its only newline.
    ///
    /// # Errors
    /// It could not be written whole; what was written of it is cut off by the next [`Journal::open`].
    pub fn append(&mut self, line: &[u8]) -> Result<(), JournalError> {
        let written = self.file.write_all(line);
        written.map_err(|error| self.failed("writing", error))?;
        match self.synced.elapsed() >= SYNC_INTERVAL {
            true => self.sync(),
            false => Ok(()),
        }
    }

    /// Waits until all lines would outlive a power failure.
    ///
    /// # Errors
    /// The file system could not do it.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        let synced = self.file.sync_data();
        synced.map_err(|error| self.failed("writing", error))?;
        self.synced = Instant::now();
        Ok(())
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> JournalError {
        JournalError::Io {
            doing,
            path: self.path.clone(),
            source,
        }
    }
}

/// What is wrong with the line of that number.
enum Problem {
    Foreign(usize),
    Twice(usize),
}

/// Which of `ids` have a whole line, and how many bytes these lines take.
fn read(file: &File, ids: &[String]) -> io::Result<Result<(Vec<bool>, u64), Problem>> {
    let places: HashMap<&str, usize> = ids.iter().map(String::as_str).zip(0..).collect();
    let mut done = vec![false; ids.len()];
    let mut whole = 0;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.last() != Some(&b'\n') {
            // Behind whole results any beginning of one is torn; alone it must be enough to tell that it is one.
            let is_enough = line.starts_with(HEAD.as_bytes()) || done.contains(&true);
            match is_enough && is_torn(&line, ids) {
                true => break,
                false => return Ok(Err(Problem::Foreign(number))),
            }
        }
        if line.trim_ascii().is_empty() {
            whole += line.len() as u64;
            continue;
        }
        let name: Option<Name> = serde_json::from_slice(&line).ok();
        let name = name
            .as_ref()
            .and_then(|name| name.id.strip_prefix("batch_req_"));
        let Some(&place) = name.and_then(|name| places.get(name)) else {
            return Ok(Err(Problem::Foreign(number)));
        };
        if std::mem::replace(&mut done[place], true) {
            return Ok(Err(Problem::Twice(number)));
        }
        whole += line.len() as u64;
    }
    Ok(Ok((done, whole)))
}

/// Whether `end` can be the beginning of a result's line; after a power failure there may be zeros in its place, and an
/// editor may have left spaces.
fn is_torn(end: &[u8], ids: &[String]) -> bool {
    if end.trim_ascii().is_empty() {
        return true;
    }
    let written = end
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    let written = &end[..written];
    let agrees = |one: &[u8], two: &[u8]| one.iter().zip(two).all(|(one, two)| one == two);
    let Some(rest) = written.get(HEAD.len()..) else {
        return HEAD.as_bytes().starts_with(written);
    };
    agrees(written, HEAD.as_bytes()) && ids.iter().any(|id| agrees(rest, id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::batch::ResultLine;
    use crate::openai::ApiError;

    fn ids(n: usize) -> Vec<String> {
        (1..=n as u128)
            .map(|number| format!("{:032x}", number << 124))
            .collect()
    }

    fn line(id: &str) -> Vec<u8> {
        let line = ResultLine {
            id,
            custom_id: Some(id),
            outcome: Err(ApiError::invalid("größer als erlaubt\n")),
        };
        line.to_bytes().expect("a line")
    }

    /// Opens the journal and appends all that is missing.
    fn complete(path: &Path, ids: &[String]) -> Result<usize, JournalError> {
        let (mut journal, done) = Journal::open(path, ids)?;
        let missing = ids.iter().zip(&done).filter(|(_, done)| !**done);
        let mut appended = 0;
        for (id, _) in missing {
            journal.append(&line(id))?;
            appended += 1;
        }
        journal.sync()?;
        Ok(appended)
    }

    fn sorted_lines(path: &Path) -> Vec<Vec<u8>> {
        let content = fs::read(path).expect("results");
        let mut lines: Vec<Vec<u8>> = content
            .split_inclusive(|&byte| byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect();
        lines.sort();
        lines
    }

    proptest! {
        /// However often a run is cut off, and wherever, in the end each line is there once.
        #[test]
        fn nothing_is_lost_or_doubled(
            n in 1_usize..12,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            has_zeros in any::<bool>(),
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("out");
            let ids = ids(n);
            let mut expected: Vec<Vec<u8>> = ids.iter().map(|id| line(id)).collect();
            expected.sort();
            complete(&path, &ids).expect("a first run");
            for cut in cuts {
                let mut content = fs::read(&path).expect("results");
                content.truncate(cut.index(content.len() + 1));
                let n_whole = content.iter().filter(|&&byte| byte == b'\n').count();
                let tells = n_whole > 0 || content.is_empty() || content.starts_with(HEAD.as_bytes());
                if has_zeros && !content.is_empty() {
                    content.extend([0; 100]);
                }
                fs::write(&path, &content).expect("cut");
                if !tells {
                    // A file that somebody else may need.
                    prop_assert!(complete(&path, &ids).is_err());
                    prop_assert_eq!(fs::read(&path).expect("the file"), content);
                    fs::remove_file(&path).expect("removed");
                }
                prop_assert_eq!(complete(&path, &ids).expect("a next run"), n - n_whole);
                prop_assert_eq!(&sorted_lines(&path), &expected);
            }
            prop_assert_eq!(complete(&path, &ids).expect("nothing to do"), 0);
            prop_assert_eq!(sorted_lines(&path), expected);
        }

        /// What is not a beginning of these results is left as it is.
        #[test]
        fn other_content_is_not_touched(content in prop::collection::vec(any::<u8>(), 1..80)) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("out");
            fs::write(&path, &content).expect("written");
            let is_blank = content.ends_with(b"\n") && content.trim_ascii().is_empty();
            let opened = Journal::open(&path, &ids(3)).is_ok();
            prop_assert_eq!(opened, is_blank);
            if !opened {
                prop_assert_eq!(fs::read(&path).expect("the file"), content);
            }
        }
    }

    #[test]
    fn what_is_no_file_of_results_is_not_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out");
        for content in [
            &b"{"[..],
            &HEAD.as_bytes()[..HEAD.len() - 1],
            b"\0\0\0",
            b"  ",
        ] {
            fs::write(&path, content).expect("written");
            let error = complete(&path, &ids(2)).expect_err("no results");
            assert!(
                matches!(error, JournalError::Foreign { line: 1, .. }),
                "{error}"
            );
            assert_eq!(fs::read(&path).expect("the file"), content);
        }
    }

    #[test]
    fn blank_lines_are_no_results() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out");
        let ids = ids(3);
        complete(&path, &ids[..2]).expect("a run");
        let [before, blank] = [fs::read(&path).expect("results"), b"\n \t\r\n".to_vec()];
        for (behind, kept) in [(&b""[..], &b""[..]), (b"  ", b"")] {
            let content = [&blank[..], &before, &blank, behind].concat();
            fs::write(&path, &content).expect("written");
            assert_eq!(complete(&path, &ids).expect("a next run"), 1);
            let expected = [&blank[..], &before, &blank, kept, &line(&ids[2])].concat();
            assert_eq!(fs::read(&path).expect("results"), expected);
        }
    }

    #[test]
    fn results_of_other_requests_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out");
        let ids = ids(4);
        complete(&path, &ids[..2]).expect("a run");
        let before = fs::read(&path).expect("results");
        let error = complete(&path, &ids[1..]).expect_err("other requests");
        assert!(
            matches!(error, JournalError::Foreign { line: 1, .. }),
            "{error}"
        );
        // A torn line too tells whose it is.
        for torn in [HEAD.len() + 1, 60, before.len() / 2 - 1] {
            fs::write(&path, &before[..torn]).expect("cut");
            let error = complete(&path, &ids[2..]).expect_err("other requests");
            assert!(
                matches!(error, JournalError::Foreign { line: 1, .. }),
                "{error}"
            );
        }
        fs::write(&path, [&before[..], &before[..]].concat()).expect("doubled");
        let error = complete(&path, &ids).expect_err("two of each");
        assert!(
            matches!(error, JournalError::Twice { line: 3, .. }),
            "{error}"
        );
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out");
        let first = Journal::open(&path, &ids(1)).expect("the first");
        let second = Journal::open(&path, &ids(1))
            .map(drop)
            .expect_err("the second");
        assert!(matches!(second, JournalError::Locked(_)), "{second}");
        drop(first);
        Journal::open(&path, &ids(1)).map(drop).expect("the next");
        let folder = Journal::open(folder.path(), &ids(1))
            .map(drop)
            .expect_err("a folder");
        assert!(matches!(folder, JournalError::NotAFile(_)), "{folder}");
    }
}
