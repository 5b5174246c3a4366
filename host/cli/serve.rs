//! `hyperion serve`: a model behind an HTTP server.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, anyhow, ensure};
use clap::{Args, ValueEnum};
use tracing::level_filters::LevelFilter;

use super::run_args::{MIXED_CHUNK, RunArgs};
use super::session::{Session, Sizes};
use super::speculate_args::SpeculateArgs;
use super::{interrupt, model_name, warnings};
use crate::backend::Pooling;
use crate::device::end_process;
use crate::gguf::Gguf;
use crate::server::logging::{self, LogFormat};
use crate::server::{self, Access, ApiKeys, Config, Exit, Limits, Loaded, ServeError};

/// How long a connection may rest before a request: longer than proxies keep theirs, which is a minute, so that it is
/// they who close them and know of it.
const IDLE_TIME: Duration = Duration::from_secs(75);
/// How long a request's head may take, from its first bytes.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long its body may take.
const BODY_TIME: Duration = Duration::from_secs(60);
/// Tokens that a client may be behind: some seconds of a quick model.
const EVENTS_BEHIND: usize = 16_384;
/// How long a client may read nothing while something is sent to it.
const STALL_TIME: Duration = Duration::from_secs(30);

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
    /// Most answers that are made at a time [default: 64 on a GPU, fewer where its memory is short, and 8 on the CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: Option<u16>,
    /// Tokens that the KV cache holds for all answers together [default: --ctx for each of --parallel, on a
    /// GPU as far as its memory goes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    kv_tokens: Option<u32>,
    /// Which hidden state of the model stands for a text in /v1/embeddings
    #[arg(long, value_enum, value_name = "HOW", default_value_t = PoolingArg::Last)]
    pooling: PoolingArg,
    /// Tokens of a step in which some answers are written and others' prompts read: fewer make a steadier flow,
    /// more a faster start
    #[arg(long, value_name = "N", default_value_t = MIXED_CHUNK as u32, value_parser = clap::value_parser!(u32).range(1..))]
    budget: u32,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    speculate: SpeculateArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
struct AccessArgs {
    /// A key that requests need, as a bearer token or as x-api-key; may be given several times. Other users of this
    /// machine can see it: a file is better, or the variable HYPERION_API_KEYS, with spaces between keys
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,
    /// A file with such keys, one a line
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// A name under which clients reach this server, beside those of this machine; may be given several times, and *
    /// is any
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    allowed_host: Vec<String>,
    /// An origin whose web pages may ask, such as https://example.com; may be given several times, and * is any
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    cors_origin: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Answers that wait beside those that are made; a request for more is told to try again
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_queue: u32,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65536))]
    max_connections: u32,
    /// MiB of a request's body
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    max_body: u32,
    /// Tokens of a prompt, where that is less than --ctx [default: --ctx]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_prompt: Option<u32>,
    /// Tokens of an answer [default: what fits the context]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_answer: Option<u32>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Log")]
struct LogArgs {
    /// How lines of the log look
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = FormatArg::Text)]
    log_format: FormatArg,
    /// What is logged: off, error, warn, info or debug
    #[arg(long, value_name = "LEVEL", default_value_t = LevelFilter::INFO)]
    log_level: LevelFilter,
    /// Log what users write, too
    #[arg(long)]
    log_prompts: bool,
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

/// `--pooling`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PoolingArg {
    /// The mean over all tokens.
    Mean,
    /// The last token's.
    Last,
}

/// Runs the command.
pub fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let format = match args.log.log_format {
        FormatArg::Text => LogFormat::Text,
        FormatArg::Json => LogFormat::Json,
    };
    logging::init(format, args.log.log_level).context("starting the log")?;
    let path = model_cache::resolve(&args.model)?;
    let gguf = Gguf::open(&path)?;
    let config = args.config(&path)?;
    let sizes = Sizes {
        parallel: args.parallel.map(usize::from),
        kv_tokens: args.kv_tokens.map(|tokens| tokens as usize),
        mixed_chunk: Some(args.budget as usize),
        speculate: args.speculate,
    };
    // The first Ctrl-C is no reason to stop the step under way.
    let interrupt = interrupt::flag_alone();
    let run_args = args.run.clone();
    let load = move || load(&gguf, &run_args, sizes, interrupt);
    match server::run(config, load, announce) {
        // The engine's thread may be in the middle of a step, of loading, or of giving back what it holds.
        Ok(Exit::Drained) => end_process(0),
        Ok(Exit::Forced) => end_process(super::INTERRUPTED),
        Err(ServeError::Engine(error)) => {
            super::report(&error.into());
            end_process(super::FAILED)
        }
        Err(ServeError::Load(error)) => Err(error),
        Err(ServeError::Bind { address, source }) => Err(not_bound(&address, &source)),
        Err(ServeError::Start(error)) => Err(error).context("starting the server"),
    }
}

