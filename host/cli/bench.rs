//! `hyperion bench`: speed of a model on a device.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use clap::{Args, ValueEnum};

use super::count::{MOST, count};
use super::device::{Room, backend_on, fits, open_device};
use super::interrupt;
use super::run_args::{MIXED_CHUNK, RunArgs, start_threads};
use super::sampling_args::checked;
use super::session::of_file;
use super::speculate_args::SpeculateArgs;
use super::{bench_requests, warnings};
use crate::bench::{
    Figures, Format, Header, Test, Traffic, measure, plot, profile, write, write_profiles,
};
use crate::device::{Device, copy_bandwidth};
use crate::engine::{Engine, EngineError};
use crate::gguf::Gguf;
use crate::gpu::MAX_SEQUENCES;
use crate::model::Model;
use crate::tokenizer::Tokenizer;

/// Measures prompts (pp) and decoding (tg) like llama-bench: random tokens, one repetition to warm
/// up. Decoding is limited by memory, so its rows show the bytes of weights and of the KV cache that
/// are read per second, and their share of what a plain copy reaches on the device.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hyperion bench smollm2
  hyperion bench model.gguf --device cuda -p 512,4096 -n 128 -d 0,4096 -b 1,4,8 -o csv
  hyperion bench model.gguf --profile -d 4096
  hyperion bench model.gguf --plot growth.svg")]
pub struct BenchArgs {
    /// A GGUF file, or the short name of a model in the cache
    pub model: String,
    /// Prompt lengths; 0 is none [default: 512; --profile: none; --plot: 16 to 16384]
    #[arg(short = 'p', long, value_name = "N", value_delimiter = ',', value_parser = count(0..=MOST))]
    pub n_prompt: Option<Vec<usize>>,
    /// Decode steps; 0 is none [default: 128; --plot: 32]
    #[arg(short = 'n', long, value_name = "N", value_delimiter = ',', value_parser = count(0..=MOST))]
    pub n_gen: Option<Vec<usize>>,
    /// Tokens in the cache before [default: 0; --plot: 0 and 64 to 32768]
    #[arg(short = 'd', long, value_name = "N", value_delimiter = ',', value_parser = count(0..=MOST))]
    pub depth: Option<Vec<usize>>,
    /// Runs so many requests of -p prompt and -n answer tokens through the scheduler, as a server would have them:
    /// throughput, time to the first token and between tokens (median and 99th percentile)
    #[arg(long, value_name = "N", conflicts_with_all = ["profile", "plot", "depth", "batch"],
          value_parser = count(1..=MOST))]
    pub requests: Option<usize>,
    /// With --requests: how many of them there are at the same time
    #[arg(long, value_name = "C", default_value_t = 8, requires = "requests",
          value_parser = count(1..=MAX_SEQUENCES as i64))]
    pub concurrency: usize,
    /// With --requests: a prompt of N tokens that comes while the others write; what they wait for while it is read
    /// is reported by itself
    #[arg(long, value_name = "N", requires = "requests", value_parser = count(0..=MOST))]
    pub long_prompt: Option<usize>,
    /// With --requests: tokens of a step in which some write and others read their prompts
    #[arg(long, value_name = "N", default_value_t = MIXED_CHUNK, requires = "requests",
          value_parser = count(1..=MOST))]
    pub budget: usize,
    /// With --requests: temperature of the answers; 0 always takes the most probable token
    #[arg(long, value_name = "T", default_value_t = 0.0, requires = "requests",
          value_parser = checked(|to, t| to.draw.temperature = t))]
    pub temp: f32,
    /// With --requests: the prompt of all of them, instead of random tokens: a user's message where the model has a chat
    /// template
    #[arg(
        long,
        value_name = "FILE",
        requires = "requests",
        conflicts_with = "n_prompt"
    )]
    pub prompt_file: Option<PathBuf>,
    /// Sequences that decode together [default: 1; --plot: 1 to 64]
    #[arg(short = 'b', long, value_name = "N", value_delimiter = ',',
          value_parser = count(1..=1024))]
    pub batch: Option<Vec<usize>>,
    /// Repetitions
    #[arg(short = 'r', long, value_name = "N", default_value_t = 5,
          value_parser = count(1..=MOST))]
    pub repetitions: usize,
    /// How to write the figures
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT", default_value_t = FormatArg::Md)]
    pub output: FormatArg,
    /// Show where the time of a decode step goes, and with -p that of a prompt: for each kernel its
    /// calls, its mean duration, its part of the step's critical path (kernels overlap), the time in
    /// which no kernel ran before it, and the bytes that it moves against what a copy reaches. Needs
    /// CUPTI, which comes with the CUDA toolkit and as `pip install nvidia-cuda-cupti`
    #[arg(long)]
    pub profile: bool,
    /// Draw how speed grows to an SVG file: decoding by depth and by batch, prompts by length, in
    /// powers of two as far as the model's context and the device's memory go. The table has the
    /// figures
    #[arg(long, value_name = "FILE", conflicts_with = "profile")]
    pub plot: Option<PathBuf>,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub speculate: SpeculateArgs,
}

