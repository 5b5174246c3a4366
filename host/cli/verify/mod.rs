//! `hyperion verify`: a backend against the reference.

mod checks;
mod files;
mod text;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;

use super::count::{MOST, count};
use super::device::{Room, backend_on, open_device};
use super::run_args::{ActivationsArg, RunArgs, start_threads};
use super::session::of_file;
use super::warnings;
use crate::backend::{ActivationPrecision, Backend, PAGE_TOKENS};
use crate::chat::{ChatTemplate, Message, Variables};
use crate::cpu::CpuBackend;
use crate::device::choice::DeviceChoice;
use crate::gguf::Gguf;
use crate::model::Model;
use crate::tokenizer::{EncodeOptions, Tokenizer};
use crate::verify::{Bounds, ObservedStep, Plan, Report, html, verify};

/// Long enough for several KV pages in most vocabularies.
const PROMPT: &str = "\
A lighthouse keeper writes down what the sea brings each morning: driftwood, a blue bottle, once a \
letter in a language that nobody on the island could read. Tell what happened on the day when the \
sea brought nothing, in exactly three sentences, and explain why 17 * 23 = 391 mattered to her.";

/// Runs a prompt through a backend and through the reference, which starts every operation from the
/// backend's own inputs, and reports how far each result is off. Exit code 1 when an operation is
/// out of bounds; the first one is named.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hyperion verify smollm2 --device cuda
  hyperion verify model.gguf -p 'Once upon a time' --raw --html report.html
  hyperion verify smollm2 --against trace.safetensors --device cpu
  hyperion verify smollm2 --gemm
  hyperion verify smollm2 --weights blk.0.attn_q.weight -n 100 --device cuda
  hyperion verify smollm2 --kl text.txt --chunk 1")]
pub struct VerifyArgs {
    /// A GGUF file, or the short name of a model in the cache
    pub model: String,
    /// The prompt [default: a built-in one]
    #[arg(long, short, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// Take the prompt as it is instead of as a chat message
    #[arg(long)]
    pub raw: bool,
    /// Decode steps behind the prompt
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = count(0..=MOST))]
    pub decode: usize,
    /// Sequences that decode together after that
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = count(1..=64))]
    pub batch: usize,
    /// Run the token ids in the tensor `tokens` of a safetensors file and compare with the file's
    /// other tensors, under llama.cpp's names
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "kl", "dump"])]
    pub against: Option<PathBuf>,
    /// Largest relative error that --against accepts [default: by the types in use]
    #[arg(long, value_name = "X", requires = "against")]
    pub tolerance: Option<f64>,
    /// Write the backend's tensors for the prompt to a safetensors file that --against reads
    #[arg(long, value_name = "FILE", conflicts_with = "kl")]
    pub dump: Option<PathBuf>,
    /// Compare next-token distributions over a text: mean and 99th percentile of the KL divergence,
    /// agreement on the most probable token
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub kl: Option<PathBuf>,
    /// Tokens from the text's beginning
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "kl", value_parser = count(0..=MOST))]
    pub kl_tokens: usize,
    /// Tokens of one sequence
    #[arg(long, value_name = "N", default_value_t = 500, requires = "kl",
          value_parser = count(1..=MOST))]
    pub kl_chunk: usize,
    /// Largest mean divergence that passes [default: by the types in use]
    #[arg(long, value_name = "X", requires = "kl")]
    pub kl_bound: Option<f64>,
    /// Recompute rows of every matrix product by hand, in f64 and from the file's own bytes, and
    /// print shapes, transposes and leading dimensions in cuBLAS's terms
    #[arg(long, value_name = "ROWS", num_args = 0..=1, default_missing_value = "16", value_parser = count(0..=MOST),
          conflicts_with_all = ["against", "dump", "kl", "html"])]
    pub gemm: Option<usize>,
    /// Read tensors back from the device, all or one, and compare them with the file bit for bit
    #[arg(long, value_name = "TENSOR", num_args = 0..=1, default_missing_value = "",
          conflicts_with_all = ["against", "dump", "kl", "html", "gemm", "prompt"])]
    pub weights: Option<String>,
    /// Values to print of each tensor, side by side
    #[arg(short, value_name = "N", default_value_t = 0, requires = "weights", value_parser = count(0..=MOST))]
    pub n: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Write a page with a heat map of the errors
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
}

/// A model with what turns text into tokens.
struct Opened {
    gguf: Gguf,
    model: Arc<Model>,
    tokenizer: Tokenizer,
}

impl Opened {
    fn open(name: &str) -> anyhow::Result<Opened> {
        let path = model_cache::resolve(name)?;
        let gguf = Gguf::open(&path)?;
        // The model first: of a file that holds none, its vocabulary is no matter.
        let model = Arc::new(Model::from_gguf(&gguf).map_err(|error| of_file(&path, error))?);
        let tokenizer = Tokenizer::from_gguf(&gguf).map_err(|error| of_file(&path, error))?;
        warnings::about_vocabulary(&tokenizer);
        Ok(Opened {
            gguf,
            model,
            tokenizer,
        })
    }

