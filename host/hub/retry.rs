//! How often a request is tried, and how long to wait in between.

use std::thread;
use std::time::Duration;

use super::http::Failed;

/// Tries without success.
const ATTEMPTS: u32 = 3;

/// Longest pause between two tries, whatever the server asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Counts tries.
pub(super) struct Retries {
    failures: u32,
}

impl Retries {
    pub fn new() -> Self {
        Self { failures: 0 }
    }

    /// Something was achieved, so the count starts anew.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// Gives `failed` back where no other try would help, or enough were made.
    pub fn wait(&mut self, mut failed: Failed) -> Result<(), Failed> {
        self.failures += 1;
        if !failed.is_temporary {
            return Err(failed);
        }
        if self.failures >= ATTEMPTS {
            if let Some(wait) = failed.wait.filter(|wait| *wait > LONGEST_WAIT) {
                failed.reason += &format!("; it asks to wait {} seconds", wait.as_secs());
            }
            return Err(failed);
        }
        thread::sleep(pause(self.failures, failed.wait));
        Ok(())
    }
}

/// The pause after so many failures: what the server asks for, else one second and twice as much each time.
fn pause(failures: u32, asked: Option<Duration>) -> Duration {
    let backoff = Duration::from_secs(1 << (failures - 1).min(10));
    asked.unwrap_or(backoff).min(LONGEST_WAIT)
}

/// The outcome of `attempt`, tried again while that may help.
pub(super) fn retried<T>(mut attempt: impl FnMut() -> Result<T, Failed>) -> Result<T, Failed> {
    let mut retries = Retries::new();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(failed) => retries.wait(failed)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_bounded() {
        let seconds = Duration::from_secs;
        assert_eq!(pause(1, None), seconds(1));
        assert_eq!(pause(2, None), seconds(2));
        assert_eq!(pause(60, None), LONGEST_WAIT);
        assert_eq!(pause(1, Some(seconds(5))), seconds(5));
        assert_eq!(pause(1, Some(seconds(0))), seconds(0));
        assert_eq!(pause(1, Some(seconds(u64::MAX))), LONGEST_WAIT);
    }

    #[test]
    fn tries_are_counted() {
        let mut tries = 0;
        let outcome: Result<(), _> = retried(|| {
            tries += 1;
            Err(Failed {
                wait: Some(Duration::ZERO),
                ..Failed::temporary("busy")
            })
        });
        assert_eq!((outcome.unwrap_err().reason.as_str(), tries), ("busy", 3));
        let outcome: Result<(), _> = retried(|| Err(Failed::permanent("no")));
        assert_eq!(outcome.unwrap_err().reason, "no");
    }
}
