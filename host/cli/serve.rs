//! `hyperion serve`: a model behind an HTTP server.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;

use super::run_args::{MIXED_CHUNK, RunArgs};
use super::session::{Session, Sizes};
use super::{interrupt, model_name, warnings};
use crate::gguf::Gguf;
use crate::server::{self, Config, Exit, Limits, Loaded, ServeError};

const HELP: &str = "\
Examples:
  hyperion serve smollm2
  hyperion serve model.gguf --port 8080 --parallel 32
  curl localhost:8080/v1/chat/completions -H 'content-type: application/json' \\
    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'";

/// OpenAI's API over HTTP. When the model is loaded, one line with the address goes to standard output; all else goes
/// to standard error. SIGTERM and Ctrl-C end the server when the answers under way are complete, a second one at once.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct ServeArgs {
    /// A GGUF file, or the short name of a model in the cache (see `hyperion models`)
    model: String,
    /// Where to listen: an address of this machine, or 0.0.0.0 for all of them
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: String,
    /// The port; 0 takes one that is free, which the line on standard output tells
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// What responses call the model [default: its file's name]
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// Most requests that run at a time [default: 64 on a GPU, fewer where its memory is short, and 8 on the CPU]
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
    #[command(flatten)]
    run: RunArgs,
}

/// Runs the command.
pub fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let path = model_cache::resolve(&args.model)?;
    let gguf = Gguf::open(&path)?;
    let config = Config {
        host: args.host.clone(),
        port: args.port,
        model_name: args.alias.clone().unwrap_or_else(|| model_name(&path)),
        limits: Limits::default(),
    };
    let sizes = Sizes {
        parallel: args.parallel.map(usize::from),
        kv_tokens: args.kv_tokens.map(|tokens| tokens as usize),
        mixed_chunk: Some(args.budget as usize),
    };
    // The first Ctrl-C is no reason to stop the step under way.
    let interrupt = interrupt::flag_alone();
    let run_args = args.run.clone();
    let load = move || -> anyhow::Result<Loaded> {
        let session = Session::open_for(&gguf, &run_args, sizes)?;
        if let Ok(template) = session.template() {
            warnings::about_template(template);
        }
        let (scheduler, template) = session.into_parts();
        Ok(Loaded {
            scheduler,
            template: template.map_err(|error| format!("{error:#}")),
            interrupt,
        })
    };
    match server::run(config, load, announce) {
        Ok(Exit::Drained) => Ok(ExitCode::SUCCESS),
        Ok(Exit::Forced) => Ok(ExitCode::from(super::INTERRUPTED)),
        Err(ServeError::Load(error)) => Err(error),
        Err(ServeError::Bind { address, source }) => {
            Err(anyhow::Error::new(source).context(format!("cannot listen on {address}")))
        }
        Err(ServeError::Start(error)) => {
            Err(anyhow::Error::new(error).context("starting the server"))
        }
        Err(ServeError::Engine(error)) => Err(error.into()),
    }
}

/// The one line on standard output, for scripts and people.
fn announce(address: SocketAddr) {
    let mut stdout = io::stdout().lock();
    // Whoever closed it does not want to know.
    let _ = writeln!(stdout, "hyperion is ready at http://{address}");
    let _ = stdout.flush();
}
