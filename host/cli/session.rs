//! Opening a model for text: file, tokenizer, template, backend, engine.

use std::io::{self, IsTerminal};
use std::panic::resume_unwind;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;

use super::device::{backend_on, open_device};
use super::warnings;
use crate::backend::{Activations, Backend};
use crate::chat::{ChatTemplate, Message, Variables};
use crate::device::choice::DeviceChoice;
use crate::engine::Engine;
use crate::gguf::Gguf;
use crate::gpu::DEFAULT_CHUNK;
use crate::model::Model;
use crate::tokenizer::Tokenizer;

/// Context without `--ctx`, unless the model was trained with less. Longer ones cost memory that
/// few sessions use.
const DEFAULT_CONTEXT: usize = 4096;

/// More threads than a machine has cores only get in each other's way, and thousands stop the machine.
const MAX_THREADS: i64 = 512;

/// How a model runs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Running")]
pub struct RunArgs {
    /// Tokens of prompt and answer together that fit [default: the model's, at most 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub ctx: Option<u32>,
    /// Prompt tokens computed in one step; more are quicker on a GPU, and take more of its memory
    /// [default: 2048 on a GPU, 512 on the CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub chunk: Option<u32>,
    /// CPU threads [default: all cores]
    #[arg(long, short, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=MAX_THREADS))]
    pub threads: Option<u16>,
    /// Where it runs: auto, cpu, cuda, cuda:N or sim
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
    /// What a GPU rounds activations to before it multiplies them with quantized weights [default: f16 where the
    /// weights are less than 256 MiB, q8 where they are more]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub activations: Option<Activations>,
    /// Say more: the device and what is allocated there, every row of a report
    #[arg(long, short)]
    pub verbose: bool,
}

impl RunArgs {
    /// Prompt tokens that `backend` computes in one step.
    pub fn chunk(&self, backend: &dyn Backend) -> usize {
        self.chunk
            .map_or(backend.default_chunk(), |chunk| chunk as usize)
    }

    /// The same before the device is known: as many as a GPU gets room for.
    pub fn most_chunk(&self) -> usize {
        self.chunk.map_or(DEFAULT_CHUNK, |chunk| chunk as usize)
    }
}

/// Starts as many CPU threads as `args` ask for.
pub fn start_threads(args: &RunArgs) -> anyhow::Result<()> {
    let Some(threads) = args.threads else {
        return Ok(());
    };
    rayon::ThreadPoolBuilder::new()
        .num_threads(usize::from(threads))
        .build_global()
        .context("starting the CPU threads")
}

/// What a file has for text: tokenizer, chat template, model.
fn read(gguf: &Gguf) -> anyhow::Result<(Tokenizer, ChatTemplate, Arc<Model>)> {
    let tokenizer = Tokenizer::from_gguf(gguf)?;
    let template = ChatTemplate::from_gguf(gguf, &tokenizer)?;
    Ok((tokenizer, template, Arc::new(Model::from_gguf(gguf)?)))
}

/// A model that is ready to write.
pub struct Session {
    /// Its engine.
    pub engine: Engine,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The file's chat template, or the fallback.
    pub template: ChatTemplate,
}

impl Session {
    /// Opens `model`, a path or a short name.
    pub fn open(model: &str, args: &RunArgs) -> anyhow::Result<Session> {
        start_threads(args)?;
        let path = model_cache::resolve(model)?;
        let gguf = Gguf::open(&path)?;
        // A driver takes as long to start as a large vocabulary takes to read.
        let (contents, device) = std::thread::scope(|scope| {
            let device = scope.spawn(|| open_device(args));
            let contents = read(&gguf).with_context(|| format!("reading {}", path.display()));
            let device = device.join().unwrap_or_else(|panic| resume_unwind(panic));
            (contents, device)
        });
        let (tokenizer, template, model) = contents?;
        warnings::about_vocabulary(&tokenizer);
        let context = match args.ctx {
            Some(context) => context as usize,
            None => model.config.context_length.min(DEFAULT_CONTEXT),
        };
        let backend = backend_on(device?, model, args, Engine::pages_for(context, 1))?;
        let chunk = args.chunk(&*backend);
        let engine = Engine::new(backend, context, chunk);
        Ok(Session {
            engine,
            tokenizer,
            template,
        })
    }

    /// Shows on a terminal how far a prompt of several chunks has got, and wipes it out at the end.
    pub fn show_progress(&mut self) {
        if !io::stderr().is_terminal() {
            return;
        }
        self.engine.report_progress(Box::new(|done, total| {
            const WIPE_LINE: &str = "\r\x1b[K";
            if done < total {
                eprint!("{WIPE_LINE}prompt: {done} of {total} tokens");
            } else {
                eprint!("{WIPE_LINE}");
            }
        }));
    }

    /// The tokens of a conversation, up to where the assistant's answer begins.
    pub fn chat_tokens(&self, messages: &[Message]) -> anyhow::Result<Vec<u32>> {
        let tokens = self
            .template
            .encode(&self.tokenizer, messages, true, &Variables::new())?;
        warnings::about_template(&self.template);
        warnings::about_prompt(&self.tokenizer, &tokens);
        Ok(tokens)
    }
}
