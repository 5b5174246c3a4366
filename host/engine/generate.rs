//! One request alone: text from a prompt.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{EngineError, Event, Generation, Request, Scheduler};

impl Scheduler {
    /// Runs `request`, beside which there is no other. `emit` takes the text piece by piece, in whole characters; its
    /// error, as well as `interrupt`, ends the answer. `progress` hears how much of the prompt is computed.
    ///
    /// # Errors
    /// A request that cannot run, or one that fails.
    pub fn generate(
        &mut self,
        request: Request,
        interrupt: &AtomicBool,
        progress: &mut dyn FnMut(usize, usize),
        emit: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<Generation, EngineError> {
        let request = self.add(request)?;
        loop {
            if interrupt.load(Ordering::Relaxed) {
                self.cancel(request);
            }
            let events = match self.step() {
                // A step of seconds was stopped in the middle.
                Err(EngineError::Interrupted) => {
                    self.cancel(request);
                    continue;
                }
                events => events?,
            };
            for event in events {
                let written = match event {
                    Event::Prompt { done, total, .. } => {
                        progress(done, total);
                        Ok(())
                    }
                    Event::Token { text, .. } => write(&text, emit),
                    Event::Finished {
                        text, generation, ..
                    } => {
                        // Nobody is left to tell when the last write fails.
                        let _ = write(&text, emit);
                        return Ok(generation);
                    }
                    Event::Failed { error, .. } => return Err(error),
                };
                if written.is_err() {
                    self.cancel(request);
                }
            }
        }
    }
}

fn write(text: &str, emit: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<()> {
    match text {
        "" => Ok(()),
        text => emit(text),
    }
}
