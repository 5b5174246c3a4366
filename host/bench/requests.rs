//! Many requests at the same time, as a server has them: throughput, and what each of them waits for.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::RandomTokens;
use super::output::{Format, Header};
use super::table::{self, Align, cell, quoted};
use crate::backend::Draw;
use crate::engine::{EngineError, Event, Limits, Request, RequestId, Scheduler};
use crate::sampling::SamplingParams;

/// What is sent.
#[derive(Debug, Clone)]
pub struct Load {
    /// Requests.
    pub requests: usize,
    /// How many of them are there at the same time: when one ends, the next one comes.
    pub concurrency: usize,
    /// Tokens of a prompt; all prompts differ from the first token on, unless there is a text.
    pub prompt: usize,
    /// The prompt of all requests, instead of random tokens.
    pub text: Option<Vec<u32>>,
    /// Tokens of an answer.
    pub answer: usize,
    /// A prompt of so many tokens that comes when all of the first requests write; what they wait for while it is
    /// read is reported by itself.
    pub long_prompt: Option<usize>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
}

/// Median and 99th percentile of times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Times {
    /// Half of them are at most this.
    pub median_ms: f64,
    /// 99 of 100 are at most this.
    pub p99_ms: f64,
}

impl Times {
    fn of(times: &mut [Duration]) -> Option<Times> {
        times.sort_unstable();
        let at = |share: f64| {
            let index = (times.len() as f64 * share).ceil() as usize;
            let time = times.get(index.saturating_sub(1))?;
            Some(1e3 * time.as_secs_f64())
        };
        Some(Times {
            median_ms: at(0.5)?,
            p99_ms: at(0.99)?,
        })
    }
}

/// What came of a load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadFigures {
    /// Requests.
    pub requests: usize,
    /// At the same time.
    pub concurrency: usize,
    /// Tokens of a prompt.
    pub prompt: usize,
    /// Tokens of an answer.
    pub answer: usize,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Tokens of all answers, per second.
    pub generated_per_second: f64,
    /// Tokens of all prompts and answers, per second.
    pub tokens_per_second: f64,
    /// From a request to its first token.
    pub first_token: Option<Times>,
    /// From a token to the next one of the same request.
    pub between_tokens: Option<Times>,
    /// The same while the long prompt was read.
    pub beside_long_prompt: Option<Times>,
    /// How often pages ran out.
    pub preemptions: usize,
    /// Tokens that were guessed.
    pub drafted: usize,
    /// Those of them that were right.
    pub accepted: usize,
}

/// Runs `load` on a scheduler that has nothing else to do.
///
/// # Errors
/// A request that cannot run, or one that fails.
pub fn run_load(
    scheduler: &mut Scheduler,
    load: &Load,
    interrupt: &AtomicBool,
) -> Result<LoadFigures, EngineError> {
    // What is loaded or recorded at first use is not what is measured.
    let warm_up = Load {
        requests: load.concurrency.min(load.requests),
        answer: load.answer.min(8),
        long_prompt: None,
        ..load.clone()
    };
    Run::new(scheduler, &warm_up, 1).run(interrupt)?;
    Run::new(scheduler, load, 2).run(interrupt)
}

struct Run<'a> {
    scheduler: &'a mut Scheduler,
    load: &'a Load,
    tokens: RandomTokens,
    sent: usize,
    /// When each request came, and when its newest token did.
    newest: HashMap<RequestId, (Instant, Option<Instant>)>,
    long: Option<RequestId>,
    first: Vec<Duration>,
    between: Vec<Duration>,
    beside: Vec<Duration>,
    generated: usize,
    preemptions: usize,
    drafted: usize,
    accepted: usize,
}

