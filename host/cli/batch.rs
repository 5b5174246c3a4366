//! `hyperion batch`: the answers to a file of requests.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::run_args::{MIXED_CHUNK, RunArgs};
use super::session::{Session, Sizes};
use super::speculate_args::SpeculateArgs;
use super::{interrupt, model_name, warnings};
use crate::batch::{
    Batch, BatchError, Identity, Journal, Progress, RequestFile, Summary, fingerprint,
};
use crate::gguf::Gguf;
use crate::grammar::Grammars;
use crate::openai::Endpoint;

const HELP: &str = "\
A line of REQUESTS is an object of OpenAI's batch form:
  {\"custom_id\": \"a\", \"body\": {\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}}
  {\"custom_id\": \"b\", \"url\": \"/v1/completions\", \"body\": {\"prompt\": \"Once upon a time\", \"seed\": 1}}
A line of the results is
  {\"id\": ..., \"custom_id\": \"a\", \"response\": {\"status_code\": 200, ..., \"body\": ...}, \"error\": null}
in the order in which they are finished.

What a body does not say is as in OpenAI's API: temperature 1, top_p 1, no other filter or penalty; 16 \
tokens for a completion, and for a chat as many as the model writes. Beside OpenAI's fields there are top_k, \
min_p, typical_p, repeat_penalty (repetition_penalty), repeat_last_n, ignore_eos and chat_template_kwargs. A \
field that is not supported makes an error of its line, unless its value asks for nothing. MODEL answers \
whatever model a body names. Without a seed, one follows from the file and the custom_id.

Examples:
  hyperion batch smollm2 requests.jsonl -o results.jsonl
  hyperion batch smollm2 requests.jsonl --ctx 2048 --parallel 32 | jq .response.body";

/// A run that was stopped, by whatever, is continued by the next one: results are appended as they are finished,
/// and those that are there already are not made again. A request's error is its own line.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct BatchArgs {
    /// A GGUF file, or the short name of a model in the cache (see `hyperion models`)
    model: String,
    /// The requests, a JSON object a line; - is standard input
    requests: PathBuf,
    /// Where results are appended; - is standard output, where no run can be continued
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Most requests at a time [default: 64 on a GPU, fewer where its memory is short, and 8 on the CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: Option<u16>,
    /// Tokens that the KV cache holds for all requests together [default: --ctx for each of --parallel, on a
    /// GPU as far as its memory goes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    kv_tokens: Option<u32>,
    /// Tokens of a step in which some requests write and others read their prompts: fewer make a steadier flow,
    /// more a faster start
    #[arg(long, value_name = "N", default_value_t = MIXED_CHUNK as u32, value_parser = clap::value_parser!(u32).range(1..))]
    budget: u32,
    /// Leave out progress and figures
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    speculate: SpeculateArgs,
}

/// Runs the command.
pub fn run(args: &BatchArgs) -> anyhow::Result<ExitCode> {
    let requests = read_requests(&args.requests)?;
    let path = model_cache::resolve(&args.model)?;
    let gguf = Gguf::open(&path)?;
    let model = model_name(&path);
    let identity = Identity::new(&requests, &model, &fingerprint_of(&gguf)?, &options(args));
    let mut output = Output::open(args, &requests, &identity)?;
    let total = requests.lines().len();
    let before = total - output.pending.len();
    let interrupt = interrupt::flag()?;

    let summary = match output.pending.is_empty() {
        true => Summary::default(),
        false => {
            let mut session = Session::open_for(&gguf, &args.run, args.sizes())?;
            let mut batch = session.batch(&requests, &identity, &model)?;
            let progress = &mut *show_progress(args.quiet, total, before);
            let pending = std::mem::take(&mut output.pending);
            let write = &mut |line: &[u8]| output.write(line);
            let summary = batch.run(&pending, interrupt, write, progress);
            // What is finished is kept also where the run failed.
            output.finish()?;
            summary.context("answering the requests")?
        }
    };
    if !args.quiet {
        eprintln!("{}", closing_line(&summary, before, total));
    }
    Ok(match summary.is_interrupted {
        true => ExitCode::from(super::INTERRUPTED),
        false => ExitCode::SUCCESS,
    })
}

impl BatchArgs {
    fn sizes(&self) -> Sizes {
        Sizes {
            parallel: self.parallel.map(usize::from),
            kv_tokens: self.kv_tokens.map(|tokens| tokens as usize),
            mixed_chunk: Some(self.budget as usize),
            speculate: self.speculate,
        }
    }
}

impl Session {
    /// The run of `requests`, which knows the template if it needs one.
    fn batch<'a>(
        &'a mut self,
        requests: &'a RequestFile,
        identity: &'a Identity,
        model: &'a str,
    ) -> anyhow::Result<Batch<'a>> {
        let is_chat = |endpoint| endpoint == Some(Endpoint::ChatCompletions);
        let has_chat = requests.lines().iter().any(|line| is_chat(line.endpoint));
        let (scheduler, template) = self.parts();
        let template = match has_chat {
            true => {
                let template = template?;
                warnings::about_template(template);
                Some(template)
            }
            false => template.ok(),
        };
        Ok(Batch {
            grammars: Grammars::new(scheduler.tokenizer()),
            scheduler,
            template,
            requests,
            identity,
            model,
        })
    }
}

fn read_requests(path: &Path) -> anyhow::Result<RequestFile> {
    let (content, name) = match path == Path::new("-") {
        true => {
            let mut content = Vec::new();
            let read = io::stdin().read_to_end(&mut content);
            (read.map(|_| content), "standard input".to_owned())
        }
        false => (std::fs::read(path), path.display().to_string()),
    };
    let content = content.with_context(|| format!("reading {name}"))?;
    RequestFile::parse(content).with_context(|| format!("reading {name}"))
}

fn fingerprint_of(gguf: &Gguf) -> anyhow::Result<[u8; 32]> {
    let path = gguf.path().display();
    fingerprint(gguf.parts()).with_context(|| format!("reading {path}"))
}

/// The options on which results depend. Where and in what company a request runs is none of them.
fn options(args: &BatchArgs) -> String {
    format!(
        "ctx {:?} activations {:?} deterministic {}",
        args.run.ctx, args.run.activations, args.run.deterministic
    )
}

/// Where results go, and the requests that have none yet.
struct Output {
    /// None is standard output.
    journal: Option<Journal>,
    pending: Vec<usize>,
}

impl Output {
    fn open(
        args: &BatchArgs,
        requests: &RequestFile,
        identity: &Identity,
    ) -> anyhow::Result<Output> {
        if args.output == Path::new("-") {
            return Ok(Output {
                journal: None,
                pending: (0..requests.lines().len()).collect(),
            });
        }
        let ids: Vec<String> = requests
            .lines()
            .iter()
            .map(|line| identity.id(line))
            .collect();
        let (journal, done) = Journal::open(&args.output, &ids)?;
        let pending = done.iter().enumerate().filter(|(_, done)| !**done);
        Ok(Output {
            journal: Some(journal),
            pending: pending.map(|(line, _)| line).collect(),
        })
    }

    fn write(&mut self, line: &[u8]) -> Result<(), BatchError> {
        match &mut self.journal {
            Some(journal) => journal.append(line)?,
            None => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(line)?;
                stdout.flush()?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        match &mut self.journal {
            Some(journal) => Ok(journal.sync()?),
            None => Ok(()),
        }
    }
}

/// A bar on a terminal, of `total` requests of which `before` were done before.
fn show_progress(is_quiet: bool, total: usize, before: usize) -> Box<dyn FnMut(&Progress)> {
    if is_quiet || !io::stderr().is_terminal() {
        return Box::new(|_| {});
    }
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} requests, {msg} {eta}");
    let bar = ProgressBar::new(total as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_position(before as u64);
    bar.reset_eta();
    let start = Instant::now();
    Box::new(move |progress| {
        let rate = progress.generated_tokens as f64 / start.elapsed().as_secs_f64().max(1e-9);
        let (used, pages) = (progress.pages_used, progress.pages);
        // The bar itself draws some times a second.
        bar.set_message(format!("{rate:.0} tok/s, {used}/{pages} pages"));
        bar.set_position((before + progress.done) as u64);
        if before + progress.done == total {
            bar.finish_and_clear();
        }
    })
}

fn closing_line(summary: &Summary, before: usize, total: usize) -> String {
    let mut line = format!("{} requests, {} failed", summary.requests, summary.failed);
    if before > 0 {
        let _ = write!(line, " (+{before} done before)");
    }
    let missing = total - before - summary.requests;
    if missing > 0 {
        let _ = write!(line, ", {missing} not done: run it again");
    }
    let seconds = summary.elapsed.as_secs_f64();
    let rate = summary.generated_tokens as f64 / seconds.max(1e-9);
    let _ = write!(
        line,
        " · prompt {} tokens, {} of them cached · generated {} tokens · {seconds:.1} s, {rate:.1} tok/s",
        summary.prompt_tokens, summary.cached_tokens, summary.generated_tokens,
    );
    line
}