    fn prompt(&self, args: &VerifyArgs) -> anyhow::Result<Vec<u32>> {
        let text = args.prompt.as_deref().unwrap_or(PROMPT);
        let template = match args.raw {
            true => None,
            false => Some(ChatTemplate::from_gguf(&self.gguf, &self.tokenizer)?),
        };
        if template
            .as_ref()
            .is_some_and(|template| !template.is_from_file())
        {
            warnings::without_template();
        }
        let tokens = if let Some(template) = template.filter(ChatTemplate::is_from_file) {
            let message = Message::new("user", text);
            template.encode(&self.tokenizer, &[message], true, &Variables::new())?
        } else {
            let options = EncodeOptions {
                add_special: true,
                parse_special: true,
            };
            self.tokenizer.encode(text, options)?
        };
        if tokens.is_empty() {
            bail!("the prompt is empty");
        }
        warnings::about_prompt(&self.tokenizer, &tokens);
        Ok(tokens)
    }

    /// The backend to be verified, with room for `n_tokens` tokens, and the rounding that its bounds
    /// allow for.
    fn subject(
        &self,
        args: &VerifyArgs,
        n_tokens: usize,
    ) -> anyhow::Result<(Box<dyn Backend>, Option<ActivationPrecision>)> {
        let room = Room {
            sequences: args.batch,
            ..Room::new(n_tokens, 1)
        };
        let device = open_device(&args.run)?;
        let mut run = args.run.clone();
        if device.is_none() {
            // Its fast path is verified where it is asked for.
            run.activations.get_or_insert(ActivationsArg::F16);
        }
        let backend = backend_on(device, self.model.clone(), &run, room)?;
        if args.run.device == DeviceChoice::Auto && backend.activations().is_none() {
            eprintln!("no GPU was found: this holds the CPU against itself (see --device)");
        }
        let rounding = backend.activations();
        Ok((backend, rounding))
    }

    fn reference(&self, n_tokens: usize) -> CpuBackend {
        let model = self.model.clone().for_context(n_tokens);
        CpuBackend::new(model, n_tokens.div_ceil(PAGE_TOKENS))
    }
}

/// Runs the command.
pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    start_threads(&args.run)?;
    let opened = Opened::open(&args.model)?;
    let passed = match args {
        VerifyArgs {
            against: Some(file),
            ..
        } => files::against(args, &opened, file)?,
        VerifyArgs {
            dump: Some(file), ..
        } => files::dump(args, &opened, file)?,
        VerifyArgs {
            gemm: Some(rows), ..
        } => checks::gemm(args, &opened, *rows)?,
        VerifyArgs {
            weights: Some(tensor),
            ..
        } => checks::weights(args, &opened, tensor)?,
        VerifyArgs { kl: Some(file), .. } => files::kl(args, &opened, file)?,
        _ => operations(args, &opened)?,
    };
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Every operation of a prompt and some decode steps.
fn operations(args: &VerifyArgs, opened: &Opened) -> anyhow::Result<bool> {
    let report = observed(args, opened, &mut |_, _| {})?;
    write_report(args, &report)?;
    Ok(report.passed())
}

/// Runs the verification of `args`; `observe` sees every step of the backend, with the bounds.
fn observed(
    args: &VerifyArgs,
    opened: &Opened,
    observe: &mut dyn FnMut(&ObservedStep<'_>, &Bounds),
) -> anyhow::Result<Report> {
    let tokens = opened.prompt(args)?;
    // In two chunks at least, so that the second one reads keys of the first from the cache.
    let chunk = args.run.most_chunk().min(tokens.len().div_ceil(2));
    let plan = Plan {
        tokens: &tokens,
        chunk,
        decode_steps: args.decode,
        batch: args.batch,
    };
    let n_tokens = plan.pages() * PAGE_TOKENS;
    let (mut subject, rounding) = opened.subject(args, n_tokens)?;
    let mut reference = opened.reference(n_tokens);
    let mut bounds = Bounds::new(&opened.model, rounding);
    if subject.rounds_every_step() {
        bounds = bounds.in_every_step();
    }
    let observe = &mut |step: &ObservedStep<'_>| observe(step, &bounds);
    Ok(verify(
        &mut *subject,
        &mut reference,
        &plan,
        &bounds,
        observe,
    )?)
}

fn write_report(args: &VerifyArgs, report: &Report) -> anyhow::Result<()> {
    if let Some(path) = &args.html {
        std::fs::write(path, html::page(report, &args.model))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    let mut out = io::stdout().lock();
    if args.json {
        let fault = report.first_fault();
        let value = serde_json::json!({
            "passed": fault.is_none(),
            "first_fault": fault,
            "report": report,
        });
        serde_json::to_writer_pretty(&mut out, &value).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        text::write(&mut out, report, args.run.verbose)?;
    }
    Ok(())
}