/// `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// A markdown table.
    Md,
    /// Comma-separated values with a line of names.
    Csv,
    /// A JSON array.
    Json,
}

impl From<FormatArg> for Format {
    fn from(arg: FormatArg) -> Format {
        match arg {
            FormatArg::Md => Format::Md,
            FormatArg::Csv => Format::Csv,
            FormatArg::Json => Format::Json,
        }
    }
}

impl BenchArgs {
    /// What is measured, on `device` unless that is the CPU.
    fn tests(&self, model: &Model, device: Option<&dyn Device>) -> anyhow::Result<Vec<Test>> {
        if self.plot.is_some() {
            return self.plot_tests(model, device);
        }
        let given =
            |list: &Option<Vec<usize>>, default| list.clone().unwrap_or_else(|| vec![default]);
        let prompt = if self.profile { 0 } else { 512 };
        let tests = Test::all(
            &given(&self.n_prompt, prompt),
            &given(&self.n_gen, 128),
            &given(&self.depth, 0),
            &given(&self.batch, 1),
        );
        Ok(tests)
    }

    fn plot_tests(&self, model: &Model, device: Option<&dyn Device>) -> anyhow::Result<Vec<Test>> {
        let steps = self.n_gen.as_ref().and_then(|list| list.first());
        let lists = plot::Lists {
            prompts: self.n_prompt.as_deref(),
            depths: self.depth.as_deref(),
            batches: self.batch.as_deref(),
            steps: steps.copied().unwrap_or(plot::STEPS),
        };
        let mut most = model.config.context_length.min(plot::MOST_DEPTH);
        loop {
            let tests = plot::tests(lists, most);
            match device {
                // Lists that the user gave may not fit at all, which opening the backend explains.
                Some(device) if most > 0 && !fits(device, model, &self.run, room(&tests))? => {
                    most /= 2;
                }
                _ => return Ok(tests),
            }
        }
    }
}

/// Runs the command.
pub fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    start_threads(&args.run)?;
    let path = model_cache::resolve(&args.model)?;
    let gguf = Gguf::open(&path)?;
    // Nothing is tokenized here, but who measures a file wants to know that it is odd.
    if let Ok(tokenizer) = Tokenizer::from_gguf(&gguf) {
        warnings::about_vocabulary(&tokenizer);
    }
    let model = Model::from_gguf(&gguf).map_err(|error| of_file(&path, error))?;
    let model = Arc::new(model);
    let device = open_device(&args.run)?;
    if let Some(requests) = args.requests {
        return bench_requests::run(args, &gguf, model, device, requests);
    }
    ensure!(
        args.speculate.most() == 0,
        "--speculate is measured with --requests: random tokens one by one have nothing to guess"
    );
    let tests = args.tests(&model, device.as_deref())?;
    ensure!(
        !tests.is_empty(),
        "nothing to measure: both -p and -n are 0"
    );
    check_batches(&tests, device.is_some())?;
    if let Some(file) = &args.plot {
        // Better now than after minutes of measuring.
        save(file, "")?;
    }
    let room = room(&tests);
    let backend = backend_on(device.clone(), model.clone(), &args.run, room)?;
    let traffic = Traffic::new(&model, backend.kv_element_bytes());
    let copy = device.as_deref().and_then(measured_bandwidth);
    let header = header(args, &gguf, backend.description(), copy);
    let chunk = args.run.chunk(&*backend);
    let mut engine = Engine::new(backend, room.context, chunk);
    let interrupt = interrupt::flag()?;

    let mut out = io::stdout().lock();
    let end = if args.profile {
        let device = device.context("the CPU runs no kernels to profile")?;
        let mut profiler = device.profiler()?;
        let (profiles, end) = each(&tests, |test| {
            let repetitions = args.repetitions;
            profile(
                &mut engine,
                test,
                repetitions,
                &mut *profiler,
                copy,
                interrupt,
            )
        })?;
        write_profiles(&mut out, args.output.into(), &header, &profiles)?;
        end
    } else {
        let (rows, end) = each(&tests, |test| {
            let seconds = measure(&mut engine, test, args.repetitions, interrupt)?;
            let bytes = traffic.of_step(&model.config, test);
            Ok(Figures::new(test, seconds, bytes, copy))
        })?;
        if let Some(file) = &args.plot {
            save(file, &plot::svg(&header, &tests, &rows))?;
        }
        write(&mut out, args.output.into(), &header, &rows)?;
        end
    };
    match end {
        End::Complete => Ok(ExitCode::SUCCESS),
        End::Interrupted => Ok(ExitCode::from(super::INTERRUPTED)),
        End::Failed(error) => Err(error),
    }
}