fn load(
    gguf: &Gguf,
    args: &RunArgs,
    sizes: Sizes,
    interrupt: &'static AtomicBool,
) -> anyhow::Result<Loaded> {
    let session = Session::open_for(gguf, args, sizes)?;
    if let Ok(template) = session.template() {
        warnings::about_template(template);
    }
    let (scheduler, template) = session.into_parts();
    Ok(Loaded {
        scheduler,
        template: template.map_err(|error| format!("{error:#}")),
        interrupt,
    })
}

fn not_bound(address: &str, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow!("{address} is in use by another program; --port takes another port, 0 any")
        }
        _ => anyhow!("cannot listen on {address}: {error}"),
    }
}

impl ServeArgs {
    fn config(&self, model: &Path) -> anyhow::Result<Config> {
        let tokens = |limit: Option<u32>| limit.map(|limit| limit as usize);
        Ok(Config {
            host: self.host.clone(),
            port: self.port,
            model_name: self.alias.clone().unwrap_or_else(|| model_name(model)),
            access: self.access.read()?,
            limits: Limits {
                body_bytes: (self.limits.max_body as usize) << 20,
                prompt_tokens: tokens(self.limits.max_prompt),
                answer_tokens: tokens(self.limits.max_answer),
                queue: self.limits.max_queue as usize,
                connections: self.limits.max_connections as usize,
                idle_time: IDLE_TIME,
                head_time: HEAD_TIME,
                body_time: BODY_TIME,
                events_behind: EVENTS_BEHIND,
                stall_time: STALL_TIME,
            },
            pooling: match self.pooling {
                PoolingArg::Mean => Pooling::Mean,
                PoolingArg::Last => Pooling::Last,
            },
            logs_prompts: self.log.log_prompts,
        })
    }
}

impl AccessArgs {
    fn read(&self) -> anyhow::Result<Access> {
        let from_file = match &self.api_key_file {
            Some(path) => fs::read_to_string(path)
                .with_context(|| format!("reading the keys from {}", path.display()))?,
            None => String::new(),
        };
        let from_environment = env::var("HYPERION_API_KEYS").unwrap_or_default();
        let keys = self.api_key.iter().map(String::as_str);
        let keys = keys.chain(
            from_file
                .lines()
                .map(str::trim)
                .filter(|key| !key.is_empty()),
        );
        let keys: Vec<&str> = keys.chain(from_environment.split_whitespace()).collect();
        ensure!(
            keys.iter().all(|key| !key.trim().is_empty()),
            "a key of --api-key is empty"
        );
        ensure!(
            self.api_key_file.is_none() || !from_file.trim().is_empty(),
            "the file of --api-key-file has no keys"
        );
        Ok(Access {
            allowed_hosts: self.allowed_host.clone(),
            cors_origins: self.cors_origin.clone(),
            api_keys: ApiKeys::new(keys),
        })
    }
}

/// The one line on standard output, for scripts and people.
fn announce(address: SocketAddr) {
    let mut stdout = io::stdout().lock();
    // Whoever closed it does not want to know.
    let _ = writeln!(stdout, "hyperion is ready at http://{address}");
    let _ = stdout.flush();
}

/// A name as it stands in a `Host`, without a port; one that could never be found there is refused.
fn host_name(text: &str) -> Result<String, String> {
    let is_plain = !text.is_empty() && !text.contains(['/', ':', '@', ' ']);
    match is_plain || text.parse::<IpAddr>().is_ok() {
        true => Ok(text.to_owned()),
        false => Err("expected a name or an address without a port, or *".to_owned()),
    }
}

/// An origin as browsers send it; what could never be one is refused.
fn origin(text: &str) -> Result<String, String> {
    let is_plain = text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '@', ' '])
    });
    match is_plain || text == "*" {
        true => Ok(text.to_owned()),
        false => {
            Err("expected an origin without a path, such as https://example.com, or *".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_origins_that_nobody_sends_are_refused() {
        for name in ["*", "llm.example", "10.0.0.1", "fe80::1"] {
            assert_eq!(host_name(name).as_deref(), Ok(name));
        }
        for name in ["", "http://llm.example", "llm.example:80", "a/b", "a b"] {
            assert!(host_name(name).is_err(), "{name}");
        }
        for name in ["*", "https://a.example", "http://[::1]:3000", "app://notes"] {
            assert_eq!(origin(name).as_deref(), Ok(name));
        }
        for name in ["", "localhost", "a.example", "https://a.example/", "://a"] {
            assert!(origin(name).is_err(), "{name}");
        }
    }
}
