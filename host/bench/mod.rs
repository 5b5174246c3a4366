//! Speed of a backend: prompts and decoding, as llama-bench measures them; where a step's time goes, and
//! how it grows.

mod figures;
mod output;
pub mod plot;
mod profile;
mod profile_output;
mod requests;
mod svg;
mod table;

use std::sync::atomic::AtomicBool;
use std::time::Instant;

pub use figures::{Figures, Traffic};
pub use output::{Format, Header, write};
pub use profile::{KernelRow, Profile, profile};
pub use profile_output::write_profiles;
pub use requests::{Load, LoadFigures, Times, run_load, write_loads};

use crate::backend::Ask;
use crate::engine::{Engine, EngineError, Sequence};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A prompt of this many tokens.
    Prompt(usize),
    /// This many decode steps.
    Decode(usize),
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Test {
    /// What is measured.
    pub kind: Kind,
    /// Tokens that are in the cache of each sequence before.
    pub depth: usize,
    /// Sequences in a step.
    pub batch: usize,
}

impl Test {
    /// Every combination, prompts first: prompts run one sequence at a time, so batches concern
    /// decoding alone.
    pub fn all(
        prompts: &[usize],
        decodes: &[usize],
        depths: &[usize],
        batches: &[usize],
    ) -> Vec<Test> {
        let mut tests = Vec::new();
        for &depth in depths {
            let prompts = prompts.iter().filter(|&&tokens| tokens > 0);
            tests.extend(prompts.map(|&tokens| Test {
                kind: Kind::Prompt(tokens),
                depth,
                batch: 1,
            }));
            for &steps in decodes.iter().filter(|&&steps| steps > 0) {
                tests.extend(batches.iter().map(|&batch| Test {
                    kind: Kind::Decode(steps),
                    depth,
                    batch,
                }));
            }
        }
        tests
    }

    /// The name that llama-bench gives it, with the batch behind it: `tg128 @ d4096 x4`.
    pub fn name(&self) -> String {
        let mut name = match self.kind {
            Kind::Prompt(tokens) => format!("pp{tokens}"),
            Kind::Decode(steps) => format!("tg{steps}"),
        };
        if self.depth > 0 {
            name += &format!(" @ d{}", self.depth);
        }
        if self.batch > 1 {
            name += &format!(" x{}", self.batch);
        }
        name
    }

    /// Positions that each sequence needs.
    pub fn context(&self) -> usize {
        let (Kind::Prompt(new) | Kind::Decode(new)) = self.kind;
        self.depth + new
    }

    /// Tokens that one repetition computes.
    pub fn tokens(&self) -> usize {
        match self.kind {
            Kind::Prompt(tokens) => tokens,
            Kind::Decode(steps) => steps * self.batch,
        }
    }
}

/// Runs `test` once for warming up and `repetitions` times for the record: seconds of each.
pub fn measure(
    engine: &mut Engine,
    test: &Test,
    repetitions: usize,
    interrupt: &AtomicBool,
) -> Result<Vec<f64>, EngineError> {
    let mut tokens = RandomTokens::new(engine.model().vocab());
    let mut sequences = prepare(engine, test, &mut tokens, interrupt)?;
    let mut seconds = Vec::with_capacity(repetitions);
    for repetition in 0..=repetitions {
        sequences.iter_mut().for_each(|s| s.truncate(test.depth));
        let time = match test.kind {
            Kind::Prompt(n) => {
                let prompt = tokens.take(n);
                let started = Instant::now();
                engine.prefill(&mut sequences[0], &prompt, Ask::GREEDY, interrupt)?;
                started.elapsed()
            }
            Kind::Decode(n) => {
                let mut newest = tokens.take(test.batch);
                let started = Instant::now();
                let ask = Ask::GREEDY;
                engine.decode_ahead(&mut sequences, &mut newest, ask, n, interrupt)?;
                started.elapsed()
            }
        };
        if repetition > 0 {
            seconds.push(time.as_secs_f64());
        }
    }
    Ok(seconds)
}

/// The sequences of `test`, as deep as it says.
fn prepare(
    engine: &mut Engine,
    test: &Test,
    tokens: &mut RandomTokens,
    interrupt: &AtomicBool,
) -> Result<Vec<Sequence>, EngineError> {
    let mut sequences: Vec<Sequence> = (0..test.batch).map(|_| Sequence::new()).collect();
    for sequence in &mut sequences {
        if test.depth > 0 {
            let before = tokens.take(test.depth);
            engine.prefill(sequence, &before, Ask::NOTHING, interrupt)?;
        }
    }
    Ok(sequences)
}

/// The same random tokens in every run.
struct RandomTokens {
    state: u64,
    vocab: usize,
}

impl RandomTokens {
    fn new(vocab: usize) -> RandomTokens {
        RandomTokens { state: 42, vocab }
    }

    /// Knuth's MMIX generator; its high bits are good enough to spread tokens over a vocabulary.
    fn next(&mut self) -> u32 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.state >> 33) as usize % self.vocab) as u32
    }

    fn take(&mut self, n: usize) -> Vec<u32> {
        (0..n).map(|_| self.next()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_all_combinations() {
        let tests = Test::all(&[512], &[128, 0], &[0, 4096], &[1, 4]);
        let names: Vec<String> = tests.iter().map(Test::name).collect();
        let expected = [
            "pp512",
            "tg128",
            "tg128 x4",
            "pp512 @ d4096",
            "tg128 @ d4096",
            "tg128 @ d4096 x4",
        ];
        assert_eq!(names, expected);
        assert_eq!((tests[5].context(), tests[5].tokens()), (4224, 512));
    }

    #[test]
    fn tokens_repeat_from_run_to_run_and_stay_in_the_vocabulary() {
        let run = || RandomTokens::new(512).take(1000);
        assert_eq!(run(), run());
        assert!(run().iter().all(|&token| token < 512));
        let distinct: std::collections::HashSet<u32> = run().into_iter().collect();
        assert!(distinct.len() > 300);
    }
}
