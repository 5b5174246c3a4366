//! The flag of every command that writes text.

use clap::Args;

use crate::engine::{Ngrams, Scheduler};

/// How a text is guessed.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Running")]
pub struct SpeculateArgs {
    /// Guess up to N tokens from what the text has said before, and verify them in one step: the same text, sooner where
    /// it repeats itself, as edited code does. 7 or 15 suit a GPU, whose kernels take 8 tokens at a time; 0 is off
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=63))]
    pub speculate: u16,
}

impl SpeculateArgs {
    /// Tokens at a time.
    pub fn most(self) -> usize {
        usize::from(self.speculate)
    }

    /// Lets the requests of `scheduler` guess.
    pub fn apply(self, scheduler: &mut Scheduler) {
        scheduler.speculate(self.most(), || Box::new(Ngrams::default()));
    }
}
