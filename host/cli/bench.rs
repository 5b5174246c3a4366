//! `hyperion bench`: speed of a model on a device.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::Args;

use super::device::open_backend;
use super::interrupt;
use super::session::{RunArgs, start_threads};
use crate::bench::{Figures, Format, Header, Test, Traffic, measure, write};
use crate::engine::{Engine, EngineError};
use crate::gguf::Gguf;
use crate::model::Model;

/// Measures prompts (pp) and decoding (tg) like llama-bench: random tokens, one repetition to warm
/// up. Decoding is limited by memory, so its rows show the bytes of weights and of the KV cache that
/// are read per second, and their share of what a plain copy reaches on the device.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hyperion bench smollm2
  hyperion bench model.gguf --device cuda -p 512,4096 -n 128 -d 0,4096 -b 1,4,8 -o csv")]
pub struct BenchArgs {
    /// A GGUF file, or the short name of a model in the cache
    pub model: String,
    /// Prompt lengths; 0 is none
    #[arg(
        short = 'p',
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "512"
    )]
    pub n_prompt: Vec<usize>,
    /// Decode steps; 0 is none
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "128"
    )]
    pub n_gen: Vec<usize>,
    /// Tokens in the cache before
    #[arg(
        short = 'd',
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "0"
    )]
    pub depth: Vec<usize>,
    /// Sequences that decode together
    #[arg(short = 'b', long, value_name = "N", value_delimiter = ',', default_value = "1",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub batch: Vec<usize>,
    /// Repetitions
    #[arg(short = 'r', long, value_name = "N", default_value_t = 5,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub repetitions: usize,
    /// How to write the figures
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT", default_value_t = Format::Md)]
    pub output: Format,
    #[command(flatten)]
    run: RunArgs,
}

/// Runs the command.
pub fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    start_threads(&args.run)?;
    let path = model_cache::resolve(&args.model)?;
    let gguf = Gguf::open(&path)?;
    let model = Model::from_gguf(&gguf).with_context(|| format!("reading {}", path.display()))?;
    let model = Arc::new(model);
    let tests = Test::all(&args.n_prompt, &args.n_gen, &args.depth, &args.batch);
    ensure!(
        !tests.is_empty(),
        "nothing to measure: both -p and -n are 0"
    );
    let context = tests.iter().map(Test::context).max().unwrap_or(1);
    let pages = |test: &Test| Engine::pages_for(test.context(), test.batch);
    let pages = tests.iter().map(pages).max().unwrap_or(1);
    let backend = open_backend(model.clone(), &args.run, pages)?;
    let traffic = Traffic::new(&model, backend.kv_element_bytes());
    let copy = backend.copy_bandwidth();
    let header = header(args, &gguf, backend.description(), copy);
    let chunk = args.run.chunk(&*backend);
    let mut engine = Engine::new(backend, context, chunk);

    let bar = indicatif::ProgressBar::new(tests.len() as u64).with_style(
        indicatif::ProgressStyle::with_template("{pos}/{len} {msg}")?,
    );
    let mut rows = Vec::new();
    let mut interrupted = false;
    for test in &tests {
        bar.set_message(test.name());
        match measure(&mut engine, test, args.repetitions, interrupt::flag()?) {
            Ok(seconds) => {
                let bytes = traffic.of_step(&model.config, test);
                rows.push(Figures::new(test, seconds, bytes, copy));
            }
            Err(EngineError::Interrupted) => {
                interrupted = true;
                break;
            }
            Err(error) => return Err(error).with_context(|| format!("measuring {}", test.name())),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    write(&mut io::stdout().lock(), args.output, &header, &rows)?;
    Ok(match interrupted {
        true => ExitCode::from(super::INTERRUPTED),
        false => ExitCode::SUCCESS,
    })
}

fn header(args: &BenchArgs, gguf: &Gguf, device: String, copy_bandwidth: Option<f64>) -> Header {
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
