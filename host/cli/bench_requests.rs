//! `hyperion bench --requests`: many requests through the scheduler, as a server has them.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};

use super::bench::{BenchArgs, header};
use super::device::{Room, backend_on};
use super::interrupt;
use super::session::of_file;
use crate::backend::Draw;
use crate::bench::{Load, run_load, write_loads};
use crate::chat::{ChatTemplate, Message, Variables};
use crate::device::Device;
use crate::engine::{EngineError, Options, Scheduler};
use crate::gguf::Gguf;
use crate::model::Model;
use crate::sampling::SamplingParams;
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// Runs requests through the scheduler.
pub fn run(
    args: &BenchArgs,
    gguf: &Gguf,
    model: Arc<Model>,
    device: Option<Arc<dyn Device>>,
    requests: usize,
) -> anyhow::Result<ExitCode> {
    let tokenizer = Tokenizer::from_gguf(gguf).map_err(|error| of_file(gguf.path(), error))?;
    let one = |list: &Option<Vec<usize>>, default: usize| match list.as_deref() {
        None => Ok(default),
        Some(&[n]) if n > 0 => Ok(n),
        Some(_) => Err(anyhow!(
            "--requests takes one length above 0 for -p and one for -n"
        )),
    };
    let text = match &args.prompt_file {
        Some(file) => Some(prompt_tokens(gguf, &tokenizer, file)?),
        None => None,
    };
    let load = Load {
        requests,
        concurrency: args.concurrency.min(requests),
        prompt: match &text {
            Some(text) => text.len(),
            None => one(&args.n_prompt, 512)?,
        },
        text,
        answer: one(&args.n_gen, 128)?,
        long_prompt: args.long_prompt,
        sampling: SamplingParams::drawn(Draw {
            temperature: args.temp,
            ..Draw::default()
        }),
    };
    let long = load.long_prompt.map_or(0, |n| n + 1);
    let short = Room::new(load.prompt + load.answer, load.concurrency);
    let room = Room {
        context: short.context.max(long),
        sequences: load.concurrency + usize::from(long > 0),
        n_pages: short.n_pages + Room::new(long, 1).n_pages,
        drafts: args.speculate.most(),
    };
    let backend = backend_on(device, model, &args.run, room)?;
    let header = header(args, gguf, backend.description(), None);
    let chunk = args.run.chunk(&*backend);
    let options = Options {
        context: room.context,
        chunk,
        mixed_chunk: chunk.min(args.budget),
        max_running: room.sequences,
    };
    let mut scheduler = Scheduler::new(backend, Arc::new(tokenizer), options);
    args.speculate.apply(&mut scheduler);
    if scheduler.backend().overlaps() {
        scheduler.warm_up().context("warming up")?;
    }
    let figures = match run_load(&mut scheduler, &load, interrupt::flag()?) {
        Err(EngineError::Interrupted) => return Ok(ExitCode::from(super::INTERRUPTED)),
        figures => figures.context("running the requests")?,
    };
    write_loads(
        &mut io::stdout().lock(),
        args.output.into(),
        &header,
        &[figures],
    )?;
    Ok(ExitCode::SUCCESS)
}

/// The tokens of a prompt's file.
fn prompt_tokens(gguf: &Gguf, tokenizer: &Tokenizer, file: &Path) -> anyhow::Result<Vec<u32>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("reading the prompt from {}", file.display()))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let template = ChatTemplate::from_gguf(gguf, tokenizer)?;
    let message = Message::new("user", text);
    let tokens = match template.is_from_file() {
        true => template.encode(tokenizer, &[message], true, &Variables::new())?,
        false => tokenizer.encode(
            text,
            EncodeOptions {
                add_special: true,
                parse_special: false,
            },
        )?,
    };
    ensure!(!tokens.is_empty(), "the prompt is empty");
    Ok(tokens)
}