impl<'a> Run<'a> {
    fn new(scheduler: &'a mut Scheduler, load: &'a Load, seed: u64) -> Run<'a> {
        let mut tokens = RandomTokens::new(scheduler.model().vocab());
        tokens.state = seed;
        Run {
            scheduler,
            load,
            tokens,
            sent: 0,
            newest: HashMap::new(),
            long: None,
            first: Vec::new(),
            between: Vec::new(),
            beside: Vec::new(),
            generated: 0,
            preemptions: 0,
            drafted: 0,
            accepted: 0,
        }
    }

    fn run(mut self, interrupt: &AtomicBool) -> Result<LoadFigures, EngineError> {
        let started = Instant::now();
        loop {
            if interrupt.load(Ordering::Relaxed) {
                self.stop();
                return Err(EngineError::Interrupted);
            }
            while self.sent < self.load.requests && self.n_short() < self.load.concurrency {
                self.sent += 1;
                let prompt = match &self.load.text {
                    Some(text) => text.clone(),
                    None => self.tokens.take(self.load.prompt),
                };
                self.send(prompt, self.load.answer)?;
            }
            let all_write = self.newest.values().all(|(_, token)| token.is_some());
            if let (None, Some(n), true) = (self.long, self.load.long_prompt, all_write) {
                let prompt = self.tokens.take(n);
                self.long = Some(self.send(prompt, 1)?);
            }
            if !self.scheduler.is_busy() {
                break;
            }
            for event in self.scheduler.step()? {
                self.take(event)?;
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let Load {
            requests,
            concurrency,
            prompt,
            answer,
            ..
        } = *self.load;
        Ok(LoadFigures {
            requests,
            concurrency,
            prompt,
            answer,
            seconds,
            generated_per_second: self.generated as f64 / seconds,
            tokens_per_second: (self.generated + requests * prompt) as f64 / seconds,
            first_token: Times::of(&mut self.first),
            between_tokens: Times::of(&mut self.between),
            beside_long_prompt: Times::of(&mut self.beside),
            preemptions: self.preemptions,
            drafted: self.drafted,
            accepted: self.accepted,
        })
    }

    /// Requests under way, without the one with the long prompt.
    fn n_short(&self) -> usize {
        let long = self.long.filter(|id| self.newest.contains_key(id));
        self.newest.len() - usize::from(long.is_some())
    }

    fn send(&mut self, prompt: Vec<u32>, answer: usize) -> Result<RequestId, EngineError> {
        let id = self.scheduler.add(Request {
            prompt,
            sampling: SamplingParams {
                draw: Draw {
                    seed: self.sent as u64,
                    ..self.load.sampling.draw
                },
                ..self.load.sampling.clone()
            },
            limits: Limits {
                max_tokens: Some(answer),
                ignore_end: true,
                ..Limits::default()
            },
            logprobs: None,
            ..Request::default()
        })?;
        self.newest.insert(id, (Instant::now(), None));
        Ok(id)
    }

    fn take(&mut self, event: Event) -> Result<(), EngineError> {
        match event {
            Event::Prompt { .. } => {}
            Event::Token { id, .. } => {
                let now = Instant::now();
                let reads = self.long.is_some_and(|long| {
                    self.newest
                        .get(&long)
                        .is_some_and(|(_, token)| token.is_none())
                });
                if let Some((came, newest)) = self.newest.get_mut(&id)
                    && self.long != Some(id)
                {
                    match newest {
                        None => self.first.push(now - *came),
                        Some(before) if reads => self.beside.push(now - *before),
                        Some(before) => self.between.push(now - *before),
                    }
                    self.generated += 1;
                    *newest = Some(now);
                } else if let Some((_, newest)) = self.newest.get_mut(&id) {
                    *newest = Some(now);
                }
            }
            Event::Finished { id, generation, .. } => {
                self.newest.remove(&id);
                self.preemptions += generation.stats.preemptions;
                self.drafted += generation.stats.drafted;
                self.accepted += generation.stats.accepted;
            }
            Event::Failed { error, .. } => {
                self.stop();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Leaves the scheduler without requests.
    fn stop(&mut self) {
        self.newest.keys().for_each(|&id| self.scheduler.cancel(id));
        while self.scheduler.is_busy() && self.scheduler.step().is_ok() {}
    }
}

/// Writes the figures of loads.
pub fn write_loads(
    out: &mut impl Write,
    format: Format,
    header: &Header,
    loads: &[LoadFigures],
) -> io::Result<()> {
    match format {
        Format::Md => markdown(out, header, loads),
        Format::Csv => csv(out, header, loads),
        Format::Json => {
            let value = serde_json::json!({ "header": header, "loads": loads });
            serde_json::to_writer_pretty(&mut *out, &value)?;
            writeln!(out)
        }
    }
}

fn markdown(out: &mut impl Write, header: &Header, loads: &[LoadFigures]) -> io::Result<()> {
    use Align::{Left, Right};
    let titles = [
        ("model", Left),
        ("device", Left),
        ("requests", Left),
        ("generated t/s", Right),
        ("all t/s", Right),
        ("first token ms, median / p99", Right),
        ("between tokens", Right),
        ("beside the long prompt", Right),
        ("preempted", Right),
        ("guesses right", Right),
    ];
    let times = |times: Option<Times>| {
        times.map_or(String::new(), |times| {
            format!("{:.1} / {:.1}", times.median_ms, times.p99_ms)
        })
    };
    let rows: Vec<_> = loads
        .iter()
        .map(|load| {
            [
                cell(&header.model),
                cell(&header.device),
                format!(
                    "{} of {} + {}, {} at once",
                    load.requests, load.prompt, load.answer, load.concurrency
                ),
                format!("{:.1}", load.generated_per_second),
                format!("{:.1}", load.tokens_per_second),
                times(load.first_token),
                times(load.between_tokens),
                times(load.beside_long_prompt),
                load.preemptions.to_string(),
                match load.drafted {
                    0 => String::new(),
                    drafted => format!("{} of {drafted}", load.accepted),
                },
            ]
        })
        .collect();
    table::markdown(out, titles, &rows)
}

fn csv(out: &mut impl Write, header: &Header, loads: &[LoadFigures]) -> io::Result<()> {
    writeln!(
        out,
        "model,device,requests,concurrency,prompt,answer,seconds,generated_per_second,tokens_per_second,\
         first_token_median_ms,first_token_p99_ms,between_median_ms,between_p99_ms,beside_median_ms,\
         beside_p99_ms,preemptions,drafted,accepted"
    )?;
    let times = |times: Option<Times>| match times {
        None => ",".to_owned(),
        Some(times) => format!("{},{}", times.median_ms, times.p99_ms),
    };
    for load in loads {
        writeln!(
            out,
            "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
            quoted(&header.model),
            quoted(&header.device),
            load.requests,
            load.concurrency,
            load.prompt,
            load.answer,
            load.seconds,
            load.generated_per_second,
            load.tokens_per_second,
            times(load.first_token),
            times(load.between_tokens),
            times(load.beside_long_prompt),
            load.preemptions,
            load.drafted,
            load.accepted
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let ms = |n: u64| Duration::from_millis(n);
        let mut times: Vec<Duration> = (1..=200).rev().map(ms).collect();
        let found = Times::of(&mut times).expect("times");
        assert_eq!((found.median_ms, found.p99_ms), (100.0, 198.0));
        let one = Times::of(&mut [ms(7)]).expect("a time");
        assert_eq!((one.median_ms, one.p99_ms), (7.0, 7.0));
        assert_eq!(Times::of(&mut []), None);
    }
}