/// Says before minutes of measuring that a later test cannot run.
fn check_batches(tests: &[Test], on_device: bool) -> anyhow::Result<()> {
    let batch = tests.iter().map(|test| test.batch).max().unwrap_or(1);
    ensure!(
        !on_device || batch <= MAX_SEQUENCES,
        "-b {batch}: on a device at most {MAX_SEQUENCES} sequences decode together"
    );
    Ok(())
}

/// What a copy reaches on `device`; the simulator's speed says nothing.
fn measured_bandwidth(device: &dyn Device) -> Option<f64> {
    let measured = (!device.info().is_simulated).then(|| copy_bandwidth(device));
    measured?.ok()
}

/// What the largest of `tests` need.
fn room(tests: &[Test]) -> Room {
    let most = |of: fn(&Test) -> usize| tests.iter().map(of).max().unwrap_or(1);
    Room {
        context: most(Test::context),
        sequences: most(|test| test.batch),
        n_pages: most(|test| Engine::pages_for(test.context(), test.batch)),
        drafts: 0,
    }
}

/// How the tests ended.
enum End {
    Complete,
    /// The user stopped them.
    Interrupted,
    /// One could not be run.
    Failed(anyhow::Error),
}

/// Runs `tests` with a progress bar up to the first that fails: the results so far, and how it ended.
fn each<T>(
    tests: &[Test],
    mut run: impl FnMut(&Test) -> Result<T, EngineError>,
) -> anyhow::Result<(Vec<T>, End)> {
    let bar = indicatif::ProgressBar::new(tests.len() as u64).with_style(
        indicatif::ProgressStyle::with_template("{pos}/{len} {msg}")?,
    );
    let mut results = Vec::with_capacity(tests.len());
    let mut end = End::Complete;
    for test in tests {
        bar.set_message(test.name());
        match run(test) {
            Ok(result) => results.push(result),
            Err(EngineError::Interrupted) => {
                end = End::Interrupted;
                break;
            }
            Err(error) => {
                end = End::Failed(anyhow!(error).context(format!("measuring {}", test.name())));
                break;
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((results, end))
}

fn save(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

/// What a table begins with.
pub fn header(
    args: &BenchArgs,
    gguf: &Gguf,
    device: String,
    copy_bandwidth: Option<f64>,
) -> Header {
    let stem = gguf.path().file_stem().map(|stem| stem.to_string_lossy());
    let tensors = gguf.tensors().iter();
    Header {
        model: stem.map_or_else(|| args.model.clone(), |stem| stem.into_owned()),
        bytes: tensors
            .clone()
            .map(|tensor| tensor.bytes().len() as u64)
            .sum(),
        parameters: tensors.map(|tensor| tensor.n_elements() as u64).sum(),
        device,
        copy_bandwidth,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_before_a_failure_is_kept() {
        let tests = Test::all(&[], &[1], &[0], &[1, 2, 3]);
        let run = |test: &Test| match test.batch {
            2 => Err(EngineError::EmptyPrompt),
            batch => Ok(batch),
        };
        let (results, end) = each(&tests, run).unwrap();
        assert_eq!(results, [1]);
        assert!(matches!(end, End::Failed(error) if format!("{error:#}").contains("tg1 x2")));
    }

    #[test]
    fn batches_are_checked_before_anything_is_measured() {
        let tests = |batch| Test::all(&[], &[1], &[0], &[1, batch]);
        check_batches(&tests(MAX_SEQUENCES), true).unwrap();
        check_batches(&tests(MAX_SEQUENCES + 1), false).unwrap();
        let message = check_batches(&tests(257), true).unwrap_err().to_string();
        assert!(
            message.contains("-b 257") && message.contains("at most 256"),
            "{message}"
        );
    }
}
