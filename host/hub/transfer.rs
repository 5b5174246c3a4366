//! One file from the Hub to the disk, continued where it broke off.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Instant;

use indicatif::ProgressBar;
use model_cache::Error as CacheError;
use ureq::Body;
use ureq::http::header::{CONTENT_RANGE, HeaderMap};
use ureq::http::{Response, Uri};

use super::http::{Client, Failed};
use super::retry::Retries;

/// After so many new bytes a broken connection is no longer the same trouble as the one before.
const PROGRESS: u64 = 16 << 20;

/// A server that brings fewer bytes in three times the silence allowed has stalled too.
const SLOWEST: u64 = 4 << 10;

/// A file's transfer to `part`.
pub(super) struct Transfer<'a> {
    pub client: &'a Client,
    pub url: &'a Uri,
    /// Bytes of the whole file.
    pub size: u64,
    /// The unfinished file. What it holds already is continued.
    pub part: &'a Path,
    pub bar: &'a ProgressBar,
}

/// Why a transfer ended early.
pub(super) enum Broken {
    /// The server, or the way to it.
    Remote(Failed),
    /// This machine.
    Local(CacheError),
}

impl From<Failed> for Broken {
    fn from(failed: Failed) -> Self {
        Self::Remote(failed)
    }
}

impl Transfer<'_> {
    /// Fetches until the part has its size. What it holds is not verified.
    ///
    /// # Errors
    /// The server failed several times in a row, or sends something else, or the disk failed.
    pub fn run(&self) -> Result<(), Broken> {
        let mut retries = Retries::new();
        let mut before = self.present();
        loop {
            let failed = match self.attempt() {
                Ok(()) => return Ok(()),
                Err(Broken::Remote(failed)) => failed,
                Err(local) => return Err(local),
            };
            let now = self.present();
            if now >= before.saturating_add(PROGRESS) {
                retries.reset();
                before = now;
            }
            retries.wait(failed)?;
        }
    }

    /// Bytes that are there already.
    fn present(&self) -> u64 {
        fs::metadata(self.part).map_or(0, |meta| meta.len())
    }

    fn attempt(&self) -> Result<(), Broken> {
        let mut start = self.present();
        if start > self.size {
            self.start_over()?;
            start = 0;
        }
        if start == self.size && start > 0 {
            return Ok(());
        }
        let answer = match self.client.get(self.url, (start > 0).then_some(start)) {
            Ok(answer) => answer,
            Err(failed) => {
                // 416: the range is not there, so what is here is of another file.
                if start > 0 && failed.status == Some(416) {
                    self.start_over()?;
                    return Err(Failed::temporary(failed.reason).into());
                }
                return Err(failed.into());
            }
        };
        if answer.status() == 206 {
            let range = content_range(answer.headers());
            if !range.is_some_and(|range| range.continues(start, self.size)) {
                self.start_over()?;
                let reason = "the server sends another range than the one asked for";
                return Err(Failed::temporary(reason).into());
            }
        } else {
            // All of it from the beginning, whatever was asked for.
            self.start_over()?;
            start = 0;
        }
        self.receive(answer, start)
    }

    /// Appends the body.
    fn receive(&self, answer: Response<Body>, start: u64) -> Result<(), Broken> {
        let failed = |error| Broken::Local(CacheError::io("write to", self.part, error));
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.part)
            .map_err(failed)?;
        self.bar.set_position(start);
        let mut body = answer.into_body().into_reader();
        let mut pace = Pace::new(self.client);
        let mut buffer = vec![0; 256 << 10];
        let mut missing = self.size - start;
        loop {
            let n = match body.read(&mut buffer) {
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failed::from(error).into()),
            };
            if n as u64 > missing {
                self.start_over()?;
                let reason = format!("the server sends more than {} bytes", self.size);
                return Err(Failed::permanent(reason).into());
            }
            if n == 0 {
                break;
            }
            file.write_all(&buffer[..n]).map_err(failed)?;
            missing -= n as u64;
            self.bar.inc(n as u64);
            pace.check(n as u64)?;
        }
        if missing > 0 {
            let reason = format!("the server stops {missing} bytes before the end");
            return Err(Failed::temporary(reason).into());
        }
        // The rename that follows must not reach the disk before the content.
        file.sync_all().map_err(failed)
    }

    /// Drops what is there.
    pub fn start_over(&self) -> Result<(), Broken> {
        self.bar.set_position(0);
        match File::create(self.part) {
            Ok(_) => Ok(()),
            Err(error) => Err(Broken::Local(CacheError::io("write to", self.part, error))),
        }
    }
}

/// Notices a server that sends a few bytes at a time for ever.
pub(super) struct Pace<'a> {
    client: &'a Client,
    since: Instant,
    bytes: u64,
}

impl<'a> Pace<'a> {
    pub fn new(client: &'a Client) -> Self {
        Self {
            client,
            since: Instant::now(),
            bytes: 0,
        }
    }

    /// Takes note of `bytes` that have come.
    ///
    /// # Errors
    /// They are too few for the time since.
    pub fn check(&mut self, bytes: u64) -> Result<(), Failed> {
        self.bytes += bytes;
        if self.bytes >= SLOWEST {
            *self = Self::new(self.client);
        } else if self.since.elapsed() > self.client.idle() * 3 {
            return Err(Failed::temporary("the server sends next to nothing"));
        }
        Ok(())
    }
}

/// `Content-Range: bytes FIRST-LAST/TOTAL`.
#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    last: u64,
    total: Option<u64>,
}

impl ContentRange {
    fn parse(text: &str) -> Option<Self> {
        let (unit, range) = text.trim().split_once(' ')?;
        let (range, total) = range.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let total = match total {
            "*" => None,
            total => Some(total.parse().ok()?),
        };
        unit.eq_ignore_ascii_case("bytes").then_some(Self {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
            total,
        })
    }

    /// Whether it goes on at `start` in a file of `size` bytes.
    fn continues(&self, start: u64, size: u64) -> bool {
        let of_this_file = self.total.is_none_or(|total| total == size);
        self.first == start && self.last >= start && self.last < size && of_this_file
    }
}

fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    ContentRange::parse(headers.get(CONTENT_RANGE)?.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_must_continue_the_file() {
        let continues =
            |text: &str| ContentRange::parse(text).is_some_and(|r| r.continues(10, 100));
        for right in ["bytes 10-99/100", "bytes 10-99/*", "Bytes 10-20/100"] {
            assert!(continues(right), "{right}");
        }
        for wrong in [
            "bytes 0-99/100",
            "bytes 11-99/100",
            "bytes 10-99/101",
            "bytes 10-100/100",
            "bytes 10-9/100",
            "bytes */100",
            "items 10-99/100",
            "bytes -10-99/100",
            "bytes 10-18446744073709551616/*",
            "",
        ] {
            assert!(!continues(wrong), "{wrong}");
        }
    }
}
