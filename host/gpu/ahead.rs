//! Steps that are sent before they are asked for.
//!
//! While a text is written greedily, the next step's inputs are known to the device before they are to the host:
//! argmax writes the token where the next step reads it, and moves the position. So the next step is sent
//! together with the one that is asked for, and the device does not idle while the host reads a token and asks
//! again: 15 to 20 µs of a step on an H100. If the host asks for something else, the result is dropped: all that
//! such a step leaves behind are keys and values behind the end of its sequences, on pages that were theirs when
//! it was sent, and whatever is sent later overwrites them.

use kernels_gpu::abi::{PAGE_TOKENS, POSTED_ROWS};

use super::GpuBackend;
use super::graphs::{Choice, GraphKey};
use super::logits::token_outputs;
use super::workspace::MAX_SEQUENCES;
use crate::backend::{Output, SequenceStep};
use crate::device::{Mailbox, Result};

const _: () = assert!(MAX_SEQUENCES <= POSTED_ROWS as usize);

/// Words of the mailbox that argmax posts tokens to: a step's rows, for two steps in turn.
pub const MAILBOX_WORDS: usize = 2 * POSTED_ROWS as usize;
/// Bytes of them: device memory on a simulator.
pub const MAILBOX_BYTES: u64 = 4 * MAILBOX_WORDS as u64;

/// The step that would follow.
#[derive(Default)]
pub struct Ahead {
    /// The mark behind the step that was sent last; the other one is behind the step before it.
    newest: usize,
    /// The half of the mailbox that each sequence's token is in, for the steps before the two marks.
    halves: [Vec<u32>; 2],
    next: Option<Next>,
}

/// A step that the device's inputs are ready for.
struct Next {
    tokens: Vec<u32>,
    starts: Vec<usize>,
    /// Whether it was sent.
    is_sent: bool,
}

impl Ahead {
    /// The inputs change, so that what was sent ahead is for nothing.
    pub fn forget(&mut self) {
        self.next = None;
    }
}

/// Waits for the step before mark `mark`, whose sequences posted to these halves, and takes its tokens.
fn posted_tokens(mailbox: &dyn Mailbox, mark: usize, halves: &[u32]) -> Result<Vec<u32>> {
    mailbox.wait(mark)?;
    let places = halves.iter().map(|half| half * POSTED_ROWS).enumerate();
    places
        .map(|(row, half)| mailbox.word(half as usize + row))
        .collect()
}

impl GpuBackend {
    /// Runs a step whose likeliest tokens are wanted, and perhaps sends the one behind it.
    pub(super) fn decode_greedily(
        &mut self,
        key: GraphKey,
        sequences: &[SequenceStep<'_>],
    ) -> Result<Vec<Output>> {
        let next = self.ahead.next.take();
        let next = next.filter(|next| self.is_asked_for(next, sequences));
        if !next.as_ref().is_some_and(|next| next.is_sent) {
            self.upload(sequences)?;
            self.run_step(key, sequences)?;
            self.mark_step(key.n)?;
        }
        let asked_for = self.ahead.newest;
        // Only once the host has gone on as expected, so that a single step stays one.
        let is_sent = next.is_some() && self.send_ahead(sequences)?;

        let halves = &self.ahead.halves[asked_for];
        let tokens = posted_tokens(&*self.graphs.memory().mailbox, asked_for, halves)?;
        if !is_sent {
            self.graphs.inputs().tokens_are(&tokens);
        }
        let outputs = token_outputs(0, sequences, &tokens);
        // With NOT_FINITE among them nobody can ask for that step.
        self.ahead.next = Some(Next {
            tokens,
            starts: sequences.iter().map(SequenceStep::end).collect(),
            is_sent,
        });
        Ok(outputs)
    }

    fn is_asked_for(&self, next: &Next, sequences: &[SequenceStep<'_>]) -> bool {
        let tokens = sequences.iter().flat_map(|step| step.tokens);
        let starts = sequences.iter().map(|step| step.start);
        tokens.eq(&next.tokens)
            && starts.eq(next.starts.iter().copied())
            && self.graphs.memory().inputs.has_pages_of(sequences)
    }

    /// Sends the step behind the one for `sequences`, if it is recorded and there is room for its tokens.
    fn send_ahead(&mut self, sequences: &[SequenceStep<'_>]) -> Result<bool> {
        let has_room = |step: &SequenceStep<'_>| {
            step.end() < self.limits.context && step.end() < step.pages.len() * PAGE_TOKENS as usize
        };
        if !sequences.iter().all(has_room) {
            return Ok(false);
        }
        let longest = sequences.iter().map(|step| step.end() + 1).max();
        let key = self.graph_key(sequences.len(), longest.unwrap_or(1), Choice::Argmax);
        if !self.graphs.replay(key)? {
            return Ok(false);
        }
        self.mark_step(key.n)?;
        Ok(true)
    }

    /// Puts a mark behind the step that was just sent, which moved the inputs.
    fn mark_step(&mut self, n: usize) -> Result<()> {
        let inputs = self.graphs.inputs();
        let halves = inputs.turns()[..n].to_vec();
        inputs.moved_on(n);
        self.ahead.newest ^= 1;
        self.ahead.halves[self.ahead.newest] = halves;
        self.graphs.mailbox().mark(self.ahead.newest)
    }
}
